"""What the page says above each section: what was done, and how to read it."""

from __future__ import annotations

from collections.abc import Mapping

from hf_bias_patch.studies.report.tables import Column

__all__ = [
    "COMPARISON",
    "CONTRASTS",
    "DRIFT",
    "FOLDS",
    "HEADS",
    "LESSONS",
    "PERTURBATION",
    "REMOVAL",
    "REMOVAL_WITHOUT_LOSS",
    "SCORES",
    "SCORES_SIDE_BY_SIDE",
    "STEPS",
    "VERDICTS",
    "WHERE",
]

VERDICTS = (
    "What is known of each bias before anything is measured, from how this kind of attention computes. Redundant: "
    "it does nothing, and can go. Foldable: it can be moved to where it does the same, and then go. Needed: no "
    "exact way to take it away is known. Beside it stands what was measured with that bias set to zero at all sites "
    "of the kind.",
    "A relative change is the norm of the change over the norm of what is changed. The noise floor is what rounding "
    "alone changes: the unchanged model against itself in float64. A change of a few times that is none.",
)
PERTURBATION = (
    "Each bias was replaced at all sites of a kind at once, in several ways, and the model run on the same texts. "
    "Further to the right is a larger change of the last states; the scale goes by powers of ten. What lies about "
    "the dashed line is rounding.",
)
WHERE = (
    "Each layer's bias was set to zero by itself. Brighter cells are layers where it matters more; the darkest "
    "stand for the least change that is more than rounding, and for all below it.",
)
HEADS = (
    "The maps by head are the same for one head's part of a bias at a time. They have a scale of their own: one "
    "head does less than a layer.",
)
REMOVAL = (
    "Biases were set to zero one after the other, those that matter least first, until all were gone. The curve "
    "says how much loss that costs; below the dashed line it is within the bound that was asked for.",
)
REMOVAL_WITHOUT_LOSS = (
    "Biases were set to zero one after the other, those that matter least first, until all were gone. The model has "
    "no head that predicts tokens, so that the curve shows the change of its last states.",
)
FOLDS = (
    "A bias behind a layer norm can be moved into the weight of its own map, and be zero from then on, while the "
    "model computes the same. Here that was done, and the model run: a change of a few times the noise floor is "
    "none. Where it cannot be done, the reason stands beside it.",
)
STEPS = (
    "One step of training on one projection's biases alone: along the gradient, along AdamW's first step, and along "
    "random signs as long as AdamW's. Bars show how much the step changes what the model computes, for a learning "
    "rate of one; the scale goes by powers of ten. Where there is no bar, the step does nothing but rounding: so it is "
    "with a redundant key bias, whose gradient is zero.",
)
LESSONS = (
    "The biases of one projection were trained at all sites, and nothing else, on three quarters of the texts. A curve "
    "that falls is a bias that learns; one that stays flat has nothing to learn with. Where the dotted curve falls and "
    "the other rises, what is learned is of those texts alone.",
)
DRIFT = (
    "The whole model was trained with AdamW. A filled point is how far that projection's biases moved, an open one "
    "how far weight decay alone would have moved them, and a stroke how long they were at the start. The last "
    "figure shows what these biases do to the model if they alone move as they did: a bias can go far and do "
    "nothing.",
)
SCORES = (
    "Scores with a bias removed. “As it is”: removed, then scored. “Fine-tuned”: removed, trained without it, "
    "scored. “Fine-tuned, then removed”: what was trained with all of them, scored without it. “From scratch”: never "
    "there. Points are runs, a stroke is their mean with its standard deviation, and "
    "the dashed line the mean with nothing removed. Differences in the table are to runs of the same seed.",
)
COMPARISON = (
    "Each bias was set to zero at all sites of a kind at once. Further to the right is a larger change of the last "
    "states; the scale goes by powers of ten. A stroke marks each model's noise floor: what lies about it is "
    "rounding.",
)
SCORES_SIDE_BY_SIDE = (
    "Tasks that each model was scored on, with a bias removed: as it is, after training without it, or from scratch. "
    "Differences are between runs of one model and the same seed.",
)
CONTRASTS: Mapping[str, Column] = {
    "greater_is_better": Column("greater is better"),
    "seeds": Column("seeds", "count", "training runs; 0 where nothing was trained"),
    "mean": Column("mean", "fine", "of the metric, over runs"),
    "sd": Column("± sd", "number", "standard deviation over runs"),
    "against": Column("against", "text", "what the models lack that these are held against"),
    "difference": Column("difference", "signed", "of runs of the same seed, the mean"),
    "difference_sd": Column("± sd of it", "number", "standard deviation of that difference"),
    "p": Column("p", "number", "of a two-sided paired t-test, not corrected for how many tests there are"),
}
