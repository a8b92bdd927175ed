"""What the scores are called, which kind of task has them, and in what unit: the one place that says so.

Every share, correlation and overlap is multiplied by 100, as the GLUE leaderboard, sacreBLEU and papers on ROUGE report
them: an accuracy of 90.6, a Matthews correlation of 52.1, a BLEU of 65.3. Losses are nats a token, and perplexities
are what they are: exp(loss).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["MEAN", "METRICS", "MetricInfo", "TaskKind", "greater_is_better", "metrics_of"]

TaskKind = Literal["classification", "regression", "language_modelling", "generation"]

MEAN = "mean"
"""The mean of a task's metrics: how GLUE sums up MRPC, QQP and STS-B."""


@dataclass(frozen=True)
class MetricInfo:
    """One score.

    Attributes:
        kinds: of the tasks that may have it.
        greater_is_better: whether a larger value is the better one.
        what: in words.
    """

    kinds: tuple[TaskKind, ...]
    greater_is_better: bool
    what: str


_CLASSES: tuple[TaskKind, ...] = ("classification",)
_NUMBERS: tuple[TaskKind, ...] = ("regression",)
_TEXTS: tuple[TaskKind, ...] = ("generation",)
_STREAMS: tuple[TaskKind, ...] = ("language_modelling",)

METRICS: dict[str, MetricInfo] = {
    "accuracy": MetricInfo(_CLASSES, True, "share of right labels, ×100"),
    "f1": MetricInfo(_CLASSES, True, "F1 of the label with number 1, ×100"),
    "matthews": MetricInfo(_CLASSES, True, "Matthews correlation, of any number of labels, ×100"),
    "pearson": MetricInfo(_NUMBERS, True, "Pearson correlation, ×100"),
    "spearman": MetricInfo(_NUMBERS, True, "Spearman rank correlation, ×100"),
    "rouge1": MetricInfo(_TEXTS, True, "ROUGE-1 F, stemmed, ×100"),
    "rouge2": MetricInfo(_TEXTS, True, "ROUGE-2 F, stemmed, ×100"),
    "rougeL": MetricInfo(_TEXTS, True, "ROUGE-L F, stemmed, ×100"),
    "rougeLsum": MetricInfo(_TEXTS, True, "ROUGE-L F of summaries, sentence by sentence, stemmed, ×100"),
    "bleu": MetricInfo(_TEXTS, True, "sacreBLEU of the corpus, 0 to 100"),
    "chrf": MetricInfo(_TEXTS, True, "chrF2 of the corpus, 0 to 100"),
    "loss": MetricInfo(_STREAMS, False, "mean negative log-likelihood of a token, in nats"),
    "perplexity": MetricInfo(_STREAMS, False, "exp of the loss, a token"),
    "word_perplexity": MetricInfo(_STREAMS, False, "exp of the negative log-likelihood, a word between blanks"),
    "masked_loss": MetricInfo(_STREAMS, False, "mean negative log-likelihood of masked tokens, in nats"),
    "masked_perplexity": MetricInfo(_STREAMS, False, "exp of the masked loss; no perplexity of the text"),
    "pseudo_perplexity": MetricInfo(_STREAMS, False, "exp of the masked loss, with one token masked at a time"),
}


def metrics_of(kind: TaskKind) -> list[str]:
    """The scores that a kind of task may have."""
    return [name for name, measure in METRICS.items() if kind in measure.kinds]


def greater_is_better(metric: str) -> bool:
    """Whether a larger value of a metric (or of `mean`) is the better one."""
    return metric == MEAN or METRICS[metric].greater_is_better
