"""What else decides what a checkpoint computes, beside its tensors: the config, and the files that make its inputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from hf_bias_patch.models.load import quiet

__all__ = ["differences"]

_INPUTS = (
    "tokenizer*", "vocab.*", "merges.txt", "added_tokens.json", "special_tokens_map.json", "*.model", "*.tiktoken",
    "tekken.json", "*preprocessor_config.json", "processor_config.json", "chat_template.*", "generation_config.json",
)  # fmt: skip
"""Files that make a model's inputs of what a user gives it, or say how it generates."""

_NO_MATTER = frozenset({"_name_or_path", "transformers_version", "bias_patch", "auto_map", "architectures"})
"""Config keys that say where a checkpoint comes from, or how a variant is loaded."""


def differences(variant: Path, source: Path) -> tuple[str, ...]:
    """Why two checkpoints of equal tensors may compute different things, each as a sentence without its full stop.

    Args:
        variant, source: their folders. A file that only one of them has is no difference: it may lie elsewhere.
    """
    return (*_of_configs(variant, source), *_of_files(variant, source))


def _of_configs(variant: Path, source: Path) -> Iterator[str]:
    new, old = _config(variant), _config(source)
    for key in sorted((new.keys() | old.keys()) - _NO_MATTER):
        ours, theirs = new.get(key), old.get(key)
        if ours != theirs:
            yield f"config.json: `{key}` is {_short(ours)}, and {_short(theirs)} in the source"


def _config(folder: Path) -> dict[str, Any]:
    """A config as transformers reads it, with the defaults of what the file leaves out."""
    import transformers

    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception:  # a type that transformers lacks: such a checkpoint can be checked site by site
        return dict(json.loads((folder / "config.json").read_bytes()))
    return dict(json.loads(config.to_json_string(use_diff=False)))


def _of_files(variant: Path, source: Path) -> Iterator[str]:
    for path in sorted(source.iterdir()):
        other = variant / path.name
        if any(fnmatch(path.name, pattern) for pattern in _INPUTS) and path.is_file() and other.is_file():
            new, old = other.read_bytes(), path.read_bytes()
            if new != old and not _same_json(path.name, new, old):
                yield f"{path.name} is not the source's"


def _same_json(name: str, new: bytes, old: bytes) -> bool:
    try:
        return name.endswith(".json") and bool(json.loads(new) == json.loads(old))
    except (ValueError, RecursionError):
        return False


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
