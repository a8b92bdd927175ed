"""Why the sweep's numbers say nothing of some biases: tables that people write, all in one form.

`untouched.toml` (parameters that no run reads), `uncovered.toml` (attention biases at no site), `unseen.toml` (biases
that the table and the runs do not both have), `unchecked.toml` (types of which no small model runs; its names are what
transformers says) and `not_built.toml` (types of which there is no small model). Each entry lists model types, and may
narrow them by a pattern that a name matches as a whole (`names`), by the models' classes (`classes`) and by a condition
on the config (`when`, as in a family).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from hf_bias_patch.architecture.condition import Condition, meant

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Reason", "reason_of", "reasons"]


@dataclass(frozen=True)
class Reason:
    """One entry of a table.

    Attributes:
        model_types: of which models.
        reason: in words.
        names: a pattern that the whole name matches.
        classes: names of the models' classes that it is true of; any if empty.
        when: a condition on the config that must hold; none if empty.
    """

    model_types: tuple[str, ...]
    reason: str
    names: str
    classes: tuple[str, ...]
    when: Condition

    def fits(self, config: Mapping[str, Any], class_name: str, name: str) -> bool:
        """Whether it speaks of a name in a model of that config and class."""
        return (
            config.get("model_type") in self.model_types
            and class_name in (self.classes or (class_name,))
            and meant(self.when, config)
            and re.fullmatch(self.names, name) is not None
        )


@cache
def reasons(table: str) -> tuple[Reason, ...]:
    """The entries of a table: `untouched`, `uncovered`, `unseen`, `unchecked` or `not_built`."""
    text = resources.files(__package__).joinpath(f"{table}.toml").read_text("utf-8")
    return tuple(
        Reason(
            tuple(entry["model_types"]),
            entry["reason"],
            entry.get("names", ".*"),
            tuple(entry.get("classes", ())),
            entry.get("when", {}),
        )
        for entry in tomllib.loads(text).get("explained", ())
    )


def reason_of(table: str, config: Mapping[str, Any], class_name: str, name: str) -> str:
    """The reason that a table gives for a name; empty if it has none.

    Args:
        table: as for `reasons`.
        config: of the model that it is in, with its type.
        class_name: of that model.
        name: a parameter's.
    """
    return next((one.reason for one in reasons(table) if one.fits(config, class_name, name)), "")
