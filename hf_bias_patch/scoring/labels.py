"""Matches the outputs of a head to the labels of a task by their names, and turns logits into decisions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.tasks import Task

__all__ = ["Match", "decide", "head_names", "label_order", "match_labels"]

Match = Literal["names", "generic", "numbers", "none"]
"""How a head's names match a task's labels: `names`, they are the same; `numbers`, the task's are only numbers;
`generic`, the head's are like `LABEL_0`; `none`, they or their counts differ, and it is unclear which is which."""


_OTHER_HEADS = {"multi_label_classification": "several labels at once", "regression": "scores"}
"""By a config's problem_type: heads as large as a classifier's that were trained for something else."""


def head_names(config: Any) -> dict[int, str]:
    """What a config calls the outputs of its head, by their numbers."""
    named = getattr(config, "id2label", None) or {}
    return {int(number): str(named[number]) for number in sorted(named, key=int)}


def match_labels(names: Mapping[int, str], labels: Sequence[str]) -> tuple[Match, list[int] | None]:
    """Match the names of a head's outputs to a task's labels; case is ignored, and blanks, `_` and `-` are the same.

    Args:
        names: number of an output → its name.
        labels: the task's, in the order of their numbers.

    Returns:
        How they match, and for each label its output; None where the order is the same.
    """
    if len(names) != len(labels):
        return "none", None
    outputs = {_plain(name): number for number, name in names.items()}
    wanted = [_plain(label) for label in labels]
    if len(outputs) == len(set(wanted)) == len(labels) and outputs.keys() == set(wanted):
        order = [outputs[name] for name in wanted]
        return "names", None if order == sorted(order) else order
    if all(label.strip().isdecimal() for label in labels):
        return "numbers", None
    return ("generic" if _says_nothing(names) else "none"), None


def _says_nothing(names: Mapping[int, str]) -> bool:
    return all(re.fullmatch(r"(label ?)?\d+", _plain(name)) for name in names.values())


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def label_order(config: Any, task: Task) -> tuple[list[int] | None, tuple[str, ...]]:
    """Which output of a head stands for which label of the task, and notes for the user.

    MNLI models on the Hub have their labels in three orders. Where a config names the task's labels, the names decide.

    Args:
        config: of the model.
        task: classification or regression.

    Returns:
        For each label of the task the output that stands for it, or None where the order is the same.

    Raises:
        TaskError: a label of the task is the name of another output, or two outputs have the same name.
    """
    if task.kind != "classification":
        return None, ()
    names = head_names(config)
    match, order = match_labels(names, task.labels)
    notes = ["The head's outputs were put in the task's order."] if order is not None else []
    if match in ("numbers", "none") and len(names) == len(task.labels) and not _says_nothing(names):
        _refuse_crossed(list(names.values()), task)
        pairs = ", ".join(f"{name} as {label}" for name, label in zip(names.values(), task.labels, strict=True))
        notes.append(f"The model names its labels differently; they were matched by their order: {pairs}.")
    if trained := _OTHER_HEADS.get(getattr(config, "problem_type", None) or ""):
        notes.append(f"The head was trained to give {trained}; the label with the largest logit was taken.")
    return order, tuple(notes)


def _refuse_crossed(names: Sequence[str], task: Task) -> None:
    plain, wanted = [_plain(name) for name in names], [_plain(label) for label in task.labels]
    crossed = [name for place, name in enumerate(plain) if name in wanted and wanted[place] != name]
    if crossed or len(set(plain)) < len(plain):
        raise TaskError(
            f"Which output of the model's head stands for which label of {task.name} is unclear",
            why=f"The head has {', '.join(names)}; the task has {', '.join(task.labels)}",
            remedy="Rename them in the model's config.json (id2label and label2id)",
        )


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
