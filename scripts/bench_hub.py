"""Time and bytes of looking at a checkpoint on the Hub, and of publishing a patch alone, against a local server.

    python scripts/bench_hub.py [--repeats 3] [--json FILE]

The large checkpoint is made up: 80 layers, 8192 wide, 30 shards, BF16, over 100 GB nominal. Its weights are holes of
sparse files; the biases hold numbers. What is published are variants of a BERT-base of random weights, measured before.
Each measurement is a process of its own, its start included. Measuring the variants takes minutes.
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
BASE = "owner/base"
BARS = {"bytes": 8_000_000, "seconds": 2.0}
PUSHED_BAR = 200_000
COMMANDS = {"inspect": ("inspect", NAME), "patch --dry-run": ("patch", NAME, "--drop", "query", "--dry-run")}
FOLDS = ("key", "key,value", "key,value,query")
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
    """Seconds of a process, and bytes of bodies that the server sent it and received."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "hf_right",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    sent, received, start = hub.sent, hub.received, time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "hf_bias_patch", *arguments], env=environment, check=True, capture_output=True
    )
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "bytes": float(hub.sent - sent), "received": float(hub.received - received)}


def publish(hub: Hub, place: Path) -> dict[str, dict[str, float]]:
    """Patch, push the patch alone, pull; one measurement a fold."""
    from torch.nn.init import normal_
    from transformers import BertConfig, BertModel

    base = BertModel(BertConfig())
    for name, parameter in base.named_parameters():
        if name.endswith("bias"):
            normal_(parameter, std=0.1)
    base.save_pretrained(place / "base")
    hub.add(BASE, place / "base")
    found = {}
    for fold in FOLDS:
        name = f"owner/{fold.replace(',', '-')}"
        run(hub, place / "home", "patch", BASE, str(place / name), "--fold", fold)
        pushed = run(hub, place / "home", "push", str(place / name), name, "--patch-only")
        pulled = run(hub, place / "home", "pull", name, str(place / "pulled"), "--overwrite")
        found[fold] = {
            "received": pushed["received"],
            "files": float(sum(map(len, hub.files(name).values()))),
            "push": pushed["seconds"],
            "pull": pulled["seconds"],
        }
    return found


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
        published = publish(hub, Path(place))
        hub.stop()
    report(found, total)
    report_published(published)
    if asked.json:
        asked.json.write_text(json.dumps({"nominal_bytes": total, "runs": found, "published": published}, indent=2))


def report(found: dict[str, list[dict[str, float]]], total: int) -> None:
    """Medians, and whether the bars are met."""
    made: Any = table("command", "seconds", "bytes", "bar", numbers=("seconds", "bytes"))
    made.title = f"A checkpoint of {nbytes(total)} in {SHARDS} shards"
    for name, runs in found.items():
        seconds, sent = (statistics.median(run[key] for run in runs) for key in ("seconds", "bytes"))
        met = seconds < BARS["seconds"] and sent < BARS["bytes"]
        made.add_row(name, f"{seconds:.2f}", f"{sent:,.0f}", "met" if met else "missed")
    stdout().print(made)


def report_published(found: dict[str, dict[str, float]]) -> None:
    """What each fold takes as a patch alone."""
    columns = ("fold", "bytes of files", "bytes sent", "bar", "push, seconds", "pull, seconds")
    made: Any = table(*columns, numbers=(*columns[1:3], *columns[4:]))
    made.title = "A BERT-base variant without its weights"
    for fold, one in found.items():
        met = "met" if max(one["received"], one["files"]) < PUSHED_BAR else "missed"
        made.add_row(
            fold, f"{one['files']:,.0f}", f"{one['received']:,.0f}", met, f"{one['push']:.1f}", f"{one['pull']:.1f}"
        )
    stdout().print(made)


if __name__ == "__main__":
    main()
