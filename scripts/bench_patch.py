"""Time, memory and bytes written of patching, beside `cp` and beside loading, editing and saving.

    python scripts/bench_patch.py --workdir /big/disk/bench --json figures.json

Makes a checkpoint of gpt2-large's shape with random values (3.1 GB, once), copies it for the edits in place,
and runs every arm in a process of its own, `--repeats` times in shuffled order. Before each run the files it
reads are brought into the page cache and what was written before is flushed, so that no arm pays for another.
It takes four times the checkpoint in disk space. What is measured, and what came out: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from patching_bench.arms import Inputs, own
from patching_bench.bars import Results, bars
from patching_bench.made_up import Shape, make_hub_snapshot
from patching_bench.report import report
from patching_bench.runs import environment, measure


def machine(folder: Path) -> dict[str, Any]:
    """What the figures depend on."""
    memory = next(line for line in Path("/proc/meminfo").read_text("ascii").splitlines() if "MemTotal" in line)
    models = [line for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines() if line.startswith("model name")]
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=False)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": models[0].partition(":")[2].strip() if models else platform.machine(),
        "memory_gb": round(int(memory.split()[1]) * 1024 / 1e9, 1),
        "kernel": platform.release(),
        "filesystem": kind.stdout.strip(),
        "python": platform.python_version(),
        "load_at_start": os.getloadavg()[0],
    }


def prepare(workdir: Path, shape: Shape, shards: int) -> Inputs:
    """Make the inputs, unless an earlier run did."""
    name = f"gpt2-{shape.layers}x{shape.width}"
    source, editable, cache, sharded = (
        workdir / part for part in (name, f"{name}-editable", f"{name}-hub", f"shards-{shards}")
    )
    record = workdir / f"{name}.made.json"
    if not record.exists():
        shutil.rmtree(source, ignore_errors=True)
        _make(source, shape, 0)
    sha256 = json.loads(record.read_text("utf-8"))["sha256"]
    for folder in (editable, cache):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, editable)
    if not (sharded / "config.json").exists():
        shutil.rmtree(sharded, ignore_errors=True)
        layers = max(1, (3 * shards - 4) // 12)
        _make(sharded, Shape(layers, 256, 4, vocab=50257), shards)
    return Inputs(source, editable, make_hub_snapshot(cache, source, sha256), sharded, shards)


def _make(folder: Path, shape: Shape, shards: int) -> None:
    sizes = map(str, (shape.layers, shape.width, shape.heads, shards))
    subprocess.run(own("make", str(folder), *sizes), check=True, stdout=subprocess.DEVNULL, env=environment())


def unharmed(inputs: Inputs) -> bool:
    """Whether the checkpoint edited in place and taken back is the source again."""
    names = sorted(path.name for path in inputs.source.iterdir())
    if names != sorted(path.name for path in inputs.editable.iterdir()):
        return False
    compare = ["cmp", "-s"]
    return not any(subprocess.call([*compare, inputs.source / name, inputs.editable / name]) for name in names)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, default=Path("bench"), help="where the checkpoints are made")
    parser.add_argument("--layers", type=int, default=36, help="layers of the made-up checkpoint (36: 3.1 GB)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--wait", type=float, default=0, help="seconds to wait for an idle machine, each run")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--quick", action="store_true", help="2 layers, 50 shards, once: whether it runs at all")
    options = parser.parse_args()
    layers, repeats, shards = (2, 1, 50) if options.quick else (options.layers, options.repeats, 1000)
    workdir = options.workdir.resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    about = machine(workdir)
    inputs = prepare(workdir, Shape(layers, 1280, 20), shards)
    samples, failures = measure(inputs, workdir, repeats, options.wait)
    results = Results(samples)
    judged = bars(results, shards)
    report(results, failures, judged)
    restored = unharmed(inputs)
    print("edits in place were taken back bit for bit" if restored else "EDITS IN PLACE WERE NOT TAKEN BACK")
    if options.json:
        content = {
            "machine": about,
            "layers": layers,
            "repeats": repeats,
            "samples": {name: [asdict(sample) for sample in found] for name, found in results.samples.items()},
            "failures": [asdict(failure) for failure in failures],
            "bars": [{**asdict(bar), "met": bar.met} for bar in judged],
            "restored": restored,
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
