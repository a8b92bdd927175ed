"""Samples per second and peak memory while tuning: our loop against the usual one, and against peft's adapters.

    python scripts/bench_tune.py [--rounds 3] [--steps 8] [--batch 32] [--bf16] [--compile] [--json FILE]

A random model of BERT-base's shape on two length distributions: SST-2's (its quantiles, in tokens of
BERT's tokenizer) and pairs as long as MNLI's. The usual loop is that of Accelerate's nlp_example: random batches,
padded to the longest of each. Every measurement is of as many steps as an epoch has, so that every length counts in
every arm; arms take turns, because a machine's speed drifts. On a CPU each measurement is a process of its own, so that
its peak of memory is its own; a GPU's peak can be set back, and one process measures all.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tuning_bench.arms import ARMS, COMMON, LENGTHS, How, Measured, lengths_of
from tuning_bench.loops import alone, on_gpu

from hf_bias_patch.cli.console import nbytes, stdout, table


def summary(runs: Sequence[Measured]) -> dict[str, dict[str, dict[str, float]]]:
    """Of each distribution of lengths and arm: median, least and most samples per second, and the peak of memory."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for lengths, arm in dict.fromkeys((run.lengths, run.arm) for run in runs):
        these = [run for run in runs if (run.lengths, run.arm) == (lengths, arm)]
        speeds = [run.samples_per_second for run in these]
        found.setdefault(lengths, {})[arm] = {
            "median": statistics.median(speeds),
            "min": min(speeds),
            "max": max(speeds),
            "peak_bytes": statistics.median(run.peak_bytes for run in these),
            "runs": len(these),
        }
    return found


def report(lengths: str, arms: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table, with how each arm compares with the first."""
    columns = ("samples/s", "least", "most", "× first", "peak memory", "× first ")
    made = table("arm", *columns, numbers=columns)
    made.title = f"{lengths}: {np.mean(lengths_of(lengths, 10_000, 0)):.0f} tokens a sample"
    first = next(iter(arms.values()))
    for arm, figures in arms.items():
        speeds = [f"{figures[name]:.1f}" for name in ("median", "min", "max")]
        peak = figures["peak_bytes"]
        times = f"{figures['median'] / first['median']:.2f}", f"{peak / max(first['peak_bytes'], 1):.2f}"
        made.add_row(arm, *speeds, times[0], nbytes(int(peak)), times[1])
    stdout().print(made)


def write(path: Path, runs: Sequence[Measured], how: How) -> None:
    """Write every figure so far, and what they depend on."""
    import torch
    import transformers

    machine = {
        "gpu": torch.cuda.get_device_name() if on_gpu() else None,
        "cores": multiprocessing.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    found = {"machine": machine, "how": asdict(how), "summary": summary(runs)}
    path.write_text(json.dumps(found | {"runs": [asdict(run) for run in runs]}, indent=2), "utf-8")


def main() -> None:
    """Measure and print; with --json also write every figure, after each measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32, help="samples of a step; a GPU is busy from a few hundred on")
    parser.add_argument("--lengths", choices=list(LENGTHS), action="append")
    parser.add_argument("--arm", choices=list(ARMS), action="append", help="by default the first eight")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="a model of two narrow layers, to try this script")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    how, runs = How(asked.steps, asked.bf16, asked.compile, asked.tiny, asked.batch), list[Measured]()
    if on_gpu():  # the first pays for starting CUDA, and is not kept
        alone(COMMON[0], next(iter(LENGTHS)), 0, how)
    for number in range(asked.rounds):
        for lengths in asked.lengths or LENGTHS:
            for arm in asked.arm or COMMON:
                runs.append(alone(arm, lengths, number, how))
                stdout().print(f"[dim]{lengths}, round {number + 1}, {arm}: {runs[-1].samples_per_second:.1f}[/]")
                if asked.json:
                    write(asked.json, runs, how)
    for lengths, arms in summary(runs).items():
        report(lengths, arms)


if __name__ == "__main__":
    main()
