"""Scores from answers. Every use of the library `evaluate` is in this file, and none of it needs a network.

What the numbers mean and in what unit they are: scoring/metric_info.py. Accuracy, F1 and Matthews are scikit-learn's,
Pearson and Spearman scipy's, BLEU and chrF sacrebleu's, ROUGE rouge_score's; tests hold them against these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.extra import need
from hf_bias_patch.scoring.metric_info import MEAN
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
        raise TaskError(f"{len(predictions)} predictions stand against {len(references)} references of {task.name}")
    if task.kind == "regression" and not all(math.isfinite(value) for value in predictions):
        raise TaskError(f"A prediction for {task.name} is not finite", why="The model gives out NaN or infinity")
    scores: dict[str, float] = {}
    for name in task.metrics:
        if name not in scores:
            scores |= metric(name).compute(predictions=list(predictions), references=list(references))
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


@cache
def metric(name: str) -> Any:
    """The `evaluate.Metric` of that name. One of `rouge1`, `rouge2`, `rougeL`, `rougeLsum` computes all four.

    Raises:
        ExtraError: `evaluate` is not installed.
        KeyError: there is no such metric.
    """
    make = dict.fromkeys(_CLASSES, _classes) | dict.fromkeys(_NUMBERS, _numbers) | dict.fromkeys(_ROUGES, _rouge)
    make |= {"bleu": _corpus, "chrf": _corpus}
    return make[name](name)


def _metric(name: str, features: Any, answer: Any, library: str) -> Any:
    """An `evaluate.Metric` that keeps what it is given in memory, and computes by `answer`."""
    evaluate, datasets = need("evaluate"), need("datasets")
    base: Any = evaluate.Metric
    info = evaluate.MetricInfo(
        description=f"{name}, by {library}", citation="", features=datasets.Features(features), inputs_description=""
    )

    class _Metric(base):
        def _info(self) -> Any:
            return info

        def _compute(self, predictions: Any, references: Any) -> Any:
            return answer(list(predictions), list(references))

    # `config_name` is what its base class would otherwise read off a loading script.
    return _Metric(config_name=name, keep_in_memory=True)


def _classes(name: str) -> Any:
    sklearn = need("sklearn.metrics")
    number = need("datasets").Value("int64")

    def answer(predictions: list[int], references: list[int]) -> dict[str, float]:
        if name == "accuracy":
            value = sklearn.accuracy_score(references, predictions)
        elif name == "f1":
            value = sklearn.f1_score(references, predictions, labels=[1], average="macro", zero_division=0.0)
        elif len({*predictions, *references}) < 2:
            value = 0.0  # scikit-learn gives the same, and a warning
        else:
            value = sklearn.matthews_corrcoef(references, predictions)
        return {name: 100 * float(value)}

    return _metric(name, {"predictions": number, "references": number}, answer, "scikit-learn")


def _numbers(name: str) -> Any:
    stats = need("scipy.stats")
    number = need("datasets").Value("float64")  # int64, the usual feature, would cut 2.7 down to 2

    def answer(predictions: list[float], references: list[float]) -> dict[str, float]:
        if min(len(set(predictions)), len(set(references))) < 2:
            return {name: 0.0}
        function = stats.pearsonr if name == "pearson" else stats.spearmanr
        return {name: 100 * float(function(predictions, references)[0])}

    return _metric(name, {"predictions": number, "references": number}, answer, "scipy")


def _texts() -> dict[str, Any]:
    datasets = need("datasets")
    return {"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}


def _rouge(name: str) -> Any:
    scorer = need("rouge_score.rouge_scorer").RougeScorer(list(_ROUGES), use_stemmer=True)

    def answer(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        """The mean over the texts; of several references, the one with the best F counts, score by score."""
        sums = dict.fromkeys(_ROUGES, 0.0)
        for prediction, targets in zip(predictions, references, strict=True):
            found = scorer.score_multi([sentences(target) for target in targets], sentences(prediction))
            for score in _ROUGES:
                sums[score] += found[score].fmeasure
        return {score: 100 * total / len(predictions) for score, total in sums.items()}

    return _metric(name, _texts(), answer, "rouge_score")


def _corpus(name: str) -> Any:
    sacrebleu = need("sacrebleu.metrics")
    scorer = sacrebleu.BLEU() if name == "bleu" else sacrebleu.CHRF()

    def answer(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        most = max(map(len, references))
        # sacrebleu takes streams: first references, second ones, …; None where a text has fewer.
        streams = [[targets[i] if i < len(targets) else None for targets in references] for i in range(most)]
        return {name: float(scorer.corpus_score(predictions, streams).score)}

    return _metric(name, _texts(), answer, "sacrebleu")
