"""A variant's scores in the form that the Hub shows beside a model: `.eval_results/*.yaml`."""

from __future__ import annotations

import math
from typing import Any

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from hf_bias_patch.publish.facts import Facts, data_of

__all__ = ["eval_results"]


def eval_results(facts: Facts) -> bytes | None:
    """The main metric on each whole split that is on the Hub; None if there is none such.

    Only of rows that anybody can have does a figure say something beside others': not of a file, of some of the rows,
    or of those that could be read, and not of what a model may have been trained on.
    """
    entries = [entry for result in facts.results if (entry := _entry(result)) is not None]
    if not entries:
        return None
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True).encode()


def _entry(result: dict[str, Any]) -> EvalResultEntry | None:
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
