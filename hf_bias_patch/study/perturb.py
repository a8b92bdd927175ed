"""Measures arms: one model, loaded once; its unchanged layers run once a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hf_bias_patch.study.arms import Arm
from hf_bias_patch.study.effects import Effect, run
from hf_bias_patch.study.inputs import Batch, Inputs
from hf_bias_patch.study.layers import Layers
from hf_bias_patch.study.swap import Biases

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Bench", "Tell"]

Tell = Callable[[float], None]
"""Is told how much of a measurement is done, from 0 to 1."""


@dataclass
class Bench:
    """A model on which arms are measured.

    Attributes:
        model: in evaluation mode; it is as it was after each call.
        inputs: what it reads.
        seed: of random values.
        batch_tokens: halved where memory does not suffice, and `notes` says so.
        skips: whether layers before a change are skipped. Turned off by the first batch, if skipping changes a bit.
        notes: what a reader should know.
    """

    model: PreTrainedModel
    inputs: Inputs
    seed: int = 0
    batch_tokens: int = 1024
    skips: bool = True
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.biases = Biases(self.model)
        self._layers = Layers(self.model, self.biases.sites.values())
        self._checked = False

    @property
    def has_loss(self) -> bool:
        """Whether the model has a language modelling head, and so a loss."""
        return self.inputs.has_labels

    def measure(self, arms: Sequence[Arm], tell: Tell = lambda _: None) -> list[dict[str, float]]:
        """The effects of some arms, in their order."""
        effects = self.halving(lambda: self._effects(arms, tell))
        return [effect.figures() for effect in effects]

    def floor(self) -> dict[str, float]:
        """The noise floor: the model as it is against itself in float64. That is what rounding alone does."""
        import copy

        double = copy.deepcopy(self.model).double()

        def measured() -> Effect:
            effect = Effect()
            for batch in self._batches():
                effect.add(run(double, batch), run(self.model, batch))
            return effect

        return self.halving(measured).figures()

    def _effects(self, arms: Sequence[Arm], tell: Tell) -> list[Effect]:
        effects = [Effect() for _ in arms]
        batches = list(self._batches())
        if self.skips and not self._checked:
            self._check()
        for number, batch in enumerate(batches):
            with self._layers.recorded():
                base = run(self.model, batch)
            for arm, effect in zip(arms, effects, strict=True):
                before = self._layers.before(arm.sites) if self.skips else []
                with self.biases.swapped(arm, self.seed), self._layers.skipped(before):
                    effect.add(base, run(self.model, batch))
            tell((number + 1) / len(batches))
        return effects

    def _check(self) -> None:
        """Whether a pass that skips gives the very same, from each layer on; tried on the shortest text."""
        import torch

        self._checked = True
        shortest = replace(self.inputs, rows=(min(self.inputs.rows, key=len),))
        batch: Batch = next(shortest.batches(self.batch_tokens, str(self.model.device)))
        with self._layers.recorded():
            base = run(self.model, batch).states
        for site in self.biases.sites:
            with self._layers.skipped(self._layers.before([site])):
                if not torch.equal(run(self.model, batch).states, base):
                    self.skips = False
                    self.notes.append(f"Every arm ran the whole model: what comes before {site} cannot be left out.")
                    return

    def _batches(self) -> Any:
        return self.inputs.batches(self.batch_tokens, str(self.model.device))

    def halving(self, measured: Callable[[], Any]) -> Any:
        """Try again with half of the tokens in a batch, for as long as memory does not suffice."""
        while True:
            try:
                return measured()
            except (RuntimeError, MemoryError) as error:
                if not _is_memory(error) or self.batch_tokens <= max(map(len, self.inputs.rows)):
                    raise
            self.batch_tokens //= 2
            self.notes.append(f"Memory did not suffice: batches are of {self.batch_tokens} tokens now.")


def _is_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error)
