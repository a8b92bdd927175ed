"""Time and bytes of looking at a checkpoint on the Hub, against a server on this machine.

    python scripts/bench_hub.py [--repeats 3] [--json FILE]

The checkpoint is made up: 80 layers, 8192 wide, 30 shards, BF16, over 100 GB nominal. Its weights are holes of sparse
files; the biases hold numbers. Each measurement is a process of its own, its start included.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from hf_bias_patch.checkpoint.header import TensorInfo, build_header
from hf_bias_patch.cli.console import nbytes, stdout, table
from tests.hub.server import Hub

LAYERS, WIDTH, KV, INNER, VOCABULARY, SHARDS = 80, 8192, 1024, 29_568, 152_064, 30
NAME = "owner/large"
BARS = {"bytes": 8_000_000, "seconds": 2.0}
COMMANDS = {"inspect": ("inspect", NAME), "patch --dry-run": ("patch", NAME, "--drop", "query", "--dry-run")}
CONFIG = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": VOCABULARY,
}


def shapes() -> dict[str, tuple[int, ...]]:
    """Tensors of a model of Qwen2-72B's shape."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        for name, rows in (("q_proj", WIDTH), ("k_proj", KV), ("v_proj", KV)):
            found[f"{at}.self_attn.{name}.weight"] = (rows, WIDTH)
            found[f"{at}.self_attn.{name}.bias"] = (rows,)
        found[f"{at}.self_attn.o_proj.weight"] = (WIDTH, WIDTH)
        found |= {f"{at}.mlp.{name}.weight": (INNER, WIDTH) for name in ("gate_proj", "up_proj")}
        found[f"{at}.mlp.down_proj.weight"] = (WIDTH, INNER)
        found |= {f"{at}.{name}.weight": (WIDTH,) for name in ("input_layernorm", "post_attention_layernorm")}
    return found | {"model.norm.weight": (WIDTH,), "lm_head.weight": (VOCABULARY, WIDTH)}


def make(folder: Path) -> int:
    """Write the checkpoint; returns its nominal bytes."""
    infos = [TensorInfo(name, "BF16", shape, 0, 2 * int(np.prod(shape))) for name, shape in shapes().items()]
    total = sum(info.nbytes for info in infos)
    weight_map, shard, filled = {}, [[]], 0
    for info in infos:
        if filled > total / SHARDS and len(shard) < SHARDS:
            shard.append([])
            filled = 0
        shard[-1].append(info)
        filled += info.nbytes
    random = np.random.default_rng(0)
    for number, tensors in enumerate(shard, 1):
        name = f"model-{number:05}-of-{len(shard):05}.safetensors"
        with open(folder / name, "wb") as file:
            file.write(build_header(tensors, {"format": "pt"}))
            for info in tensors:
                weight_map[info.name] = name
                if info.name.endswith(".bias"):
                    file.write((random.standard_normal(info.nbytes // 2) * 256).astype(np.int16).tobytes())
                else:
                    file.seek(info.nbytes, os.SEEK_CUR)
            file.truncate(file.tell())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return total


def run(hub: Hub, home: Path, *arguments: str) -> dict[str, float]:
    """Seconds of a process, and bytes that the server sent it."""
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    before, start = hub.sent, time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "hf_bias_patch", *arguments], env=environment, check=True, capture_output=True
    )
    return {"seconds": time.perf_counter() - start, "bytes": float(hub.sent - before)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, home = Path(place, "large"), Path(place, "home")
        folder.mkdir()
        total = make(folder)
        hub = Hub()
        hub.add(NAME, folder, known_sha256={path.name: "0" * 64 for path in folder.glob("*.safetensors")})
        found: dict[str, list[dict[str, float]]] = {name: [] for name in COMMANDS}
        for _ in range(asked.repeats):
            for name, arguments in COMMANDS.items():
                found[name].append(run(hub, home, *arguments))
        hub.stop()
    report(found, total)
    if asked.json:
        asked.json.write_text(json.dumps({"nominal_bytes": total, "runs": found}, indent=2))


def report(found: dict[str, list[dict[str, float]]], total: int) -> None:
    """Medians, and whether the bars are met."""
    made: Any = table("command", "seconds", "bytes", "bar", numbers=("seconds", "bytes"))
    made.title = f"A checkpoint of {nbytes(total)} in {SHARDS} shards"
    for name, runs in found.items():
        seconds, sent = (statistics.median(run[key] for run in runs) for key in ("seconds", "bytes"))
        met = seconds < BARS["seconds"] and sent < BARS["bytes"]
        made.add_row(name, f"{seconds:.2f}", f"{sent:,.0f}", "met" if met else "missed")
    stdout().print(made)


if __name__ == "__main__":
    main()
