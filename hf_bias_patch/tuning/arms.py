"""The arms of a comparison: what trains in each, and the learning rates that are tried for it."""

from __future__ import annotations

from hf_bias_patch.tuning.set_trainable import ADAPTERS, projections_of

__all__ = ["ARMS", "grid_of"]

ARMS = ("all", "lora", "beft", "biases", "query", "key", "value", "query,value", "none")
"""The arms that are compared unless others are named. `none` trains the head alone: what all arms have in common."""

_FULL = (1e-5, 3e-5, 1e-4, 3e-4)
_ADAPTER = (3e-4, 1e-3, 3e-3, 1e-2)
_VECTORS = (1e-3, 3e-3, 1e-2, 3e-2)


def grid_of(arm: str) -> tuple[float, ...]:
    """Peak learning rates to choose from: as many for each arm, about its usual one.

    Raises:
        RecipeError: there is no such arm.
    """
    projections_of(arm)
    return _FULL if arm == "all" else _ADAPTER if arm in ADAPTERS else _VECTORS
