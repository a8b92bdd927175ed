"""Samples per second and peak memory while tuning: our loop against the usual one, and against peft's adapters.

    python scripts/bench_tune.py [--rounds 3] [--steps 8] [--bf16] [--compile]

A random model of BERT-base's shape, batches of 32, on two length distributions: SST-2's (its quantiles, in tokens of
BERT's tokenizer) and pairs as long as MNLI's. The usual loop is that of Accelerate's nlp_example: random batches,
padded to the longest of each. Every measurement is of as many steps as an epoch has, so that every length counts in
every arm, and is a process of its own, so that its peak of memory is its own; arms take turns, because a machine's
speed drifts.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from hf_bias_patch.cli.console import nbytes, stdout, table
from hf_bias_patch.tuning.watch import Watcher

BATCH = 32
WINDOW = 25
"""Steps measured where batches go by length: few of them would be too much alike to stand for an epoch."""
WARM_UP = 2
LENGTHS = {
    # Every 5 % of the tokens of 60,614 sentences.
    "sst2": [3, 4, 4, 5, 6, 6, 7, 8, 8, 9, 10, 11, 13, 14, 16, 18, 20, 23, 27, 33, 66],
    # Log-normal about MNLI's published mean of 39 tokens a pair, cut at 128.
    "pairs": np.quantile(
        np.random.default_rng(0).lognormal(np.log(36), 0.42, 100_000).clip(10, 128), np.linspace(0, 1, 21)
    ).tolist(),
}
ARMS = {
    "all, usual": ("all", False),
    "lora, usual": ("lora", False),
    "beft, usual": ("beft", False),
    "value, usual": ("value", False),
    "beft, by length": ("beft", True),
    "value, by length": ("value", True),
}


class Clock(Watcher):
    """Times the steps behind those that warm up."""

    def __init__(self, warm_up: int) -> None:
        self.warm_up, self.samples, self.start, self.last = warm_up, 0, 0.0, 0.0

    def step(self, step: int, loss: float, samples: int, tokens: int) -> None:
        """Count a step."""
        self.last = time.perf_counter()
        if step <= self.warm_up:
            self.start = self.last
        else:
            self.samples += samples

    def speed(self) -> float:
        """Samples per second."""
        return self.samples / (self.last - self.start)


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

        ids = torch.zeros(len(rows), max(self.lengths[row] for row in rows), dtype=torch.long)
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


def measure(arm: str, lengths: str, steps: int, seed: int, bf16: bool, compiled: bool) -> dict[str, float]:
    """Samples per second over `steps` steps behind two that warm up, and the peak of memory, of one process."""
    import torch
    import transformers

    from hf_bias_patch.tuning import adapters
    from hf_bias_patch.tuning.memory import peak_bytes
    from hf_bias_patch.tuning.select import ADAPTERS, select

    torch.manual_seed(0)
    torch.set_num_threads(multiprocessing.cpu_count())
    train, by_length = ARMS[arm]
    model = transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=2))
    if train in ADAPTERS:
        model, selection = adapters.add(model, train, head=True)
    else:
        selection = select(model, train, head=True)
    steps = WINDOW if by_length else steps
    job = RandomTexts(lengths_of(lengths, steps * BATCH, seed))
    if train == "value":
        speed = ours(model, selection, job, steps, seed, by_length, bf16, compiled)
    else:
        speed = usual(model, job, steps, seed, by_length, bf16, compiled)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {"samples_per_second": speed, "peak_bytes": float(peak_bytes(device) or 0)}


def ours(
    model: Any, selection: Any, job: RandomTexts, steps: int, seed: int, by_length: bool, bf16: bool, compiled: bool
) -> float:
    """Samples per second of `tuning.loop`."""
    from accelerate import Accelerator

    from hf_bias_patch.tuning.folder import open_folder
    from hf_bias_patch.tuning.loop import Loop
    from hf_bias_patch.tuning.settings import Settings

    clock = Clock(WARM_UP)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            model_name_or_path="random",
            output_dir=Path(folder) / "run",
            max_train_steps=WARM_UP + steps,
            seed=seed,
            group_by_length=by_length,
            per_device_train_batch_size=BATCH,
        )
        accelerator = Accelerator(
            mixed_precision="bf16" if bf16 else "no", dynamo_backend="inductor" if compiled else None
        )
        opened = open_folder(settings.output_dir, settings.plain(), resume=False, overwrite=False)
        Loop(model, job, selection, settings, accelerator, opened, clock).run()
    return clock.speed()


def usual(model: Any, job: RandomTexts, steps: int, seed: int, by_length: bool, bf16: bool, compiled: bool) -> float:
    """Samples per second of the loop of Accelerate's nlp_example; of its batches in our order, if by length."""
    import torch
    from accelerate import Accelerator

    from hf_bias_patch.tuning.batches import Schedule

    accelerator = Accelerator(mixed_precision="bf16" if bf16 else "no", dynamo_backend="inductor" if compiled else None)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    schedule = Schedule(job.lengths, seed=seed, per_device=BATCH, by_length=by_length)
    batches = [[int(row) for row in batch] for epoch in range(2) for batch in schedule.epoch(epoch)]
    loader = torch.utils.data.DataLoader(
        range(len(job.lengths)), batch_sampler=batches, collate_fn=lambda rows: job.batch(rows, ())
    )
    model, optimiser, loader = accelerator.prepare(model, optimiser, loader)
    clock = Clock(WARM_UP)
    model.train()
    for step, batch in enumerate(loader, 1):
        loss = model(**batch).loss
        accelerator.backward(loss)
        optimiser.step()
        optimiser.zero_grad()
        clock.step(step, loss.item(), len(batch["labels"]), 0)
        if step == WARM_UP + steps:
            break
    return clock.speed()


