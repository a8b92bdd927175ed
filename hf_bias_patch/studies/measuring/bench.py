"""Measures arms on one model, loaded once; layers before a change run once for each batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from hf_bias_patch.studies.biases.arms import Arm
from hf_bias_patch.studies.biases.swap import Biases
from hf_bias_patch.studies.measuring.effects import Effect, ModelOutputs, run
from hf_bias_patch.studies.measuring.inputs import TextBatch, TokenisedTexts
from hf_bias_patch.studies.measuring.shortcuts import Head, Layers, Recorded
from hf_bias_patch.studies.runner import PartDone

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Bench"]


class _Known(NamedTuple):
    """A batch, with the outputs of the unchanged model and of its layers."""

    batch: TextBatch
    base: ModelOutputs
    recorded: Recorded


def _nbytes(value: Any) -> int:
    """Memory of all tensors in lists, tuples, mappings and outputs."""
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    if isinstance(value, Mapping):
        return sum(map(_nbytes, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(_nbytes, value))
    return _nbytes(vars(value)) if hasattr(value, "__dict__") else 0


@dataclass
class Bench:
    """A model on which arms are measured.

    Attributes:
        model: in evaluation mode; it is as it was after each call.
        inputs: what it reads.
        seed: of random values.
        batch_tokens: halved where memory does not suffice, and `notes` says so.
        skips: whether layers before a change are skipped. Turned off by the first batch, if skipping changes a bit.
        narrows: whether a masked model's head runs only where a token is predicted. Turned off if that changes logits.
        memory: bytes up to which the unchanged outputs of all texts are kept; above, each call computes them anew.
        notes: what a reader should know.
    """

    model: PreTrainedModel
    inputs: TokenisedTexts
    seed: int = 0
    batch_tokens: int = 1024
    skips: bool = True
    narrows: bool = True
    memory: int = 2**30
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.biases = Biases(self.model)
        self._layers = Layers(self.model, self.biases.sites.values())
        self._head = Head(self.model)
        self.narrows = self.narrows and self.inputs.masked
        self._checked = False
        self._keeps = True
        self._kept: list[_Known] = []

    @property
    def has_loss(self) -> bool:
        """Whether the model has a language modelling head, which a loss needs."""
        return self.inputs.has_labels

    def measure(self, arms: Sequence[Arm], part_done: PartDone = lambda _: None) -> list[dict[str, float]]:
        """The effects of some arms, in their order."""
        effects = self.halving(lambda: self._effects(arms, part_done))
        return [effect.figures() for effect in effects]

    def floor(self) -> dict[str, float]:
        """The noise floor, which is rounding alone: the model compared with itself in float64."""
        import copy

        double = copy.deepcopy(self.model).double()

        def measured() -> Effect:
            effect = Effect()
            for batch in self._batches():
                effect.add(run(double, batch), run(self.model, batch))
            return effect

        return self.halving(measured).figures()

    def _effects(self, arms: Sequence[Arm], part_done: PartDone) -> list[Effect]:
        effects = [Effect() for _ in arms]
        if not self._checked:
            self._check()
        for share, (batch, base, recorded) in self._known():
            for arm, effect in zip(arms, effects, strict=True):
                before = self._layers.before(arm.sites, recorded) if self.skips else []
                with self.biases.swapped(arm, self.seed), self._layers.skipped(before, recorded):
                    effect.add(base, self._run(batch))
            part_done(share)
        return effects

    def _known(self) -> Iterator[tuple[float, _Known]]:
        """Each batch with the outputs of the unchanged model, and the share of batches up to this one.

        Kept from call to call, where it takes little memory.
        """
        batches = list(self._batches())
        kept, self._kept = self._kept, []
        for number, batch in enumerate(batches):
            if number < len(kept):
                known = kept[number]
            else:
                with self._layers.recorded() as recorded:
                    base = self._run(batch)
                known = _Known(batch, base, recorded)
            if self._keeps and _nbytes([*self._kept, known]) <= self.memory:
                self._kept.append(known)
            yield (number + 1) / len(batches), known

    def _run(self, batch: TextBatch) -> ModelOutputs:
        with self._head.narrowed(batch) if self.narrows else nullcontext():
            return run(self.model, batch)

    def _check(self) -> None:
        """Turn off the shortcuts that would change a result; tried on the shortest text."""
        shortest = replace(self.inputs, rows=(min(self.inputs.rows, key=len),))
        batch: TextBatch = next(shortest.batches(self.batch_tokens, str(self.model.device)))
        self.narrows = self.narrows and self._head.narrows(batch)
        self.skips = self.skips and self._may_skip(batch)
        self._checked = True

    def _may_skip(self, batch: TextBatch) -> bool:
        """Whether skipping the layers before each site gives the same bits."""
        import torch

        with self._layers.recorded() as recorded:
            base = run(self.model, batch).states
        for site in self.biases.sites:
            with self._layers.skipped(self._layers.before([site], recorded), recorded):
                if not torch.equal(run(self.model, batch).states, base):
                    self.notes.append(f"Every arm ran the whole model: what comes before {site} cannot be left out.")
                    return False
        return True

    def _batches(self) -> Any:
        return self.inputs.batches(self.batch_tokens, str(self.model.device))

    def halving(self, measured: Callable[[], Any]) -> Any:
        """Call a function; where memory does not suffice, again with half as many tokens in a batch."""
        while True:
            try:
                return measured()
            except (RuntimeError, MemoryError) as error:
                if not _is_memory(error) or self.batch_tokens <= max(map(len, self.inputs.rows)):
                    raise
            self.batch_tokens //= 2
            self._keeps, self._kept = False, []
            self.notes.append(f"Memory did not suffice: batches are of {self.batch_tokens} tokens now.")


def _is_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error)
