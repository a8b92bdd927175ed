"""What a training run tells while it runs. The loop never prints; its caller may."""

from __future__ import annotations

from collections.abc import Mapping

from hf_bias_patch.tuning.trainable import Trainable

__all__ = ["Watcher"]


class Watcher:
    """Is told what happens, by the main process only; does nothing with it."""

    def begin(self, selection: Trainable, steps: int, first: int) -> None:
        """Training begins.

        Args:
            selection: what trains.
            steps: optimiser steps in all.
            first: steps done before, in a run that is resumed.
        """

    def step(self, step: int, loss: float, samples: int, tokens: int) -> None:
        """An optimiser step is done.

        Args:
            step: how many are done.
            loss: mean over what counts in it.
            samples, tokens: in it, of all processes; padding not counted.
        """

    def evaluated(self, step: int, metrics: Mapping[str, float], best: bool) -> None:
        """The model was evaluated."""

    def say(self, text: str) -> None:
        """A note for the user."""

    def end(self) -> None:
        """Training is over, for whatever reason."""
