"""Files with predictions: for the GLUE server, and for any other use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_bias_patch.errors import TargetError
from hf_bias_patch.scoring.tasks import Task

__all__ = ["file_name", "is_submitted", "write_predictions"]


def file_name(task: Task, split: str) -> str:
    """What the GLUE server wants the file to be called; else `TASK.SPLIT.jsonl`."""
    return _server_file(task, split) or f"{task.name.replace(':', '-')}.{split}.jsonl"


def is_submitted(task: Task, split: str) -> bool:
    """Whether the GLUE server scores this split, whose labels are secret."""
    return _server_file(task, split) is not None


def _server_file(task: Task, split: str) -> str | None:
    """The server's file name for a split, or for the split that it is an alias of: MNLI's `test` is `test_matched`."""
    return task.submission.get(split) or task.submission.get(task.splits.get(split, split))


def write_predictions(task: Task, split: str, predictions: Sequence[Any], folder: str | Path) -> Path:
    """Write predictions in the order of the rows.

    For the GLUE server: a header `index`, `prediction`, then a row each, with the label's name where the server wants
    names, its number elsewhere, and a similarity from 0 to 5 with three decimals. Else JSON lines of the same fields.

    Args:
        task: what was asked.
        split: which rows.
        predictions: label numbers, floats or texts.
        folder: made if it is not there; a file in it of the same name is replaced.

    Raises:
        TargetError: it cannot be written.
    """
    path = Path(folder) / file_name(task, split)
    if is_submitted(task, split):
        rows = [f"{i}\t{_shown(task, prediction)}" for i, prediction in enumerate(predictions)]
        text = "\n".join(["index\tprediction", *rows]) + "\n"
    else:
        named = task.kind == "classification"
        rows = [
            json.dumps({"index": i, "prediction": task.labels[value] if named else value}, ensure_ascii=False)
            for i, value in enumerate(predictions)
        ]
        text = "".join(f"{row}\n" for row in rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise TargetError(f"{path} cannot be written: {error}") from None
    return path


def _shown(task: Task, prediction: Any) -> str:
    if task.kind == "regression":
        return f"{min(max(prediction, 0.0), 5.0):.3f}"
    return task.labels[prediction] if task.words else str(prediction)
