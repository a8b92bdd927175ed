"""One measurement: a fresh model on random tokens, in `tune`'s loop or in the usual one."""

from __future__ import annotations

import gc
import multiprocessing
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from hf_bias_patch.tuning.settings import AT_THE_END
from hf_bias_patch.tuning.watcher import Watcher
from tuning_bench.arms import ARMS, WARM_UP, WINDOW, How, Measured, lengths_of


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
    from hf_bias_patch.tuning.run import peak_bytes
    from hf_bias_patch.tuning.set_trainable import ADAPTERS, set_trainable

    device = torch.device("cuda" if on_gpu() else "cpu")
    torch.manual_seed(0)
    torch.set_num_threads(multiprocessing.cpu_count())
    asked = ARMS[arm]
    model = fresh_model(device, how.tiny)
    if asked.train in ADAPTERS:
        model, selection = adapters.add(model, asked.train, head=True)
    else:
        selection = set_trainable(model, asked.train, head=True)
    steps = max(how.steps, WINDOW) if asked.by_length else how.steps
    job, clock = RandomTexts(lengths_of(lengths, steps * how.batch, number)), Clock(steps)
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
    from hf_bias_patch.tuning.loop import TrainingLoop
    from hf_bias_patch.tuning.settings import TuneSettings

    with tempfile.TemporaryDirectory() as folder:
        settings = TuneSettings(
            model_name_or_path="random",
            output_dir=Path(folder) / "run",
            max_train_steps=WARM_UP + clock.steps + 1,
            save_steps=AT_THE_END,
            eval_steps=AT_THE_END,
            seed=seed,
            group_by_length=by_length,
            per_device_train_batch_size=how.batch,
        )
        opened = open_folder(settings.output_dir, settings.plain(), resume=False, overwrite=False)
        TrainingLoop(model, job, selection, settings, accelerator_for(how), opened, clock).run()


def usual(model: Any, job: RandomTexts, clock: Clock, seed: int, by_length: bool, how: How) -> None:
    """Run the loop of Accelerate's nlp_example, which `clock` ends; on batches in our order, if by length."""
    import torch

    from hf_bias_patch.tuning.batches import Schedule

    accelerator = accelerator_for(how)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    schedule = Schedule(job.lengths, seed=seed, per_device=how.batch, by_length=by_length)
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
