"""What the runs and the table do not both show: parameters that no run read, and biases unseen, with their reasons."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hf_bias_patch.family_check.reasons import reason_of
from hf_bias_patch.probing.check import UNSEEN, Checked, Difference

__all__ = ["Untouched", "explain", "summary", "unexplained", "untouched"]

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


def untouched(model: Any, model_type: str, names: Iterable[str]) -> tuple[Untouched, ...]:
    """What is known of parameters that no run read.

    Args:
        model: they are of; a parameter under several names counts under its first.
        model_type: its type.
        names: of the parameters.
    """
    config, kind = {**model.config.to_dict(), "model_type": model_type}, type(model).__name__
    return tuple(
        Untouched(name, _of_attention(model, name), reason_of("untouched", config, kind, name)) for name in names
    )


def unexplained(never: Iterable[Untouched]) -> Iterator[Difference]:
    """Attention parameters that no run used and no reason explains, so that verdicts may be wrong."""
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


def explain(checked: Checked, config: Mapping[str, Any], class_name: str) -> Checked:
    """The same check, its unseen biases that have a reason in one of the tables being explained.

    Args:
        checked: of one model.
        config: that model's.
        class_name: that model's.
    """
    told = {item: _reason(item, config, class_name) for item in checked.differences if item.kind == UNSEEN}
    return replace(
        checked,
        differences=tuple(item for item in checked.differences if not told.get(item)),
        explained={item.slot: reason for item, reason in told.items() if reason},
    )


def _reason(item: Difference, config: Mapping[str, Any], class_name: str) -> str:
    name = item.slot.partition(" ")[0]
    tables = ("unseen", "uncovered", "untouched")
    return next(filter(None, (reason_of(table, config, class_name, name) for table in tables)), "")
