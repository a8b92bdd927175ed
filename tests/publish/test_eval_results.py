"""Scores in the form that the Hub shows beside a model, read back by its own client."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import yaml
from huggingface_hub import parse_eval_result_entries

from hf_bias_patch import patch
from hf_bias_patch.checkpoint.side import EVAL_RESULTS
from hf_bias_patch.publish.card import write_card
from hf_bias_patch.publish.facts import RESULTS, add_results


def test_scores_on_public_data_are_the_hubs(saved: Callable[..., Path], tmp_path: Path) -> None:
    variant = tmp_path / "variant"
    patch(saved("bert"), variant, fold="key")
    scores = tmp_path / "scores.json"
    for score in (
        {"task": "sst2", "rows": 872, "main_metric": "accuracy", "metrics": {"accuracy": 79.128, "loss": 0.44}},
        {"task": "embedded:opinion", "rows": 9, "main_metric": "accuracy", "metrics": {"accuracy": 50.0}},
        {"task": "mine", "rows": 9, "main_metric": "accuracy", "metrics": {"accuracy": 50.0}},
    ):
        scores.write_text(json.dumps(score))
        add_results(variant, [scores])
    write_card(variant)
    [entry] = parse_eval_result_entries(yaml.safe_load((variant / EVAL_RESULTS).read_text()))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("nyu-mll/glue", "sst2", 79.128)
    assert entry.notes is not None and entry.notes.startswith("accuracy on validation, 872 rows")

    (variant / RESULTS / "sst2.json").unlink()
    write_card(variant)
    assert not (variant / EVAL_RESULTS).exists()
