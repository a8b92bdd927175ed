"""What is known of a `model_type`, read from families/*.toml. Facts only; what a header can tell is not repeated."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from hf_bias_patch.attention.sites import Projection
from hf_bias_patch.errors import FamilyError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Attention", "Composite", "Family", "Stack", "family_of", "model_types"]


@dataclass(frozen=True)
class Stack:
    """One stack of layers.

    Attributes:
        layers: the config key that counts them.
        heads: the config key that counts query heads.
        final_norm: the norm whose output is the stack's output (what a cross-attention over it reads).
        decoder_when: a config flag that makes this stack a decoder.
    """

    layers: str
    heads: str
    final_norm: str
    decoder_when: str = ""


@dataclass(frozen=True)
class Attention:
    """One kind of attention site, repeated in every layer of a stack.

    Module names may hold `{layer}`, `{before}` (the layer before) and `{last}` (the stack's last layer).

    Attributes:
        stack: name in `Family.stacks`.
        kind: `self` or `cross`.
        maps: module → the projections fused in it, in block order along its output axis.
        reads: the norm whose output the query (in self-attention also key and value) reads.
        reads_first: the same for layer 0, where it differs.
        dropout_after_first: whether dropout sits between that first norm and the maps.
        between_first: a module that, if the checkpoint has it, stands between that first norm and the maps.
        post_norm: whether the norm's output is also the residual added to the attention's output.
        conv1d: whether weights are stored (in, out) instead of (out, in).
    """

    stack: str
    kind: str
    maps: dict[str, list[Projection]]
    reads: str
    reads_first: str = ""
    dropout_after_first: bool = False
    between_first: str = ""
    post_norm: bool = False
    conv1d: bool = False


@dataclass(frozen=True)
class Family:
    """The structure that some model types share."""

    name: str
    model_types: tuple[str, ...]
    stacks: dict[str, Stack]
    attention: tuple[Attention, ...]
    handled: dict[str, list[Any]] = field(default_factory=dict)

    def unhandled(self, config: Mapping[str, Any]) -> str:
        """The config entry these facts do not cover, as `key = value`; empty if there is none."""
        for key, values in self.handled.items():
            if config.get(key, values[0]) not in (*values, None):
                return f"{key} = {config[key]!r}"
        return ""


@dataclass(frozen=True)
class Composite:
    """A model made of two others: config keys (and parameter prefixes) of its parts, and what joins them."""

    name: str
    model_types: tuple[str, ...]
    encoder: str
    decoder: str
    bridge: str


@cache
def _families() -> dict[str, Family | Composite]:
    found: dict[str, Family | Composite] = {}
    for file in sorted(resources.files(__package__).joinpath("families").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            family = _parse(file.name.removesuffix(".toml"), tomllib.loads(file.read_text("utf-8")))
            found |= dict.fromkeys(family.model_types, family)
    return found


def _parse(name: str, facts: dict[str, Any]) -> Family | Composite:
    types = tuple(facts.pop("model_types"))
    if "stacks" not in facts:
        return Composite(name, types, **facts)
    stacks = {key: Stack(**stack) for key, stack in facts.pop("stacks").items()}
    attention = tuple(Attention(**entry) for entry in facts.pop("attention"))
    return Family(name, types, stacks, attention, **facts)


def model_types() -> tuple[str, ...]:
    """Every model type with a family, sorted."""
    return tuple(sorted(_families()))


def family_of(config: Mapping[str, Any]) -> Family | Composite:
    """The family of a config.

    Raises:
        FamilyError: the config names no `model_type`, or one without a family.
    """
    model_type = config.get("model_type")
    if not model_type:
        raise FamilyError(
            "config.json names no `model_type`",
            why="Without it the attention sites cannot be told from tensor names",
            remedy="Point to a transformers checkpoint folder, or add the field",
        )
    family = _families().get(model_type)
    if family is None:
        raise FamilyError(
            f"No family covers the model type {model_type!r}",
            why="Whether its biases are redundant is not known, and is never guessed",
            remedy=f"Known: {', '.join(model_types())}",
        )
    return family
