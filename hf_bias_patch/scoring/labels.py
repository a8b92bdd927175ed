"""From rows of logits to decisions, in the task's order of labels, whatever order the model's head has."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.tasks import Task

__all__ = ["decide", "label_order"]


def label_order(config: Any, task: Task) -> tuple[list[int] | None, tuple[str, ...]]:
    """Which output of a head stands for which label of the task, and what a reader should know of it.

    MNLI models on the Hub have their labels in three orders. Where a config names the task's labels, the names decide.

    Args:
        config: of the model.
        task: classification or regression.

    Returns:
        For each label of the task the output that stands for it, or None where the order is the same.
    """
    names = {int(i): str(name).lower() for i, name in (getattr(config, "id2label", None) or {}).items()}
    wanted = [name.lower() for name in task.labels]
    if task.kind != "classification" or len(names) != len(wanted):
        return None, ()
    if sorted(names.values()) == sorted(wanted):
        outputs = {name: i for i, name in names.items()}
        order = [outputs[name] for name in wanted]
        return (None, ()) if order == sorted(order) else (order, ("The head's outputs were put in the task's order.",))
    if all(re.fullmatch(r"label_\d+", name) for name in names.values()):
        return None, ()
    pairs = ", ".join(f"{names[i]} as {label}" for i, label in enumerate(wanted))
    return None, (f"The model names its labels otherwise; they were taken in their order: {pairs}.",)


def decide(task: Task, answers: Sequence[Any]) -> list[Any]:
    """Label numbers (the largest logit; of equal ones the first), floats, or the texts as they are.

    Raises:
        TaskError: a logit is NaN.
    """
    if task.kind == "generation":
        return list(answers)
    if any(math.isnan(value) for row in answers for value in row):
        raise TaskError(f"The model gives out NaN on {task.name}")
    if task.kind == "regression":
        return [row[0] for row in answers]
    return [max(range(len(row)), key=row.__getitem__) for row in answers]
