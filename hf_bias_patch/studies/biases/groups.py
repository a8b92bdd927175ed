"""Biases in groups: one projection of all sites of a kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hf_bias_patch.attention.sites import Projection, Site
from hf_bias_patch.studies.biases.arms import Target, whole_arms

__all__ = ["BiasGroup", "groups_of", "norm"]


@dataclass(frozen=True)
class BiasGroup:
    """One projection's biases at all sites of a kind.

    Attributes:
        place: `encoder self`, `decoder cross`, …
        projection: whose bias.
        targets: the biases.
    """

    place: str
    projection: Projection
    targets: tuple[Target, ...]

    @property
    def name(self) -> str:
        """As in `encoder self, value`."""
        return f"{self.place}, {self.projection}"


def groups_of(sites: Iterable[Site]) -> list[BiasGroup]:
    """The groups that a model has."""
    arms = whole_arms(list(sites), ["zeros"])
    return [BiasGroup(arm.place, arm.targets[0].projection, arm.targets) for arm in arms]


def norm(vectors: Mapping[Target, np.ndarray] | Sequence[np.ndarray]) -> float:
    """Euclidean norm of all numbers together."""
    found = vectors.values() if isinstance(vectors, Mapping) else vectors
    return float(np.sqrt(sum(float(np.square(vector).sum()) for vector in found)))
