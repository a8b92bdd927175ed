"""Scores against the libraries behind them, and against cases worked by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import sacrebleu
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.metrics import compute, metric, perplexity, sentences
from hf_bias_patch.scoring.tasks import Task, load_task

Make = Callable[..., Task]
CLASSES = ("accuracy", "f1", "matthews")
TEXTS = ("rouge1", "rouge2", "rougeL", "rougeLsum", "bleu", "chrf")


def test_by_hand_two_labels(made: Make) -> None:
    # 3 true positives, 1 false positive, 2 false negatives, 4 true negatives.
    predictions = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    references = [1, 1, 1, 0, 1, 1, 0, 0, 0, 0]
    found = compute(made("classification", metrics=CLASSES), predictions, references)
    assert found["accuracy"] == pytest.approx(70)
    assert found["f1"] == pytest.approx(100 * 2 * 3 / (2 * 3 + 1 + 2))
    assert found["matthews"] == pytest.approx(100 * (3 * 4 - 1 * 2) / math.sqrt(4 * 5 * 5 * 6))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=30))
@settings(max_examples=25)
def test_classes_as_scikit_learn_has_them(pairs: list[tuple[int, int]]) -> None:
    predictions, references = map(list, zip(*pairs, strict=True))
    accuracy = metric("accuracy").compute(predictions=predictions, references=references)["accuracy"]
    matthews = metric("matthews").compute(predictions=predictions, references=references)["matthews"]
    assert accuracy == pytest.approx(100 * sklearn.metrics.accuracy_score(references, predictions))
    many = len({*predictions, *references}) > 1  # else scikit-learn gives 0 and a warning
    expected = 100 * sklearn.metrics.matthews_corrcoef(references, predictions) if many else 0.0
    assert matthews == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30))
@settings(max_examples=25)
def test_f1_is_that_of_the_label_1(pairs: list[tuple[int, int]]) -> None:
    predictions, references = map(list, zip(*pairs, strict=True))
    both = sum(p == r == 1 for p, r in pairs)
    expected = 200 * both / (sum(predictions) + sum(references)) if both else 0.0
    assert metric("f1").compute(predictions=predictions, references=references)["f1"] == pytest.approx(expected)


def test_glue_sums_up_by_the_mean() -> None:
    found = compute(load_task("mrpc"), [1, 1, 0, 1], [1, 0, 0, 1])
    assert found == {"accuracy": 75.0, "f1": pytest.approx(80), "mean": pytest.approx(77.5)}
    assert compute(load_task("cola"), [1, 1, 1], [1, 0, 1])["matthews"] == 0.0


def test_correlations_by_hand_and_as_scipy_has_them() -> None:
    predictions, references = [1.0, 2.0, 4.0], [0.0, 1.0, 5.0]
    found = compute(load_task("stsb"), predictions, references)
    # Deviations from the means 7/3 and 2: (-4, -1, 5)/3 and (-2, -1, 3).
    assert found["pearson"] == pytest.approx(100 * (8 + 1 + 15) / math.sqrt((16 + 1 + 25) * (4 + 1 + 9)))
    assert found["spearman"] == pytest.approx(100) and found["mean"] == pytest.approx(50 + found["pearson"] / 2)
    rng = random.Random(0)
    predictions = [rng.random() for _ in range(50)]
    references = [rng.random() + value for value in predictions]
    found = compute(load_task("stsb"), predictions, references)
    assert found["pearson"] == pytest.approx(100 * scipy.stats.pearsonr(predictions, references).statistic)
    assert found["spearman"] == pytest.approx(100 * scipy.stats.spearmanr(predictions, references).statistic)


def test_fractions_are_not_cut_to_whole_numbers() -> None:
    # As whole numbers these predictions would all be 0, and have no correlation at all.
    assert compute(load_task("stsb"), [0.1, 0.2, 0.9], [1.5, 1.6, 1.7])["spearman"] == pytest.approx(100)


def test_constant_predictions_count_nothing() -> None:
    assert compute(load_task("stsb"), [2.5, 2.5], [1.0, 4.0]) == {"pearson": 0.0, "spearman": 0.0, "mean": 0.0}
    assert compute(load_task("qqp"), [0, 0], [1, 0])["f1"] == 0.0
    assert compute(load_task("qqp"), [0, 0], [0, 0]) == {"accuracy": 100.0, "f1": 0.0, "mean": 50.0}


TARGETS = [
    ["The cat sat on the mat.", "A cat was sitting on the mat."],
    ["Anna lives in Harwick. She is a baker."],
    ["It rained all day in the north."],
]
SAID = ["The cat sat on a mat.", "Anna is a baker. She lives in Harwick.", "It is raining in the north."]


def test_texts_as_sacrebleu_and_rouge_score_have_them(made: Make) -> None:
    found = compute(made("generation", metrics=TEXTS), SAID, TARGETS)
    streams = [[targets[0] for targets in TARGETS], [TARGETS[0][1], None, None]]
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(SAID, streams).score) and found["bleu"] > 5
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(SAID, streams).score)
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for name in ("rouge1", "rouge2", "rougeL"):
        best = [
            max(scorer.score(target, said)[name].fmeasure for target in targets)
            for said, targets in zip(SAID, TARGETS, strict=True)
        ]
        assert found[name] == pytest.approx(100 * sum(best) / 3)


def test_rouge_by_hand(made: Make) -> None:
    task = made("generation", metrics=("rouge1", "rouge2", "rougeL", "rougeLsum"))
    found = compute(task, ["a b c d"], [["a b d c e"]])
    # 4 words of 4 and 5 in common; 1 pair (a b) of 3 and 4; longest common run a b c or a b d, 3 words.
    assert found["rouge1"] == pytest.approx(200 * 4 / 9) and found["rouge2"] == pytest.approx(200 * 1 / 7)
    assert found["rougeL"] == found["rougeLsum"] == pytest.approx(200 * 3 / 9)


def test_rouge_lsum_goes_sentence_by_sentence(made: Make) -> None:
    task = made("generation", metrics=("rougeL", "rougeLsum"))
    found = compute(task, ["One two three. Four five six."], [["Four five six. One two three."]])
    assert found["rougeL"] == pytest.approx(50) and found["rougeLsum"] == pytest.approx(100)
    assert sentences("One. Two!  Three?\nFour 3.5 five") == "One.\nTwo!\nThree?\nFour 3.5 five"


def test_bleu_by_hand(made: Make) -> None:
    # Precisions 4/5, 3/4, 2/3, 1/2, no brevity penalty.
    found = compute(made("generation"), ["a b c d x"], [["a b c d e"]])
    assert found["bleu"] == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert compute(made("generation"), ["a b c d"], [["x y", "a b c d"]])["bleu"] == pytest.approx(100)


def test_perplexity() -> None:
    assert perplexity(10 * math.log(7), 10) == pytest.approx(7)
    assert perplexity(1e6, 1) == math.inf


def test_what_cannot_be_scored_is_refused(made: Make) -> None:
    with pytest.raises(TaskError, match="There are 1 predictions and 2 references"):
        compute(load_task("cola"), [1], [1, 0])
    with pytest.raises(TaskError, match="0 predictions"):
        compute(load_task("cola"), [], [])
    with pytest.raises(TaskError, match="not finite"):
        compute(load_task("stsb"), [math.nan, 1.0], [1.0, 2.0])


def test_nothing_is_left_behind_between_calls() -> None:
    for _ in range(2):
        assert metric("accuracy").compute(predictions=[1, 0], references=[1, 1]) == {"accuracy": 50.0}
