"""What a study found, as plain records that the other modules write, draw and summarise."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hf_bias_patch.scoring.metric_info import greater_is_better
from hf_bias_patch.studies.settings import StudySettings

__all__ = [
    "NOISE",
    "ArmRecord",
    "DriftRecord",
    "FoldRecord",
    "ScoreRecord",
    "SingleBiasRecord",
    "StepRecord",
    "Study",
    "scores_of",
]

NOISE = 8.0
"""Times the noise floor up to which a change may be rounding: each arm rounds anew, and so does the floor's run."""


@dataclass(frozen=True)
class ArmRecord:
    """One arm and its effect.

    Attributes:
        stage, place, projection, fill, layer, head: of the arm.
        numbers: how many bias parameters it changed.
        verdict: of the bias, where all of them have the same.
        figures: see `effects.Effect.figures`.
        reason: of the verdict, where all of them have the same.
    """

    name: str
    stage: str
    place: str
    projection: str
    fill: str
    layer: int | None
    head: int | None
    numbers: int
    verdict: str
    figures: Mapping[str, float]
    reason: str = ""

    @property
    def effect(self) -> float:
        """The figure that orders arms: the size of the change of the loss, or of the hidden states without one."""
        return abs(self.figures["loss_change"]) if "loss_change" in self.figures else self.figures["relative"]

    def plain(self) -> dict[str, Any]:
        """As one flat record."""
        found = asdict(self)
        figures = found.pop("figures")
        return {**found, **figures}


@dataclass(frozen=True)
class FoldRecord:
    """One projection's biases folded into their weights (identity 3 of docs/theory.md).

    Attributes:
        place, projection: as of an arm.
        numbers: bias parameters that went.
        refused: why it cannot be done; empty where it was.
        relative: change of the last hidden states over their norm; 0 where it was refused.
    """

    place: str
    projection: str
    numbers: int
    refused: str
    relative: float


@dataclass(frozen=True)
class StepRecord:
    """What one step of training on one projection's biases does to the model, in float64.

    Attributes:
        place, projection, numbers: as of an arm.
        direction: `gradient` (plain descent: the step is the learning rate times the gradient), `AdamW` (its first
            step: the learning rate times the gradient's signs) or `random signs` (as long as AdamW's, anywhere).
        gradient: norm of the gradient of the loss, in nats a token; 0 for random signs.
        change: norm of the change of a token's last hidden states, the root of the mean square over tokens, per unit of
            learning rate.
        loss_change: in nats a token, per unit of learning rate; below 0 is better. None for a model without a loss.
    """

    place: str
    projection: str
    numbers: int
    direction: str
    gradient: float
    change: float
    loss_change: float | None


@dataclass(frozen=True)
class SingleBiasRecord:
    """The losses while only one projection's biases train.

    Attributes:
        trained: `query`, `key` or `value`; of all sites.
        numbers: that train.
        learning_rate: of AdamW, constant.
        step: steps done.
        fitted: loss on the texts that it trains on, in nats a token.
        loss: on held-out texts, in nats a token.
        relative: change of the last hidden states on held-out texts since step 0, over their norm.
    """

    trained: str
    numbers: int
    learning_rate: float
    step: int
    fitted: float
    loss: float
    relative: float


@dataclass(frozen=True)
class DriftRecord:
    """How far one projection's biases moved while the whole model trained with AdamW.

    Attributes:
        precision: `float32`, `bfloat16 mixed` (weights in float32) or `bfloat16`.
        place, projection, numbers: as of an arm.
        learning_rate, weight_decay, steps: of the training.
        gradient: norm of the gradient, the mean over steps.
        moved: norm of what the biases moved by.
        start: norm of the biases before.
        decay: norm of what weight decay alone would have moved them by.
        straight: `moved` over the length of the path: 1 for a straight line, near 0 for a walk that leads nowhere.
        relative: change of the last hidden states over their norm, when these biases alone move as they did.
    """

    precision: str
    place: str
    projection: str
    numbers: int
    learning_rate: float
    weight_decay: float
    steps: int
    gradient: float
    moved: float
    start: float
    decay: float
    straight: float
    relative: float


@dataclass(frozen=True)
class ScoreRecord:
    """A score on a task with a bias removed, or with all of them.

    Attributes:
        task, metric: which; a classifier's, a language model's or a generator's.
        greater_is_better: of the metric.
        how: `as it is` (removed, then scored), `fine-tuned` (removed, trained without it, scored), `fine-tuned, then
            removed`, or `from scratch`.
        removed: `query`, `key`, `value`, or `nothing`.
        seed: of the training run; None without one.
        value: of the metric.
    """

    task: str
    metric: str
    greater_is_better: bool
    how: str
    removed: str
    seed: int | None
    value: float


def scores_of(
    task: str, how: str, removed: str, seed: int | None, metrics: Mapping[str, float], main: str
) -> Iterator[ScoreRecord]:
    """All metrics of one measurement, the main one first."""
    for metric in dict.fromkeys((main, *metrics)):
        yield ScoreRecord(task, metric, greater_is_better(metric), how, removed, seed, metrics[metric])


@dataclass(frozen=True)
class Study:
    """The records of a study.

    Attributes:
        settings: of the study.
        model_type: of the model.
        commit: of the model, if it was read from the Hub.
        floor: figures of rounding alone: the model against itself in float64.
        rows: the arms, in the order in which they were measured.
        left_out: names of measurements for which the budget did not suffice.
        texts, tokens, truncated: what it ran on, and how many texts were cut.
        notes: what a reader should know.
        folds, steps, lessons, drifts, scores: of the further experiments; empty where they were not made.
    """

    settings: StudySettings
    model_type: str
    commit: str | None
    floor: Mapping[str, float]
    rows: tuple[ArmRecord, ...]
    left_out: tuple[str, ...]
    texts: int
    tokens: int
    truncated: int
    notes: tuple[str, ...]
    folds: tuple[FoldRecord, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    lessons: tuple[SingleBiasRecord, ...] = ()
    drifts: tuple[DriftRecord, ...] = ()
    scores: tuple[ScoreRecord, ...] = ()

    @property
    def measure(self) -> str:
        """The name of the figure that orders arms: the change of the loss, where there is one."""
        return "loss_change" if "loss_change" in self.floor else "relative"

    @property
    def rounding(self) -> float:
        """Relative change of the last hidden states by rounding alone: that of the noise floor; in float64, whose
        floor is zero because it is compared with itself, the machine epsilon."""
        return max(self.floor.get("relative", 0.0), sys.float_info.epsilon)

    @property
    def moving_steps(self) -> tuple[StepRecord, ...]:
        """Steps that change more than rounding: a millionth of the largest change along the same direction."""
        largest: dict[str, float] = {}
        for step in self.steps:
            largest[step.direction] = max(step.change, largest.get(step.direction, 0.0))
        return tuple(step for step in self.steps if step.change > 1e-6 * largest[step.direction])
