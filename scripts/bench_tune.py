"""Samples per second and peak memory while tuning: our loop against the usual one, and against peft's adapters.

    python scripts/bench_tune.py [--rounds 3] [--steps 8] [--bf16] [--compile] [--json FILE]

A random model of BERT-base's shape, batches of 32, on two length distributions: SST-2's (its quantiles, in tokens of
BERT's tokenizer) and pairs as long as MNLI's. The usual loop is that of Accelerate's nlp_example: random batches,
padded to the longest of each. Every measurement is of as many steps as an epoch has, so that every length counts in
every arm; arms take turns, because a machine's speed drifts. On a CPU each measurement is a process of its own, so that
its peak of memory is its own; a GPU's peak can be set back, and one process measures all.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_bias_patch.cli.console import nbytes, stdout, table
from hf_bias_patch.tuning.settings import AT_THE_END
from hf_bias_patch.tuning.watch import Watcher

BATCH = 32
WINDOW = 25
"""Steps measured at least where batches go by length: few of them would be too much alike to stand for an epoch."""
WARM_UP = 2
LENGTHS = {
    # Every 5 % of the tokens of 60,614 sentences.
    "sst2": [3, 4, 4, 5, 6, 6, 7, 8, 8, 9, 10, 11, 13, 14, 16, 18, 20, 23, 27, 33, 66],
    # Log-normal about MNLI's published mean of 39 tokens a pair, cut at 128.
    "pairs": np.quantile(
        np.random.default_rng(0).lognormal(np.log(36), 0.42, 100_000).clip(10, 128), np.linspace(0, 1, 21)
    ).tolist(),
}


@dataclass(frozen=True)
class Arm:
    """What trains, whether in `tune`'s loop or in the usual one, and whether batches go by length."""

    train: str
    own_loop: bool
    by_length: bool


ARMS = {
    "all, usual": Arm("all", own_loop=False, by_length=False),
    "lora, usual": Arm("lora", own_loop=False, by_length=False),
    "beft, usual": Arm("beft", own_loop=False, by_length=False),
    "value, usual": Arm("value", own_loop=False, by_length=False),
    "all, tune": Arm("all", own_loop=True, by_length=True),
    "lora, tune": Arm("lora", own_loop=True, by_length=True),
    "beft, tune": Arm("beft", own_loop=True, by_length=True),
    "value, tune": Arm("value", own_loop=True, by_length=True),
    "beft, usual by length": Arm("beft", own_loop=False, by_length=True),
    "value, tune at random": Arm("value", own_loop=True, by_length=False),
}
COMMON = list(ARMS)[:8]
"""Each thing that trains, in the usual loop and as `tune` does it."""


@dataclass(frozen=True)
class How:
    """What all measurements of a run share."""

    steps: int
    bf16: bool
    compiled: bool
    tiny: bool


@dataclass(frozen=True)
class Measured:
    """One measurement; the peak is of a GPU what torch allocated, else of the whole process."""

    lengths: str
    arm: str
    round: int
    samples_per_second: float
    peak_bytes: float


class Enough(Exception):  # noqa: N818 (no error)
    """All steps that are measured are done; what a loop does at its end is not."""


class Clock(Watcher):
    """Times the steps behind those that warm up, then ends the run."""

    def __init__(self, steps: int) -> None:
        self.steps, self.samples, self.start, self.seconds = steps, 0, 0.0, 0.0

    def step(self, step: int, loss: float, samples: int, tokens: int) -> None:
        """Count a step."""
        if step == WARM_UP:
            self.start = now()
        elif step > WARM_UP:
            self.samples += samples
        if step == WARM_UP + self.steps:
            self.seconds = now() - self.start
            raise Enough

    def speed(self) -> float:
        """Samples per second."""
        return self.samples / self.seconds


def on_gpu() -> bool:
    """Whether torch sees a GPU; then all runs on it."""
    import torch

    return torch.cuda.is_available()


def now() -> float:
    """The time when all that a GPU was asked for is done."""
    import torch

    if on_gpu():
        torch.cuda.synchronize()
    return time.perf_counter()


def lengths_of(name: str, samples: int, seed: int) -> list[int]:
    """Lengths drawn from a distribution's quantiles."""
    drawn = np.random.default_rng(seed).random(samples)
    return np.interp(drawn, np.linspace(0, 1, len(LENGTHS[name])), LENGTHS[name]).round().astype(int).tolist()


class RandomTexts:
    """A job on random tokens of given lengths, for our loop."""

    main, greater_is_better, validates = "accuracy", True, False

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = lengths

    def batch(self, rows: Sequence[int], seed: Sequence[int]) -> dict[str, Any]:
        """Padded random tokens."""
        import torch

        longest = max(self.lengths[row] for row in rows)
        if on_gpu():
            longest = -(-longest // 8) * 8  # as both loops pad for a GPU
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : self.lengths[row]] = torch.randint(1000, 30000, (self.lengths[row],))
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.randint(2, (len(rows),))}

    def count(self, batch: Mapping[str, Any]) -> int:
        """Samples."""
        return len(batch["labels"])

    def loss(self, model: Any, batch: Mapping[str, Any]) -> Any:
        """Cross-entropy, summed."""
        import torch

        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return torch.nn.functional.cross_entropy(logits.float(), batch["labels"], reduction="sum")

    def evaluate(self, model: Any) -> dict[str, float]:
        """Nothing: there is nothing to validate on."""
        return {}


