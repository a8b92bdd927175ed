"""Asks a language modelling head only where a token is asked for.

A masked model is asked for one token in seven. Its head, of a width times a vocabulary, is a fifth of BERT's
arithmetic, and a third where the layers before a change are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hf_bias_patch.studies.measuring.effects import run
from hf_bias_patch.studies.measuring.inputs import TextBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Head"]


class Head:
    """A masked language model's map to the vocabulary."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._map = model.get_output_embeddings()

    @contextmanager
    def narrowed(self, batch: TextBatch) -> Iterator[None]:
        """Inside the block the model's logits are those of the places that are asked for, shape (asked, vocabulary)."""

        def hook(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return (inputs[0][batch.asked], *inputs[1:])

        handle = self._map.register_forward_pre_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def narrows(self, batch: TextBatch) -> bool:
        """Whether that gives the same as all logits do, to rounding: tried on a batch."""
        import torch

        if self._map is None:
            return False
        whole = run(self._model, batch).log_probs
        try:
            with self.narrowed(batch):
                found = run(self._model, batch).log_probs
        except Exception:  # a model of its own ways, such as one that puts logits into another shape
            return False
        assert whole is not None and found is not None
        return found.shape == whole.shape and torch.allclose(found, whole, rtol=1e-3, atol=1e-3)
