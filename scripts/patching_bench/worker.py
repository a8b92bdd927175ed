"""What runs in a process of its own: `python -m patching_bench.worker TASK ARGUMENT…`."""

from __future__ import annotations

import hashlib
import json
import mmap
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from patching_bench.made_up import Shape, make_checkpoint, make_shards


def worker(task: str, *arguments: str) -> None:
    """Do one task and print what it measured of itself, as a line of JSON."""
    figures = WORKERS[task](*arguments)
    print(json.dumps({**(figures or {}), **_written()}))


def _written() -> dict[str, int]:
    """Bytes given to write calls, and bytes of pages made dirty, by this process so far."""
    lines = Path("/proc/self/io").read_text("ascii").splitlines()
    counts = {name: int(value) for name, _, value in (line.partition(":") for line in lines)}
    return {"written_bytes": counts["wchar"], "dirtied_bytes": counts["write_bytes"]}


def patch_copy(source: str, out: str, fold: str) -> dict[str, Any]:
    """Write a variant."""
    from hf_bias_patch import patch

    return _call(lambda: patch(source, out, fold=fold))


def patch_where_it_lies(source: str, out: str, fold: str) -> dict[str, Any]:
    """Patch in place."""
    from hf_bias_patch import patch_in_place

    return _call(lambda: patch_in_place(source, fold=fold))


def take_back(source: str, out: str) -> None:
    """Revert in place."""
    from hf_bias_patch import revert

    revert(source)


def _call(job: Callable[[], Any]) -> dict[str, Any]:
    start = time.perf_counter()
    plan = job().plan
    seconds = time.perf_counter() - start
    matrices = {edit.slot.weight for edit in plan.edits if edit.destination == "weight"}
    largest = max((plan.touched[name] for name in matrices), default=0)
    return {"call_seconds": seconds, "touched_bytes": sum(plan.touched.values()), "largest_matrix": largest}


def copy_and_hash(source: str, out: str) -> None:
    """The least that a copy with a recorded sha256 can cost: nothing else is done."""
    copying = subprocess.Popen(["cp", "-r", source, out])
    with open(Path(source, "model.safetensors"), "rb", buffering=0) as file:
        digest, buffer = hashlib.sha256(), bytearray(128 << 10)
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    if copying.wait():
        sys.exit("cp failed")


def naive(source: str, out: str) -> None:
    """Key and value biases folded the usual way: load, edit, save."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(source)
    with torch.no_grad():
        for block in model.transformer.h:
            fused, output, width = block.attn.c_attn, block.attn.c_proj, block.attn.embed_dim
            output.bias += fused.bias[2 * width :] @ output.weight
            fused.bias[width:] = 0
    model.save_pretrained(out)


def touch(nbytes: str) -> None:
    """Use memory once and free it: a virtual machine fetches it from its host now, not in the next arm."""
    with mmap.mmap(-1, int(nbytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for page in range(0, int(nbytes), mmap.PAGESIZE):
            memory[page] = 1


def make(folder: str, layers: str, width: str, heads: str, shards: str) -> None:
    """Make an input; apart, so that its memory does not count as a later child's."""
    shape = Shape(int(layers), int(width), int(heads))
    make_shards(Path(folder), shape, int(shards)) if int(shards) else make_checkpoint(Path(folder), shape)


WORKERS: dict[str, Callable[..., dict[str, Any] | None]] = {
    "patch": patch_copy,
    "in-place": patch_where_it_lies,
    "revert": take_back,
    "copy-and-hash": copy_and_hash,
    "naive": naive,
    "touch": touch,
    "make": make,
}


if __name__ == "__main__":
    worker(*sys.argv[1:])
