"""What a check could not see, and why: differences of the kind `unseen` that somebody has explained are told apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hf_bias_patch.family_check.reasons import reason_of
from hf_bias_patch.probing.check import UNSEEN, Checked, Difference

__all__ = ["explain"]


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
