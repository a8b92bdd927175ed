"""Made-up checkpoints of GPT-2's form, of any size."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shape:
    """Sizes of a GPT-2."""

    layers: int
    width: int
    heads: int
    vocab: int = 50257
    positions: int = 1024

    def config(self) -> dict[str, Any]:
        """Its config.json."""
        sizes = {
            "n_layer": self.layers,
            "n_embd": self.width,
            "n_head": self.heads,
            "n_positions": self.positions,
        }
        return {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": self.vocab, **sizes}

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes, in the order of the file."""
        width = self.width
        yield "transformer.wte.weight", (self.vocab, width)
        yield "transformer.wpe.weight", (self.positions, width)
        for layer in range(self.layers):
            at = f"transformer.h.{layer}"
            maps = [("attn.c_attn", 1, 3), ("attn.c_proj", 1, 1), ("mlp.c_fc", 1, 4), ("mlp.c_proj", 4, 1)]
            for name, into, out in maps:
                yield f"{at}.{name}.weight", (into * width, out * width)
                yield f"{at}.{name}.bias", (out * width,)
            for name in ("ln_1", "ln_2"):
                yield f"{at}.{name}.weight", (width,)
                yield f"{at}.{name}.bias", (width,)
        yield "transformer.ln_f.weight", (width,)
        yield "transformer.ln_f.bias", (width,)


def header(tensors: Sequence[tuple[str, tuple[int, ...]]]) -> bytes:
    """First bytes of a float32 safetensors file."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, shape in tensors:
        stop = start + 4 * product(shape)
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": (start, stop)}
        start = stop
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def product(shape: tuple[int, ...]) -> int:
    count = 1
    for axis in shape:
        count *= axis
    return count


def make_checkpoint(folder: Path, shape: Shape) -> None:
    """Random values, streamed; a last file named made.json says that all is there, and the sha256."""
    import numpy as np

    folder.mkdir(parents=True)
    generator, digest = np.random.default_rng(0), hashlib.sha256()
    tensors = list(shape.tensors())
    with open(folder / "model.safetensors", "wb") as file:
        for piece in _pieces(tensors, generator):
            digest.update(piece)
            file.write(piece)
    (folder / "config.json").write_text(json.dumps(shape.config()), "utf-8")
    made = {"shape": asdict(shape), "sha256": digest.hexdigest()}
    (folder.parent / f"{folder.name}.made.json").write_text(json.dumps(made), "utf-8")


def _pieces(tensors: Sequence[tuple[str, tuple[int, ...]]], generator: Any) -> Iterator[bytes]:
    yield header(tensors)
    for name, shape in tensors:
        centre = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0
        left = product(shape)
        while left:
            count = min(left, 1 << 22)
            values = generator.standard_normal(count, "float32") * (0.02 if len(shape) > 1 else 0.1) + centre
            yield values.astype("<f4").tobytes()
            left -= count


def make_shards(folder: Path, shape: Shape, count: int) -> None:
    """A checkpoint in `count` shards whose matrices are holes in sparse files."""
    import numpy as np

    folder.mkdir(parents=True)
    tensors, generator = list(shape.tensors()), np.random.default_rng(0)
    weight_map = {}
    for number in range(count):
        part = tensors[number::count]
        file = f"model-{number + 1:05}-of-{count:05}.safetensors"
        weight_map |= {name: file for name, _ in part}
        with open(folder / file, "wb") as shard:
            shard.write(header(part))
            for _, axes in part:
                if len(axes) == 1:
                    shard.write(generator.standard_normal(axes, "float32").tobytes())
                else:
                    shard.seek(4 * product(axes), os.SEEK_CUR)
            shard.truncate()
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    (folder / "config.json").write_text(json.dumps(shape.config()), "utf-8")


def make_hub_snapshot(cache: Path, source: Path, sha256: str) -> Path:
    """The checkpoint as the Hub's cache holds it: a link to a file named by its sha256. Shares the bytes."""
    repo = cache / "models--made-up--gpt2"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    os.link(source / "model.safetensors", repo / "blobs" / sha256)
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{sha256}")
    shutil.copyfile(source / "config.json", snapshot / "config.json")
    return snapshot
