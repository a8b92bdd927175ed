"""A variant's scores in the form that the Hub shows beside a model: `.eval_results/*.yaml`."""

from __future__ import annotations

import math
from typing import Any

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from hf_bias_patch.errors import TaskError
from hf_bias_patch.publish.facts import Facts
from hf_bias_patch.scoring.tasks import Hub, load_task

__all__ = ["eval_results"]


def eval_results(facts: Facts) -> bytes | None:
    """The main metric of each task whose data is on the Hub; None if there is none such."""
    entries = [entry for result in facts.results if (entry := _entry(result)) is not None]
    if not entries:
        return None
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True).encode()


def _entry(result: dict[str, Any]) -> EvalResultEntry | None:
    hub = _data_of(result["task"])
    metric = result.get("main_metric")
    if hub is None or metric is None or not math.isfinite(result["metrics"].get(metric, math.nan)):
        return None
    split, rows = result.get("split", "validation"), result.get("rows")
    return EvalResultEntry(
        dataset_id=hub.id,
        task_id=hub.config or "default",
        value=result["metrics"][metric],
        notes=f"{metric} on {split}{f', {rows:,} rows' if rows else ''}; measured by hf-bias-patch evaluate",
    )


def _data_of(task: str) -> Hub | None:
    """Where a task's data lies; None for the user's own and the embedded ones, of which the Hub knows nothing."""
    try:
        return load_task(task).hub
    except TaskError:
        return None
