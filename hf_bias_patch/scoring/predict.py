"""What a model answers, row by row; without metrics. Only the model's mode is changed meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hf_bias_patch.errors import TaskError
from hf_bias_patch.models.load import quiet
from hf_bias_patch.scoring.collate import IGNORED, KEPT_ASIDE
from hf_bias_patch.scoring.generation import ResolvedGeneration, generation_config
from hf_bias_patch.scoring.heads import readable, unwrapped
from hf_bias_patch.scoring.labels import head_names
from hf_bias_patch.scoring.tasks import Task

if TYPE_CHECKING:
    import torch

__all__ = ["Predictions", "evaluating", "gather", "likelihoods", "predict_classes", "predict_texts"]

Predictions = dict[int, Any]
"""Number of a row → its answer: a list of logits, or a pair (summed negative log-likelihood, tokens), or a text."""

Batch = Mapping[str, "torch.Tensor"]


def predict_classes(
    model: Any, batches: Iterable[Batch], task: Task, order: Sequence[int] | None = None
) -> Predictions:
    """The logits of every row.

    Args:
        model: gives out `logits` (B × outputs).
        batches: as the collators make them, with `row`; they are moved to the model's device.
        task: classification or regression.
        order: for each label of the task the output that stands for it; the same order if None.

    Returns:
        Row → list of float logits, as many as the task has outputs.

    Raises:
        TaskError: the head has more or fewer outputs than the task needs.
    """
    found: Predictions = {}
    with evaluating(model):
        for batch in batches:
            logits = model(**_inputs(model, batch)).logits.float().cpu()
            if logits.ndim != 2 or logits.shape[1] != task.outputs:
                raise _other_head(model, task, logits.shape[-1])
            if order is not None:
                logits = logits[:, list(order)]
            found.update(zip(batch["row"].tolist(), logits.tolist(), strict=True))
    return found


def _other_head(model: Any, task: Task, outputs: int) -> TaskError:
    names = ", ".join(head_names(unwrapped(model).config).values())
    return TaskError(
        f"The head has {outputs} outputs, and {task.name} needs {task.outputs}",
        why=f"Its outputs are {names or 'without names'}; the task asks for {', '.join(task.labels) or 'one number'}",
        remedy=f"Tune a head for it: `hf-bias-patch tune glue --task {task.name} --new-head`",
    )


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
            logits = model(**_inputs(model, batch)).logits
            labels = batch["labels"].to(logits.device)
            if shifted:
                logits, labels = logits[:, :-1], labels[:, 1:]
            for row, scores, wanted in zip(batch["row"].tolist(), logits, labels, strict=True):
                here = wanted != IGNORED
                # Row by row: the float32 copy of the logits of a whole batch could double the memory needed.
                losses = torch.nn.functional.cross_entropy(scores[here].float(), wanted[here], reduction="none")
                found[row] = (losses.double().sum().item(), int(here.sum()))
    return found


def predict_texts(
    model: Any, batches: Iterable[Batch], tokenizer: Any, decoding: ResolvedGeneration, pad: int, *, prompted: bool
) -> Predictions:
    """The text generated for every row.

    Args:
        model: an encoder-decoder, or a decoder-only model whose batches are padded on the left.
        batches: with `row`.
        tokenizer: of the model.
        decoding: beam search and length settings.
        pad: number of the padding token.
        prompted: whether the model's output begins with its input, as that of a decoder-only model does.

    Returns:
        Row → text, without special tokens and outer blanks.
    """
    found: Predictions = {}
    inner = unwrapped(model)
    settings = generation_config(inner, tokenizer, decoding, pad)
    # A text to stop at is looked for among the tokenizer's words.
    more = {"tokenizer": tokenizer} if settings.stop_strings else {}
    # transformers warns of each setting of the model's own that others take the place of.
    with quiet(), evaluating(model):
        for batch in batches:
            ids = inner.generate(**_inputs(model, batch), generation_config=settings, **more)
            if prompted:
                ids = ids[:, batch["input_ids"].shape[1] :]
            texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
            found.update(zip(batch["row"].tolist(), map(str.strip, texts), strict=True))
    return found


def gather(predictions: Predictions, accelerator: Any | None, rows: int) -> Predictions:
    """The predictions of all processes, on every process; each row once, although batches may repeat rows.

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
        # Not inference_mode: what a model caches in there (rotary tables) could not be trained with afterwards.
        with torch.no_grad():
            yield
    finally:
        for module, mode in before:
            module.training = mode


def _inputs(model: Any, batch: Batch) -> dict[str, torch.Tensor]:
    """What the model reads; without labels, from which it would compute a loss."""
    device = next(model.parameters()).device
    read = readable(model, batch)
    return {name: value.to(device) for name, value in read.items() if name not in (*KEPT_ASIDE, "labels")}
