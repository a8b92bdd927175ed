"""`evaluate` in Python: what it gives for each split, and what a card takes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import hf_bias_patch as hbp
from hf_bias_patch.scoring.evaluate import evaluations_as_json


def test_a_split_with_labels_has_scores_and_predictions(tmp_path: Path) -> None:
    given = {"model_name_or_path": "embedded:bart", "task_name": "embedded:summary", "predict": tmp_path}
    settings = hbp.EvaluateSettings(**given, max_eval_samples=2, num_beams=1, max_new_tokens=4)
    told: list[str] = []
    (found,) = hbp.evaluate(settings, told.append)
    assert found.scores is not None and found.scores.main_metric == "rouge2" and found.scores.rows == 2
    assert found.predictions is not None and len(found.predictions.read_text().splitlines()) == 2
    assert found.truncated == "" and told == ["loading embedded:bart", "embedded:summary, validation: 2 rows"]
    plain = evaluations_as_json(settings, [found])
    assert plain["data"]["rows"] == 2 and plain["model"]["sha256"] and plain["decode"]["max_new_tokens"] == 4


@pytest.mark.parametrize(
    ("masked", "message"), [("all", "all is not a share of the tokens"), (None, "None is not a share")]
)
def test_shares_that_are_none(masked: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hbp.EvaluateSettings(model_name_or_path="embedded:bert", task_name="embedded:letters", masked=masked)
