"""One random damage to a folder: its config, header, index, pickle, plan, undo file, or bytes of any of them."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.values import damaged_bytes, damaged_json

__all__ = ["damage"]

_HEADERS = ["header", "header", "header", "bytes", "cut", "length"]
_KINDS = {
    "plain": ["config", "config", "config text", *_HEADERS],
    "sharded": ["index", "index", "index text", "config", *_HEADERS],
    "zip": ["table", "table", "end", "pickle", "config"],
    "row": ["front", "front", "front", "pickle"],
    "variant": ["plan", "plan", "plan text", "config", "manifest", "manifest", "undo", "member", "packed", "header"],
    "alone": ["part", "part", "part text", "config", "plan", "bytes"],
    "card": ["part", "part", "part text", "config", "plan"],
}


def damage(folder: Path, kind: str, draw: random.Random) -> str:
    """Damage one file of a folder.

    Args:
        folder: a copy of a seed.
        kind: of the seed.
        draw: decides.

    Returns:
        What was done, for the report.
    """
    how = draw.choice(_KINDS[kind])
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    weights = draw.choice(files or sorted(folder.rglob("*.safetensors")) or [folder / "README.md"])
    part = draw.choice(sorted(folder.glob("bias_patch/**/*.json")) or [folder / "config.json"])
    undo = folder / "bias_patch/undo.zip"
    jobs: dict[str, Callable[[], None]] = {
        "config": lambda: _json(folder / "config.json", draw),
        "config text": lambda: _bytes(folder / "config.json", draw),
        "index": lambda: _json(folder / "model.safetensors.index.json", draw),
        "index text": lambda: _bytes(folder / "model.safetensors.index.json", draw),
        "plan": lambda: _json(folder / "bias_patch/plan.json", draw),
        "plan text": lambda: _bytes(folder / "bias_patch/plan.json", draw),
        "part": lambda: _json(part, draw),
        "part text": lambda: _bytes(draw.choice([part, *folder.rglob("*.md")]), draw),
        "header": lambda: _header(weights, draw),
        "bytes": lambda: _bytes(weights, draw, 0, 30_000),
        "length": lambda: _length(weights, draw),
        "cut": lambda: weights.write_bytes(weights.read_bytes()[: draw.choice([0, 7, 8, 9, 5000, -1])]),
        "pickle": lambda: _bytes(weights, draw),
        "front": lambda: _bytes(weights, draw, 0, 8_000),
        "end": lambda: _bytes(weights, draw, -8_000),
        "table": lambda: _member(weights, "data.pkl", lambda raw: damaged_bytes(raw, draw)),
        "manifest": lambda: _member(undo, "manifest.json", lambda raw: _damaged(raw, draw)),
        "member": lambda: _member(undo, draw.choice(["bias", "rows", "files/0"]), lambda raw: damaged_bytes(raw, draw)),
        "packed": lambda: _member(undo, "manifest.json", lambda raw: raw, zipfile.ZIP_DEFLATED),
        "undo": lambda: _bytes(undo, draw),
    }
    jobs[how]()
    return how


def _damaged(raw: bytes, draw: random.Random) -> bytes:
    return _text(damaged_json(json.loads(raw), draw))


def _text(content: Any) -> bytes:
    return json.dumps(content).encode()


def _json(path: Path, draw: random.Random) -> None:
    path.write_bytes(_damaged(path.read_bytes(), draw))


def _bytes(path: Path, draw: random.Random, start: int = 0, stop: int | None = None) -> None:
    raw = path.read_bytes()
    path.write_bytes(damaged_bytes(raw, draw, max(0, len(raw) + start) if start < 0 else start, stop))


def _header(path: Path, draw: random.Random) -> None:
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    text = _damaged(raw[8 : 8 + size], draw)
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])


def _length(path: Path, draw: random.Random) -> None:
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    said = draw.choice([0, 1, 2, size - 1, size + 1, 10**8 + 1, 2**32, 2**63, 2**64 - 1, len(raw)])
    path.write_bytes(struct.pack("<Q", said) + raw[8:])


def _member(path: Path, ending: str, change: Callable[[bytes], bytes], packed: int = zipfile.ZIP_STORED) -> None:
    """The same archive with one member changed: its checksum is right, so that what reads it is what is tried."""
    made = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w", packed) as new:
        for entry in old.infolist():
            content = old.read(entry)
            new.writestr(entry.filename, change(content) if entry.filename.endswith(ending) else content)
    path.write_bytes(made.getvalue())
