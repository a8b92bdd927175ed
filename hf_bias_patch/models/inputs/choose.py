"""What to run two models on: token ids where a model reads text alone, else whatever its type wants."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.errors import VerifyError
from hf_bias_patch.models.inputs.multimodal import MultimodalBatch, multimodal_batches
from hf_bias_patch.models.inputs.text import TextFormat, TokenBatch, prompt_batches, read_texts, text_batches
from hf_bias_patch.models.inputs.token_ids import unknown_ids
from hf_bias_patch.models.source_files import folder_of

if TYPE_CHECKING:
    import torch

__all__ = ["ChosenInputs", "multimodal_inputs", "text_inputs"]

_MEDIA = frozenset({"pixel_values", "pixel_values_videos", "input_features", "input_values", "flattened_patches"})
"""Arguments of models that read more than text: token ids alone would leave their other towers unseen."""


@dataclass(frozen=True)
class ChosenInputs:
    """Inputs for source and variant.

    Attributes:
        batches: for their forward.
        prompts: for greedy decoding; may be empty.
        form: of a model that reads text alone; None for others.
        notes: for the certificate.
    """

    batches: Sequence[TokenBatch | MultimodalBatch]
    prompts: Sequence[TokenBatch] = ()
    form: TextFormat | None = None
    notes: Sequence[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The inputs in words."""
        return [
            *(batch.name for batch in self.batches),
            *(f"greedy decoding: {prompt.name}" for prompt in self.prompts),
        ]


def text_inputs(model: Any, source: Source, texts: Sequence[str] | None, seed: int) -> ChosenInputs | None:
    """Token ids; None for a model that reads something else, or whose config does not say what ids it reads.

    Args:
        model: a transformers model.
        source: the checkpoint it was loaded from.
        texts: the user's.
        seed: of random ids.

    Raises:
        VerifyError: a text has no tokens.
    """
    takes = inspect.signature(model.forward).parameters
    if "input_ids" not in takes or _MEDIA & takes.keys():
        return None
    try:
        limit = TextFormat.of(model).limit
    except (AttributeError, TypeError, ValueError):  # a field that the config has under another name, or not at all
        return None
    rows, special, note = read_texts(source, texts, limit)
    form = TextFormat.of(model, special)
    known = [row for row in rows if max(row) < form.size]
    notes = [note, unknown_ids(folder_of(source), form.size)]
    if len(known) < len(rows):
        what = "The tokenizer gives them token ids that the model does not have"
        notes.append(f"{len(rows) - len(known)} of {len(rows)} texts were left out. {what}, {form.size:,} or more.")
    batches, prompts = text_batches(form, known, seed), prompt_batches(form, known, seed)
    batches += _with_options(model, batches, seed)
    return ChosenInputs(batches, prompts, form, list(filter(None, notes)))


def _with_options(model: Any, batches: Sequence[TokenBatch], seed: int) -> Iterator[TokenBatch]:
    """The short batches once more, with what the model takes beside token ids and what makes more of its attention run.

    Such as LUKE's entities: query maps that plain text never reaches meet the keys there.
    """
    from hf_bias_patch.models.inputs.optional import reach_more
    from hf_bias_patch.models.inputs.random_inputs import more_for

    for batch in batches:
        more = more_for(model, batch.inputs, seed) if batch.inner else {}
        if reach_more(more):
            given = {name: value.float() if value.is_floating_point() else value for name, value in more.items()}
            yield replace(batch, name=f"{batch.name}, with {', '.join(more)}", inputs={**batch.inputs, **given})


def multimodal_inputs(model: Any, texts: Sequence[str] | None, seed: int, storage: torch.dtype) -> ChosenInputs:
    """What the model's type wants.

    Args:
        model: in float64.
        texts: the user's; they are left out.
        seed: of the values.
        storage: dtype of the checkpoint.

    Raises:
        VerifyError: no inputs are known that the model runs on.
    """
    try:
        batches = multimodal_batches(model, seed, storage)
    except VerifyError as error:
        raise VerifyError(
            error.what,
            why=error.why,
            remedy="Check each attention site by itself, with --layerwise (layerwise=True)",
        ) from error
    notes = ["Greedy decoding was not compared: the model reads more than text, or something else."]
    if texts:
        notes.append(f"The {len(texts)} texts were left out: they alone are no input of {type(model).__name__}.")
    return ChosenInputs(batches, notes=notes)
