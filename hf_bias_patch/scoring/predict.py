"""What a model answers, row by row. Pure: no metrics, no printing, nothing changed but the model's mode meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.collate import KEPT_ASIDE
from hf_bias_patch.scoring.tasks import Task

if TYPE_CHECKING:
    import torch

__all__ = ["Predictions", "evaluating", "gather", "likelihoods", "predict_classes"]

Predictions = dict[int, Any]
"""Number of a row → its answer: a list of logits, or a pair (summed negative log-likelihood, tokens), or a text."""

Batch = Mapping[str, "torch.Tensor"]


def predict_classes(model: Any, batches: Iterable[Batch], task: Task) -> Predictions:
    """The logits of every row.

    Args:
        model: gives out `logits` (B × outputs).
        batches: as the collators make them, with `row`; they are moved to the model's device.
        task: classification or regression.

    Returns:
        Row → list of float logits, as many as the task has outputs.

    Raises:
        TaskError: the head has another number of outputs.
    """
    found: Predictions = {}
    with evaluating(model):
        for batch in batches:
            logits = model(**_inputs(model, batch, labels=False)).logits.float().cpu()
            if logits.ndim != 2 or logits.shape[1] != task.outputs:
                raise TaskError(
                    f"The head gives {logits.shape[-1]} numbers, and {task.name} needs {task.outputs}",
                    remedy=f"Tune a head for it: `hf-bias-patch tune glue --task_name {task.name}`",
                )
            found.update(zip(batch["row"].tolist(), logits.tolist(), strict=True))
    return found


def likelihoods(model: Any, batches: Iterable[Batch], shifted: bool) -> Predictions:
    """The negative log-likelihood of the labels of every row.

    Args:
        model: gives out `logits` (B × T × vocabulary).
        batches: with `row` and `labels`, which are -100 where nothing is scored.
        shifted: whether the logits at a position are for the next one, as in a causal model.

    Returns:
        Row → (sum in nats, number of labels).
    """
    import torch

    found: Predictions = {}
    with evaluating(model):
        for batch in batches:
            inputs = _inputs(model, batch, labels=False)
            logits, labels = model(**inputs).logits, batch["labels"].to(model.device)
            if shifted:
                logits, labels = logits[:, :-1], labels[:, 1:]
            for row, scores, wanted in zip(batch["row"].tolist(), logits, labels, strict=True):
                here = wanted != -100
                # Row by row: the float32 copy of the logits of a whole batch could double the memory needed.
                losses = torch.nn.functional.cross_entropy(scores[here].float(), wanted[here], reduction="none")
                found[row] = (losses.double().sum().item(), int(here.sum()))
    return found


def gather(predictions: Predictions, accelerator: Any | None, rows: int) -> Predictions:
    """Everybody's predictions, on every process, each row once.

    Samplers repeat rows to fill the last round; a row's number tells the repetitions, so nothing is counted twice.

    Args:
        predictions: of this process.
        accelerator: of Accelerate; None for a single process.
        rows: numbers 0 to `rows` - 1 must all be there.

    Raises:
        TaskError: rows are missing.
    """
    if accelerator is not None and accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        predictions = dict(gather_object(list(predictions.items())))
    if missing := rows - len(predictions.keys() & set(range(rows))):
        raise TaskError(f"{missing} of {rows} rows were not predicted", why="The batches did not cover the data set")
    return {row: predictions[row] for row in range(rows)}


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """No dropout and no gradients; the mode of every module is restored."""
    import torch

    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in before:
            module.training = mode


def _inputs(model: Any, batch: Batch, labels: bool) -> dict[str, torch.Tensor]:
    aside = KEPT_ASIDE if labels else (*KEPT_ASIDE, "labels")
    return {name: value.to(model.device) for name, value in batch.items() if name not in aside}
