"""What else decides what a checkpoint computes, beside its tensors: the config, and the files that make its inputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_bias_patch.architecture.causes import own_code
from hf_bias_patch.models.load import quiet
from hf_bias_patch.patching.record import LOADER, block_of, is_patched, loader_text
from hf_bias_patch.version import __version__

__all__ = ["differences"]

_MODULES = "modules.json"

_KINDS = (
    (
        "tokenizer*", "vocab.*", "merges.txt", "added_tokens.json", "special_tokens_map.json", "*.model", "*.tiktoken",
        "tekken.json", "chat_template.*",
    ),
    ("*preprocessor_config.json", "processor_config.json"),
    ("generation_config.json",),
    (_MODULES, "sentence_*_config.json", "config_sentence_transformers.json"),
)  # fmt: skip
"""Files that make a model's inputs of what a user gives it, kind by kind; that say how it generates; and what stands
behind it in sentence-transformers."""

_HEADS = ("*.pt", "*.pth", "*.pkl", "*.joblib", "*.bin", "*.safetensors")
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
"""A model's own, which are compared tensor by tensor, or are copies of them."""

_GENERATION = "generation_config.json"

_NO_MATTER = frozenset({"_name_or_path", "transformers_version", "bias_patch", "auto_map", "architectures"})
"""Config keys that say where a checkpoint comes from, or how a variant is loaded."""


def differences(variant: Path, source: Path) -> tuple[str, ...]:
    """Why two checkpoints of equal tensors may compute different things, each as a sentence without its full stop.

    Args:
        variant, source: their folders. Where only one of them has files of some kind, such as a tokenizer, that is no
            difference: they may lie elsewhere.
    """
    return (
        *_of_configs(variant, source),
        *_of_files(variant, source),
        *_of_generation(variant, source),
        *_of_parts(variant, source),
        *_of_loader(variant),
    )


def _of_configs(variant: Path, source: Path) -> Iterator[str]:
    new, old = _config(variant), _config(source)
    for key in sorted((new.keys() | old.keys()) - _NO_MATTER):
        ours, theirs = new.get(key), old.get(key)
        if ours != theirs:
            yield f"config.json: `{key}` is {_short(ours)}, and {_short(theirs)} in the source"
    ours, theirs = own_code(new), own_code(old)
    if ours != theirs:
        yield f"config.json: `auto_map` names {ours or 'no code'}, and {theirs or 'no code'} in the source"


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
    for kind in _KINDS:
        ours, theirs = _named(variant, kind), _named(source, kind)
        for name in sorted(ours & theirs):
            new, old = (variant / name).read_bytes(), (source / name).read_bytes()
            if new != old and not _same_json(name, new, old):
                yield f"{name} is not the source's"
        if ours and theirs:
            yield from (f"{name} is in the variant, and the source has none" for name in sorted(ours - theirs))
            yield from (f"{name} is in the source, and the variant has none" for name in sorted(theirs - ours))


def _of_parts(variant: Path, source: Path) -> Iterator[str]:
    """Heads beside the model, and the folders of the modules behind it in sentence-transformers."""
    heads = _named(variant, _HEADS) & _named(source, _HEADS) - _named(source, _WEIGHTS)
    folders = _modules(source) if (variant / _MODULES).is_file() else []
    ours, theirs = (heads.union(*(_within(top, folder) for folder in folders)) for top in (variant, source))
    for name in sorted(ours | theirs):
        there = (variant / name).is_file() and (source / name).is_file()
        if not there or (variant / name).read_bytes() != (source / name).read_bytes():
            yield f"{name} is not the source's"


def _modules(folder: Path) -> list[str]:
    """Folders of a sentence-transformers model's modules, but for the model's own."""
    try:
        entries = json.loads((folder / _MODULES).read_bytes())
        places = [Path(entry["path"]) for entry in entries if entry["path"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []
    return [str(place) for place in places if not place.is_absolute() and ".." not in place.parts]


def _within(top: Path, folder: str) -> set[str]:
    return {str(path.relative_to(top)) for path in (top / folder).rglob("*") if path.is_file()}


def _named(folder: Path, kind: tuple[str, ...]) -> set[str]:
    return {path.name for path in folder.iterdir() if any(map(path.match, kind)) and path.is_file()}


def _of_generation(variant: Path, source: Path) -> Iterator[str]:
    """Where one of them leaves to transformers how it generates: the same settings may stand in the other's file."""
    if (variant / _GENERATION).is_file() != (source / _GENERATION).is_file():
        new, old = _generation(variant), _generation(source)
        for key in sorted(new.keys() | old.keys()):
            if new.get(key) != old.get(key):
                ours, theirs = _short(new.get(key)), _short(old.get(key))
                yield f"{_GENERATION}: `{key}` is {ours}, and {theirs} in the source"


def _generation(folder: Path) -> dict[str, Any]:
    """The settings of generation as transformers makes them, of their own file or of config.json."""
    import transformers

    try:
        with quiet():
            if (folder / _GENERATION).is_file():
                found = transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
            else:
                config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
                found = transformers.GenerationConfig.from_model_config(config)
    except Exception:  # as for `_config`; such a checkpoint generates nothing
        return {}
    left_out = {"_from_model_config", "transformers_version"}
    return {key: value for key, value in found.to_dict().items() if key not in left_out}


def _of_loader(variant: Path) -> Iterator[str]:
    """The module that loads a variant whose biases are absent: what is in it decides as well."""
    config = dict(json.loads((variant / "config.json").read_bytes()))
    named = config.get("auto_map")
    if not is_patched(config) or LOADER[:-3] not in str(named):
        return
    path, by_this_version = variant / LOADER, block_of(config).get("version") == __version__
    if not path.is_file():
        yield f"{LOADER} is not in the variant, and config.json: `auto_map` names it"
    elif by_this_version and path.read_text("utf-8", "replace") != loader_text(str(config.get("model_type"))):
        yield f"{LOADER} is not as it was written"


def _same_json(name: str, new: bytes, old: bytes) -> bool:
    try:
        return name.endswith(".json") and bool(json.loads(new) == json.loads(old))
    except (ValueError, RecursionError):
        return False


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
