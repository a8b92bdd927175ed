"""What is said of scores follows the numbers, and turns with them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hf_bias_patch.studies.records import ScoreRecord, scores_of
from hf_bias_patch.studies.summaries.scores import score_summary

HOW = "fine-tuned"
NOTHING, KEY = (80.0, 70.0, 60.0), (80.0, 70.0, 60.0)


def said(*, query: Sequence[float], value: Sequence[float], metric: str = "accuracy", whole: Sequence[float] = NOTHING,
         how: str = HOW) -> str:  # fmt: skip
    arms = {"nothing": whole, "query": query, "key": whole, "value": value}
    scores: list[ScoreRecord] = []
    for removed, values in arms.items():
        for seed, number in enumerate(values, 1):
            seed_of = None if how == "as it is" else seed
            scores += scores_of("cola", how, removed, seed_of, {"loss": 1.0, metric: number}, metric)
    return " ".join(score_summary(scores))


def test_what_the_paper_says() -> None:
    text = said(query=(79.5, 70.5, 60.0), value=(77.0, 66.0, 57.0))
    assert text == (
        "On cola, fine-tuned (accuracy 70.00 ± 10.00 with every bias, 3 seeds), the model without its query bias is "
        "equal up to rounding; without its key bias equal up to rounding; without its value bias worse by 3.33 ± 0.58 "
        "(p = 0.0099). Without its value bias the model is worse on cola, fine-tuned, than without its query bias, by "
        "3.33 ± 1.04 (p = 0.031): as the paper says."
    )


def test_the_other_way_round() -> None:
    text = said(value=(79.0, 70.5, 60.0), query=(77.0, 66.0, 57.0))
    assert "without its query bias is worse by 3.33" in text
    assert "value bias the model is better on cola, fine-tuned, than without its query bias" in text
    assert "(p = 0.049): against what the paper says." in text


def test_of_a_perplexity_less_is_better() -> None:
    text = said(metric="perplexity", query=(80.0, 70.0, 60.0), value=(83.0, 74.0, 63.0))
    assert "without its value bias worse by 3.333 ± 0.5774 (p = 0.0099)" in text and "as the paper says" in text
    text = said(metric="perplexity", query=(80.0, 70.0, 60.0), value=(77.0, 66.0, 57.0))
    assert "without its value bias better by 3.333" in text and "against what the paper says" in text


def test_what_the_seeds_do_not_tell() -> None:
    text = said(query=(79.0, 71.0, 59.0), value=(84.0, 66.0, 58.0))
    assert "These seeds do not show" in text and "the paper says" not in text


@pytest.mark.parametrize(
    ("how", "says"), [(HOW, "With one seed no test is possible"), ("as it is", "Nothing was trained")]
)
def test_without_a_test(how: str, says: str) -> None:
    text = said(how=how, whole=(80.0,), query=(79.997,), value=(79.0,))
    assert says in text and "p =" not in text and "the paper" not in text and "±" not in text
    assert "without its query bias is worse by 0.003" in text and "without its value bias worse by 1.00" in text


def test_nothing_is_said_of_nothing() -> None:
    assert not list(score_summary([])) and not list(
        score_summary([ScoreRecord("cola", "f1", True, HOW, "nothing", 1, 5.0)])
    )
