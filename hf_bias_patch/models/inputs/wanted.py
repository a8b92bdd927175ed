"""What a forward method is given: the arguments asked for, and those made so far."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["BATCH", "TEXT_HIGH", "TEXT_LOW", "Wanted", "read"]

BATCH = 2
TEXT_LOW, TEXT_HIGH = 20, 95
"""Tokens of random texts: between those with low ids and a meaning, and those that `rules` moves to 100 and above."""


@dataclass
class Wanted:
    """The arguments of one model.

    Attributes:
        model: that will take them.
        parameters: of its forward method.
        generator: of all random values.
        variant: which of several plausible formats to make; see makers.variants_of.
        made: arguments so far; names that begin with an underscore are notes between makers.
    """

    model: Any
    parameters: Mapping[str, inspect.Parameter]
    generator: torch.Generator
    variant: Mapping[str, Any]
    made: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Any, seed: int, variant: Mapping[str, Any] | None = None) -> Wanted:
        """Nothing made yet, of a model's forward method."""
        parameters = inspect.signature(model.forward).parameters
        return cls(model, parameters, torch.Generator().manual_seed(seed), variant or {})

    @property
    def config(self) -> Any:
        return self.model.config

    def required(self, name: str) -> bool:
        found = self.parameters.get(name)
        return found is not None and found.default is inspect.Parameter.empty

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def integers(self, low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, max(high, low + 1), shape, generator=self.generator)

    def look(self, *names: str, default: Any = None) -> Any:
        """The first of these values, in the config or one of its sub-configs."""
        return next((v for v in (_look(self.config, name) for name in names) if v is not None), default)

    def vision(self) -> Any:
        """The config that describes images: the first with a patch or image size."""
        return _vision(self.config) or self.config

    def vocabulary(self) -> int:
        """Number of tokens the model embeds."""
        with suppress(Exception):  # transformers raises where there is no table
            table = self.model.get_input_embeddings()
            if isinstance(table, torch.nn.Embedding):
                return table.num_embeddings
        size = self.look("vocab_size")
        return size if isinstance(size, int) else TEXT_HIGH


def read(config: Any, name: str, default: Any = None) -> Any:
    """An attribute of a config, `default` where there is none or where it differs from layer to layer."""
    try:
        return getattr(config, name, default)
    except Exception:  # transformers' error for per-layer attributes is private and no AttributeError
        return default


def _parts(config: Any) -> list[Any]:
    """Its sub-configs."""
    found = [getattr(config, name, None) for name in getattr(config, "sub_configs", None) or {}]
    return [part for part in found if part is not None and not isinstance(part, dict)]


def _look(config: Any, name: str) -> Any:
    value = read(config, name)
    if value is not None:
        return value
    return next((found for part in _parts(config) if (found := _look(part, name)) is not None), None)


_IMAGES = ("vision_config", "image_config")


def _vision(config: Any) -> Any:
    if hasattr(config, "patch_size") or hasattr(config, "image_size"):
        nested = next((part for name in _IMAGES if (part := getattr(config, name, None)) is not None), None)
        return config if nested is None else _vision(nested)
    first = [getattr(config, name, None) for name in (*_IMAGES, "backbone_config", "encoder")]
    parts = [part for part in first if part is not None and not isinstance(part, (dict, str))] + _parts(config)
    return next((found for part in parts if (found := _vision(part)) is not None), None)