def interleaved(lengths: str, rounds: int, steps: int, bf16: bool, compiled: bool) -> dict[str, list[dict[str, float]]]:
    """All arms in turn, `rounds` times, each time in a process of its own and on texts of its own."""
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    context = multiprocessing.get_context("spawn")
    for number in range(rounds):
        for arm in ARMS:
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                found[arm].append(pool.submit(measure, arm, lengths, steps, number, bf16, compiled).result())
            stdout().print(f"[dim]{lengths}, round {number + 1}, {arm}: {found[arm][-1]['samples_per_second']:.1f}[/]")
    return found


def report(lengths: str, found: dict[str, list[dict[str, float]]]) -> None:
    """Medians over the rounds, and how they compare with full fine-tuning."""
    made = table("arm", "samples/s", "× all", "peak memory", "× all ", numbers=("samples/s", "× all", "peak memory"))
    made.title = f"{lengths}: {np.mean(lengths_of(lengths, 10_000, 0)):.0f} tokens a sample"
    speeds = {arm: statistics.median(run["samples_per_second"] for run in runs) for arm, runs in found.items()}
    peaks = {arm: statistics.median(run["peak_bytes"] for run in runs) for arm, runs in found.items()}
    first = next(iter(ARMS))
    for arm in ARMS:
        speed, peak = speeds[arm], peaks[arm]
        made.add_row(
            arm, f"{speed:.1f}", f"{speed / speeds[first]:.2f}", nbytes(int(peak)), f"{peak / peaks[first]:.2f}"
        )
    stdout().print(made)


def main() -> None:
    """Measure and print; with --json also write every single figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--lengths", choices=list(LENGTHS), action="append")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    every = {}
    for lengths in asked.lengths or LENGTHS:
        every[lengths] = interleaved(lengths, asked.rounds, asked.steps, asked.bf16, asked.compile)
        report(lengths, every[lengths])
    if asked.json:
        asked.json.write_text(json.dumps(every, indent=2))


if __name__ == "__main__":
    main()
