"""A job on random tokens, and what a run of the loop on it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from hf_bias_patch.tuning.folder import RunFolder, open_folder
from hf_bias_patch.tuning.job import Batch
from hf_bias_patch.tuning.loop import LoopOutcome, TrainingLoop
from hf_bias_patch.tuning.set_trainable import set_trainable
from hf_bias_patch.tuning.settings import TuneSettings
from hf_bias_patch.tuning.task_job import label_loss
from hf_bias_patch.tuning.trainable import Trainable
from hf_bias_patch.tuning.watcher import Watcher
from tests.models import VOCABULARY, config_of, randomise

SAMPLES = 21  # no multiple of any batch size used: the last step of an epoch is a small one


class RandomJob:
    """Says which of two halves of the vocabulary the first token of a random text is from."""

    main, greater_is_better, validates = "accuracy", True, True

    def __init__(self, samples: int = SAMPLES) -> None:
        random = torch.Generator().manual_seed(5)
        sizes = torch.randint(3, 12, (samples,), generator=random).tolist()
        self.texts = [torch.randint(3, VOCABULARY, (size,), generator=random) for size in sizes]
        self.lengths: Sequence[int] = sizes
        self.scores: list[float] = []

    def batch(self, rows: Sequence[int], seed: Sequence[int]) -> Batch:
        ids = torch.nn.utils.rnn.pad_sequence([self.texts[row] for row in rows], batch_first=True)
        labels = torch.tensor([int(self.texts[row][0] > VOCABULARY // 2) for row in rows])
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}

    def count(self, batch: Batch) -> int:
        return len(batch["labels"])

    def loss(self, model: Any, batch: Batch) -> torch.Tensor:
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return label_loss(model(**inputs).logits, batch["labels"])

    def evaluate(self, model: Any) -> Mapping[str, float]:
        batch = self.batch(range(len(self.texts)), ())
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        self.scores.append(float((logits.argmax(-1) == batch["labels"]).double().mean()))
        return {"accuracy": self.scores[-1]}


class Losses(Watcher):
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def step(self, step: int, loss: float, samples: int, tokens: int) -> None:
        self.losses.append(loss)


def classifier(name: str = "bert", dropout: float = 0.0) -> Any:
    """A tiny classifier with random non-zero biases, in float32."""
    head = {"bert": "BertForSequenceClassification", "gpt2": "GPT2ForSequenceClassification"}[name]
    kinds = {
        "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
        "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    }
    config = config_of(name, num_labels=2, **dict.fromkeys(kinds[name], dropout))
    return randomise(getattr(transformers, head)(config))


def settings_for(folder: Path, **fields: Any) -> TuneSettings:
    """Settings of a short run: 2 epochs of batches of 4."""
    given = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 0.01, "logging_steps": 1}
    return TuneSettings(**{"model_name_or_path": "tiny", "output_dir": folder, "train": "value", **given, **fields})


def alone() -> None:
    """Forget the Accelerator of the test before: it is one for all of a process."""
    for state in (PartialState, AcceleratorState, GradientState):
        state._reset_state()


def made_loop(
    model: Any,
    settings: TuneSettings,
    job: Any = None,
    watcher: Watcher | None = None,
    head: bool = True,
    compiler: str | None = None,
) -> TrainingLoop:
    """A loop over a tiny model, its dropout seeded; `compiler` is a backend of torch.compile."""
    alone()
    accelerator = Accelerator(
        cpu=True, gradient_accumulation_steps=settings.gradient_accumulation_steps, dynamo_backend=compiler
    )
    folder = RunFolder(settings.output_dir)
    if accelerator.is_main_process:
        open_folder(folder.path, settings.plain(), resume=settings.resume, overwrite=settings.overwrite)
    accelerator.wait_for_everyone()
    selection: Trainable = set_trainable(model, settings.train, head=head, freeze=settings.freeze)
    transformers.set_seed(settings.seed)
    return TrainingLoop(model, job or RandomJob(), selection, settings, accelerator, folder, watcher or Watcher())


def trained(model: Any, settings: TuneSettings, **more: Any) -> LoopOutcome:
    """How a run of the loop ended."""
    return made_loop(model, settings, **more).run()


def values(model: Any) -> dict[str, torch.Tensor]:
    """Copies of all parameters."""
    return {name: value.detach().clone() for name, value in model.named_parameters()}