def measure(arm: str, lengths: str, number: int, how: How) -> Measured:
    """Train a fresh model for the steps that are measured, behind two that warm up."""
    import torch

    from hf_bias_patch.tuning import adapters
    from hf_bias_patch.tuning.memory import peak_bytes
    from hf_bias_patch.tuning.select import ADAPTERS, select

    device = torch.device("cuda" if on_gpu() else "cpu")
    torch.manual_seed(0)
    torch.set_num_threads(multiprocessing.cpu_count())
    asked = ARMS[arm]
    model = fresh_model(device, how.tiny)
    if asked.train in ADAPTERS:
        model, selection = adapters.add(model, asked.train, head=True)
    else:
        selection = select(model, asked.train, head=True)
    steps = max(how.steps, WINDOW) if asked.by_length else how.steps
    job, clock = RandomTexts(lengths_of(lengths, steps * BATCH, number)), Clock(steps)
    with suppress(Enough):
        if asked.own_loop:
            ours(model, selection, job, clock, number, asked.by_length, how)
        else:
            usual(model, job, clock, number, asked.by_length, how)
    return Measured(lengths, arm, number, clock.speed(), float(peak_bytes(device) or 0))


def fresh_model(device: Any, tiny: bool) -> Any:
    """A random classifier of BERT-base's shape; or of two narrow layers, to try this script."""
    import torch
    import transformers

    small = {"num_hidden_layers": 2, "hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96}
    config = transformers.BertConfig(num_labels=2, **(small if tiny else {}))
    with torch.device(device):
        return transformers.BertForSequenceClassification(config)


def accelerator_for(how: How) -> Any:
    """As `tune` makes it."""
    from accelerate import Accelerator

    return Accelerator(
        mixed_precision="bf16" if how.bf16 else "no", dynamo_backend="inductor" if how.compiled else None
    )


def ours(model: Any, selection: Any, job: RandomTexts, clock: Clock, seed: int, by_length: bool, how: How) -> None:
    """Run `tuning.loop`, which `clock` ends."""
    from hf_bias_patch.tuning.folder import open_folder
    from hf_bias_patch.tuning.loop import Loop
    from hf_bias_patch.tuning.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            model_name_or_path="random",
            output_dir=Path(folder) / "run",
            max_train_steps=WARM_UP + clock.steps + 1,
            save_steps=AT_THE_END,
            eval_steps=AT_THE_END,
            seed=seed,
            group_by_length=by_length,
            per_device_train_batch_size=BATCH,
        )
        opened = open_folder(settings.output_dir, settings.plain(), resume=False, overwrite=False)
        Loop(model, job, selection, settings, accelerator_for(how), opened, clock).run()


def usual(model: Any, job: RandomTexts, clock: Clock, seed: int, by_length: bool, how: How) -> None:
    """Run the loop of Accelerate's nlp_example, which `clock` ends; on batches in our order, if by length."""
    import torch

    from hf_bias_patch.tuning.batches import Schedule

    accelerator = accelerator_for(how)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    schedule = Schedule(job.lengths, seed=seed, per_device=BATCH, by_length=by_length)
    batches = [[int(row) for row in batch] for epoch in range(3) for batch in schedule.epoch(epoch)]
    loader = torch.utils.data.DataLoader(
        range(len(job.lengths)), batch_sampler=batches, collate_fn=lambda rows: job.batch(rows, ())
    )
    model, optimiser, loader = accelerator.prepare(model, optimiser, loader)
    model.train()
    for step, batch in enumerate(loader, 1):
        loss = model(**batch).loss
        accelerator.backward(loss)
        optimiser.step()
        optimiser.zero_grad()
        clock.step(step, 0.0, len(batch["labels"]), 0)


def alone(arm: str, lengths: str, number: int, how: How) -> Measured:
    """A measurement whose peak of memory is its own."""
    import torch

    if on_gpu():
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return measure(arm, lengths, number, how)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, arm, lengths, number, how).result()


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
    found = {"machine": machine, "how": asdict(how), "batch": BATCH, "summary": summary(runs)}
    path.write_text(json.dumps(found | {"runs": [asdict(run) for run in runs]}, indent=2), "utf-8")


def main() -> None:
    """Measure and print; with --json also write every figure, after each measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--lengths", choices=list(LENGTHS), action="append")
    parser.add_argument("--arm", choices=list(ARMS), action="append", help="by default the first eight")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="a model of two narrow layers, to try this script")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    how, runs = How(asked.steps, asked.bf16, asked.compile, asked.tiny), list[Measured]()
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
