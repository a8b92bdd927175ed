"""Scores from answers. Every use of the library `evaluate` is in this file, and none of it needs a network.

What the numbers mean and in what unit they are: scoring/metric_info.py. Accuracy, F1 and Matthews are scikit-learn's,
Pearson and Spearman scipy's, BLEU and chrF sacrebleu's, ROUGE rouge_score's; tests hold them against these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.extra import need
from hf_bias_patch.scoring.metric_info import MEAN, METRICS
from hf_bias_patch.scoring.tasks import Task

__all__ = ["compute", "metric", "perplexity", "sentences"]

_CLASSES = ("accuracy", "f1", "matthews")
_NUMBERS = ("pearson", "spearman")
_ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def compute(task: Task, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
    """Every metric of a task, and `mean` where the task is summed up by it. Units: scoring/metric_info.py.

    A correlation or F1 that is not defined (all predictions the same, or no label 1 at all) counts 0, as on the GLUE
    leaderboard.

    Args:
        task: classification, regression or generation; for language modelling see `scoring.score`.
        predictions: numbers of labels; floats; or texts.
        references: numbers of labels; floats; or for each prediction a list of texts.

    Raises:
        TaskError: the counts differ, there are none, or a prediction is not finite.
    """
    if len(predictions) != len(references) or not len(predictions):
        raise TaskError(f"There are {len(predictions)} predictions and {len(references)} references of {task.name}")
    if task.kind == "regression" and not all(math.isfinite(value) for value in predictions):
        raise TaskError(f"A prediction for {task.name} is not finite", why="The model gives out NaN or infinity")
    scores: dict[str, float] = {}
    for name in task.metrics:
        if name not in scores:
            scores |= _compute(name, list(predictions), list(references))
    scores = {name: scores[name] for name in task.metrics}
    if task.main_metric == MEAN:
        scores[MEAN] = sum(scores.values()) / len(scores)
    return scores


def perplexity(nll: float, count: int) -> float:
    """exp of the mean negative log-likelihood; infinite where that is too large for a float.

    Args:
        nll: summed negative log-likelihood, in nats.
        count: of the units (tokens or words) that it is spread over; at least 1.
    """
    try:
        return math.exp(nll / count)
    except OverflowError:
        return math.inf


def sentences(text: str) -> str:
    """A text with one sentence a line, as ROUGE-Lsum wants it: cut at newlines, and at blanks behind `.`, `!`, `?`."""
    return "\n".join(part for line in text.splitlines() for part in re.split(r"(?<=[.!?])\s+", line.strip()) if part)


def metric(name: str) -> Any:
    """The metric as an `evaluate.Metric`, as code outside of this package takes it; it needs no network.

    Raises:
        ExtraError: `evaluate` is not installed.
        KeyError: there is no such metric.
    """
    evaluate, datasets = need("evaluate"), need("datasets")
    base: Any = evaluate.Metric
    if name in _CLASSES:
        features = dict.fromkeys(("predictions", "references"), datasets.Value("int64"))
    elif name in _NUMBERS:  # int64, the usual feature, would cut 2.7 down to 2
        features = dict.fromkeys(("predictions", "references"), datasets.Value("float64"))
    else:
        string = datasets.Value("string")
        features = {"predictions": string, "references": datasets.Sequence(string)}

    class _Metric(base):
        def _info(self) -> Any:
            what = {"description": METRICS[name].what, "citation": "", "inputs_description": ""}
            return evaluate.MetricInfo(features=datasets.Features(features), **what)

        def _compute(self, predictions: Any, references: Any) -> Any:
            return _compute(name, list(predictions), list(references))

    # `config_name` is what its base class would otherwise read off a loading script.
    return _Metric(config_name=name, keep_in_memory=True)


def _compute(name: str, predictions: list[Any], references: list[Any]) -> dict[str, float]:
    """One metric by its name; of ROUGE, all four."""
    if name in _ROUGES:
        return _rouge(predictions, references)
    compute = _class_score if name in _CLASSES else _correlation if name in _NUMBERS else _corpus_score
    return {name: compute(name, predictions, references)}


def _class_score(name: str, predictions: list[int], references: list[int]) -> float:
    sklearn = need("sklearn.metrics")
    if name == "accuracy":
        return 100 * float(sklearn.accuracy_score(references, predictions))
    if name == "f1":
        found = sklearn.f1_score(references, predictions, labels=[1], average="macro", zero_division=0.0)
        return 100 * float(found)
    if len({*predictions, *references}) < 2:
        return 0.0  # scikit-learn gives the same, and a warning
    return 100 * float(sklearn.matthews_corrcoef(references, predictions))


def _correlation(name: str, predictions: list[float], references: list[float]) -> float:
    if min(len(set(predictions)), len(set(references))) < 2:
        return 0.0
    stats = need("scipy.stats")
    function = stats.pearsonr if name == "pearson" else stats.spearmanr
    return 100 * float(function(predictions, references)[0])


def _rouge(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    """The mean over the texts; of several references, the one with the best F counts, score by score."""
    scorer = need("rouge_score.rouge_scorer").RougeScorer(list(_ROUGES), use_stemmer=True)
    sums = dict.fromkeys(_ROUGES, 0.0)
    for prediction, targets in zip(predictions, references, strict=True):
        found = scorer.score_multi([sentences(target) for target in targets], sentences(prediction))
        for score in _ROUGES:
            sums[score] += found[score].fmeasure
    return {score: 100 * total / len(predictions) for score, total in sums.items()}


def _corpus_score(name: str, predictions: list[str], references: list[list[str]]) -> float:
    sacrebleu = need("sacrebleu.metrics")
    scorer = sacrebleu.BLEU() if name == "bleu" else sacrebleu.CHRF()
    most = max(map(len, references))
    # sacrebleu takes streams: first references, second ones, …; None where a text has fewer.
    streams = [[targets[i] if i < len(targets) else None for targets in references] for i in range(most)]
    return float(scorer.corpus_score(predictions, streams).score)
