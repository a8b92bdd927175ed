"""Parameters that no run of a small model read, of which nothing is known; those of attention must be explained."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from hf_bias_patch.attention.condition import Condition, meant
from hf_bias_patch.probing.check import Difference

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Explained", "Untouched", "explained", "summary", "unexplained", "untouched"]

_SHOWN = 4
"""Names in a line; JSON has all."""


@dataclass(frozen=True)
class Untouched:
    """A parameter that no run read.

    Attributes:
        name: the parameter's.
        attention: whether it belongs to an attention module.
        reason: why it is not read, in words; empty if nobody has said.
    """

    name: str
    attention: bool
    reason: str


@dataclass(frozen=True)
class Explained:
    """Why some parameters are not read.

    Attributes:
        model_types: of which models.
        names: a pattern that their names match as a whole.
        reason: in words.
        when: a condition on the config that must hold, as in a family; none if empty.
        classes: names of the models' classes that it is true of; any if empty.
    """

    model_types: tuple[str, ...]
    names: str
    reason: str
    when: Condition
    classes: tuple[str, ...]

    def fits(self, model: Any, model_type: str) -> bool:
        """Whether it speaks of a model's parameters.

        Args:
            model: a torch module with a config.
            model_type: its type.
        """
        return (
            model_type in self.model_types
            and meant(self.when, model.config.to_dict())
            and type(model).__name__ in (self.classes or (type(model).__name__,))
        )


@cache
def explained() -> tuple[Explained, ...]:
    """The table of reasons, `untouched.toml`."""
    text = resources.files(__package__).joinpath("untouched.toml").read_text("utf-8")
    return tuple(
        Explained(
            tuple(entry["model_types"]),
            entry["names"],
            entry["reason"],
            entry.get("when", {}),
            tuple(entry.get("classes", ())),
        )
        for entry in tomllib.loads(text)["explained"]
    )


def untouched(model: Any, model_type: str, names: Iterable[str]) -> tuple[Untouched, ...]:
    """What is known of parameters that no run read.

    Args:
        model: they are of; a parameter under several names counts under its first.
        model_type: its type.
        names: of the parameters.
    """
    reasons = [entry for entry in explained() if entry.fits(model, model_type)]
    return tuple(
        Untouched(
            name,
            _of_attention(model, name),
            next((entry.reason for entry in reasons if re.fullmatch(entry.names, name)), ""),
        )
        for name in names
    )


def unexplained(never: Iterable[Untouched]) -> Iterator[Difference]:
    """Those of attention that nobody explained: a verdict may rest on runs that left out what matters."""
    for one in never:
        if one.attention and not one.reason:
            yield Difference("wrong", one.name, "not in untouched.toml", "no run read it, so nothing is known of it")


def summary(never: Iterable[Untouched]) -> list[str]:
    """A line for each reason: how many parameters no run read, and their names, with a star for each number."""
    groups: dict[str, dict[str, None]] = {}
    counts: dict[str, int] = {}
    for one in never:
        groups.setdefault(one.reason, {})[re.sub(r"\b\d+\b", "*", one.name)] = None
        counts[one.reason] = counts.get(one.reason, 0) + 1
    return [
        f"no run read {counts[reason]} parameters{f' ({reason})' if reason else ''}: {_first(list(names))}"
        for reason, names in groups.items()
    ]


def _first(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more names" if len(names) > _SHOWN else "")


def _of_attention(model: Any, name: str) -> bool:
    """Whether any module that a parameter is in is an attention module by its class's name."""
    modules = dict(model.named_modules())
    parts = name.split(".")
    classes = (type(modules[".".join(parts[:count])]).__name__ for count in range(1, len(parts)))
    return any(re.search("attention|attn", kind, re.IGNORECASE) for kind in classes)
