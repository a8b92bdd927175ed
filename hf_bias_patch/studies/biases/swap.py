"""Changes biases of a model in memory, and puts them back bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.sites import Site
from hf_bias_patch.patching.in_memory import ModelTensors
from hf_bias_patch.studies.biases.arms import Arm, Target, heads_of
from hf_bias_patch.studies.biases.fills import filled

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Biases", "norm"]


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
        """How many parameters a target has."""
        size = self.sites[target.site].slots[target.projection].view.size
        return size if target.head is None else size // heads_of(self.sites[target.site], target.projection)

    def parameters(self, targets: Iterable[Target]) -> list[torch.nn.Parameter]:
        """The parameters that hold the targets, each once."""
        return [self._tensors.parameters[name] for name in dict.fromkeys(map(self._name, targets))]

    def values(self, targets: Iterable[Target]) -> dict[Target, np.ndarray]:
        """The values of whole biases, float64."""
        return {target: self._taken(self._tensors.read(self._name(target)), target) for target in targets}

    def gradients(self, targets: Iterable[Target]) -> dict[Target, np.ndarray]:
        """The last computed gradients of whole biases, float64; zeros where there is none."""
        found = {}
        for target in targets:
            parameter = self._tensors.parameters[self._name(target)]
            given = parameter.grad
            whole = np.zeros(parameter.shape) if given is None else given.double().cpu().numpy()
            found[target] = self._taken(whole, target)
        return found

    @contextmanager
    def swapped(self, arm: Arm, seed: int) -> Iterator[None]:
        """Apply an arm inside the block."""
        with self._changed(arm.targets, lambda target, values: self._filled(target, values, arm.fill, seed)):
            yield

    @contextmanager
    def moved(self, by: Mapping[Target, np.ndarray]) -> Iterator[None]:
        """Add vectors to whole biases inside the block."""
        with self._changed(by, lambda target, values: values + by[target]):
            yield

    @contextmanager
    def _changed(
        self, targets: Iterable[Target], new_values: Callable[[Target, np.ndarray], np.ndarray]
    ) -> Iterator[None]:
        new: dict[str, np.ndarray] = {}
        old: dict[str, np.ndarray] = {}
        for target in targets:
            name, view = self._name(target), self.sites[target.site].slots[target.projection].view
            if name not in old:
                old[name] = self._tensors.read(name)
                new[name] = old[name].copy()
            made = new_values(target, self._taken(new[name], target))
            view.put(new[name], made.astype(new[name].dtype))
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

    def _taken(self, vector: np.ndarray, target: Target) -> np.ndarray:
        return self.sites[target.site].slots[target.projection].view.take(vector).astype(np.float64)

    def _filled(self, target: Target, values: np.ndarray, fill: str, seed: int) -> np.ndarray:
        heads = heads_of(self.sites[target.site], target.projection)
        made = filled(fill, values, heads, seed, f"{target.site}.{target.projection}")
        if target.head is None:
            return made
        of_head = slice(target.head * values.size // heads, (target.head + 1) * values.size // heads)
        values[of_head] = made[of_head]
        return values


def norm(vectors: Mapping[Target, np.ndarray] | Sequence[np.ndarray]) -> float:
    """Euclidean norm of some vectors as one."""
    found = vectors.values() if isinstance(vectors, Mapping) else vectors
    return float(np.sqrt(sum(float(np.square(vector).sum()) for vector in found)))
