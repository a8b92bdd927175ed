"""Changes biases of a model in memory, and puts them back bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hf_bias_patch.attention.find import find_sites
from hf_bias_patch.attention.sites import Site
from hf_bias_patch.patching.memory import ModelTensors
from hf_bias_patch.study.arms import Arm, Target, heads_of
from hf_bias_patch.study.fills import filled

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Biases"]


class Biases:
    """The attention biases of a model."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._tensors = ModelTensors(model)
        self._config = model.config.to_dict()

    @cached_property
    def sites(self) -> dict[str, Site]:
        """Attention sites by name.

        Raises:
            FamilyError: no family covers the model.
        """
        return {site.name: site for site in find_sites(self._config, self._tensors.tensors)}

    def numbers(self, target: Target) -> int:
        """How many numbers a target has."""
        size = self.sites[target.site].slots[target.projection].view.size
        return size if target.head is None else size // heads_of(self.sites[target.site], target.projection)

    @contextmanager
    def swapped(self, arm: Arm, seed: int) -> Iterator[None]:
        """Change what the arm changes, for as long as the block runs."""
        new: dict[str, np.ndarray] = {}
        old: dict[str, np.ndarray] = {}
        for target in arm.targets:
            name = self._name(target)
            if name not in old:
                old[name] = self._tensors.read(name)
                new[name] = old[name].copy()
            self._change(new[name], target, arm.fill, seed)
        try:
            for name, values in new.items():
                self._tensors.write(name, values)
            yield
        finally:
            for name, values in old.items():
                self._tensors.write(name, values)

    def _name(self, target: Target) -> str:
        name = self.sites[target.site].slots[target.projection].bias
        assert name is not None, "arms are made of biases that are there"
        return name

    def _change(self, vector: np.ndarray, target: Target, fill: str, seed: int) -> None:
        site = self.sites[target.site]
        view, heads = site.slots[target.projection].view, heads_of(site, target.projection)
        values = view.take(vector).astype(np.float64)
        made = filled(fill, values, heads, seed, f"{target.site}.{target.projection}")
        if target.head is not None:
            of_head = slice(target.head * values.size // heads, (target.head + 1) * values.size // heads)
            values[of_head] = made[of_head]
            made = values
        view.put(vector, made.astype(vector.dtype))
