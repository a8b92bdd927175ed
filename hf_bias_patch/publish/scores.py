"""Scores that a card states: read and kept beside the model, and in the form that the Hub shows beside it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
from pydantic import AfterValidator, BaseModel, Field

from hf_bias_patch.checkpoint.sidecar import SIDE_FOLDER
from hf_bias_patch.checkpoint.source import resolve
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.models.source_files import weight_files
from hf_bias_patch.scoring.identity import DataIdentity

__all__ = ["RESULTS", "data_of", "dump_scores", "eval_results", "kept_scores", "own_scores"]

RESULTS = f"{SIDE_FOLDER}/results"
"""Scores of the model, as `hf-bias-patch evaluate --json` prints them: a file for each task and data."""

_Name = Annotated[str, AfterValidator(lambda text: " ".join(text.split())), Field(pattern=r"\S")]
"""In one line."""


def kept_scores(folder: Path) -> dict[str, dict[str, Any]]:
    """The scores beside a model: name of the file in the folder → scores.

    Raises:
        CheckpointError: a file holds no scores.
    """
    return {f"{RESULTS}/{path.name}": _read(path) for path in sorted((folder / RESULTS).glob("*.json"))}


def own_scores(folder: Path, paths: Iterable[str | os.PathLike[str]]) -> dict[str, dict[str, Any]]:
    """Scores of the weights in a folder: the name that each is kept under, one for each task and data → scores.

    Raises:
        CheckpointError: a file holds no scores, or those of another model.
    """
    found = [_own(folder, Path(path)) for path in paths]
    return {f"{RESULTS}/{_file_name(result)}": result for result in found}


def dump_scores(result: Mapping[str, Any]) -> bytes:
    """The content of such a file."""
    return (json.dumps(result, indent=2) + "\n").encode()


def _own(folder: Path, path: Path) -> dict[str, Any]:
    """Scores in a file, if they are of the weights in a folder; an older file does not say of which they are."""
    result = _read(path)
    measured = result.get("model")
    if measured is not None and measured.get("sha256") != weight_files(resolve(folder)):
        raise CheckpointError(
            f"{path} holds scores of another model ({measured.get('name')})",
            why="The sha256 of its weights is not that of the weights here",
            remedy=f"Score this one: `hf-bias-patch evaluate {folder} --task {result['task']} --json`",
        )
    return result


def _file_name(result: Mapping[str, Any]) -> str:
    task = re.sub(r"[^\w.-]+", "-", result["task"])[:60].lstrip(".") or "task"
    data = data_of(result)
    of = "" if data is None else f".{hashlib.sha256(str(data).encode()).hexdigest()[:8]}"
    return f"{task}{of}.json"


def data_of(result: Mapping[str, Any]) -> DataIdentity | None:
    """The data that scores are of, whether `evaluate` or a run's results.json names it; None if an older file does not.

    Raises:
        ValueError: what it names is no identity of data.
    """
    found = result.get("data") or result.get("validation_data")
    return None if found is None else DataIdentity.of_plain(found)


class _Scores(BaseModel, strict=True):
    """What a file of scores must hold, and may."""

    task: _Name
    metrics: Annotated[dict[_Name, float], Field(min_length=1)]
    main_metric: str = ""
    rows: int = 0
    model: dict[str, Any] | None = None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
        result: dict[str, Any] = {**found, **_Scores.model_validate(found).model_dump(include={"task", "metrics"})}
        data_of(result)
        return result
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(
            f"{path} holds no scores" if path.exists() else f"There is no file {path}",
            remedy="Write it with `hf-bias-patch evaluate VARIANT --task TASK --json`",
        ) from None


def eval_results(results: Iterable[Mapping[str, Any]]) -> bytes | None:
    """The content of `.eval_results/*.yaml`: the main metric on each whole split that is on the Hub; None without any.

    A figure is comparable with others' only if it is of rows that anybody can get. So scores on a file, on some of the
    rows or on those that could be read are left out, and those on a split that a model may have been trained on.
    """
    entries = [entry for result in results if (entry := _entry(result)) is not None]
    if not entries:
        return None
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True).encode()


def _entry(result: Mapping[str, Any]) -> EvalResultEntry | None:
    data, metric = data_of(result), result.get("main_metric")
    if data is None or not data.is_public or data.split == "train":
        return None
    if metric is None or not math.isfinite(result["metrics"].get(metric, math.nan)):
        return None
    return EvalResultEntry(
        dataset_id=data.name,
        task_id=data.config or "default",
        dataset_revision=data.revision,
        value=result["metrics"][metric],
        notes=f"{metric} on {data.split}, {data.rows:,} rows; measured by hf-bias-patch",
    )
