"""The sound files that damage starts from: the embedded checkpoints in every form they may have, and a variant."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hf_bias_patch import patch, revert
from hf_bias_patch.checkpoint.checkpoint import open_model
from hf_bias_patch.checkpoint.guards import ASSETS
from hf_bias_patch.checkpoint.source import resolve, sha256_of
from hf_bias_patch.patching.patch_only import extract

__all__ = ["NAMES", "alone", "make_seeds"]

CARDS = Path(__file__).parent.parent.parent / "model_cards"
NAMES = ("bert", "gpt2", "bart")


def make_seeds(folder: Path) -> dict[str, Path]:
    """Name → folder; the kind stands first: `plain`, `sharded`, `zip` and `row` (pickles of today and of before 2020),
    `variant`, `alone` (one without its weights), `card` (one with its certificate, scores and card)."""
    made: dict[str, Path] = {}
    kinds: dict[str, Callable[[Path, Path], None]] = {
        "plain": _plain, "sharded": _sharded, "zip": _zip, "row": _row, "variant": _variant,
    }  # fmt: skip
    for name in NAMES:
        for kind, make in kinds.items():
            made[f"{kind}-{name}"] = folder / f"{kind}-{name}"
            make(ASSETS / name, folder / f"{kind}-{name}")
        made[f"alone-{name}"] = folder / f"alone-{name}"
        alone(folder / f"variant-{name}", folder / f"alone-{name}")
    for source in sorted(CARDS.iterdir()):
        made[f"card-{source.name}"] = folder / source.name
        shutil.copytree(source, folder / source.name)
    return made


def alone(variant: Path, out: Path) -> None:
    """The variant without its weights."""
    shutil.copytree(variant, out, ignore=shutil.ignore_patterns("*.safetensors", "undo.zip"))
    checkpoint = open_model(variant)
    sha256 = sha256_of(resolve(variant), checkpoint.files)
    for name, content in extract(checkpoint, "owner/name", "c" * 40, sha256).items():
        (out / name).write_bytes(content)


def _plain(source: Path, out: Path) -> None:
    """Without the tokenizer, which nothing here reads, and cut to one layer in width so that copies are cheap."""
    out.mkdir()
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        if (source / name).exists():
            shutil.copy(source / name, out)


def _sharded(source: Path, out: Path) -> None:
    _plain(source, out)
    head, body = _read(out / "model.safetensors")
    names, weight_map = list(head), {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        entries, values = {}, b""
        for name in part:
            start, stop = head[name]["data_offsets"]
            entries[name] = {**head[name], "data_offsets": [len(values), len(values) + stop - start]}
            values += body[start:stop]
            weight_map[name] = file
        (out / file).write_bytes(_written(entries) + values)
    (out / "model.safetensors").unlink()
    index = {"metadata": {"total_size": len(body)}, "weight_map": weight_map}
    (out / "model.safetensors.index.json").write_text(json.dumps(index))


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    head = json.loads(raw[8 : 8 + size])
    head.pop("__metadata__", None)
    return head, raw[8 + size :]


def _written(entries: dict[str, Any]) -> bytes:
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _zip(source: Path, out: Path) -> None:
    _pickled(source, out, zipped=True)


def _row(source: Path, out: Path) -> None:
    _pickled(source, out, zipped=False)


def _pickled(source: Path, out: Path, *, zipped: bool) -> None:
    import torch  # the only part that needs it; the fuzzed calls do not

    out.mkdir()
    shutil.copy(source / "config.json", out)
    checkpoint = open_model(source)
    tensors = {name: torch.from_numpy(np.array(checkpoint.read(name))) for name in checkpoint.tensors}
    torch.save(tensors, out / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)


def _variant(source: Path, out: Path) -> None:
    patch(source, out, fold="key,value,query")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (out / name).unlink(missing_ok=True)
    assert revert(out, out.parent / f"reverted-{out.name}").tensors
