"""What the page says above each section: its title, what was done, and how to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hf_bias_patch.studies.report.tables import Column

__all__ = ["ABOUT", "CONTRASTS", "HEADS", "REMOVAL_WITHOUT_LOSS", "TITLES"]

TITLES: Mapping[str, str] = {
    "verdicts": "Verdicts",
    "perturbation": "Biases replaced",
    "where": "Where it matters",
    "removal": "How much can be removed",
    "folds": "Biases folded into weights",
    "steps": "What a step of training does",
    "lessons": "One projection's biases trained",
    "drift": "How biases move while everything trains",
    "scores": "Scores on tasks",
    "comparison": "Each bias at zero",
    "scores of models": "Scores on tasks",
}
ABOUT: Mapping[str, Sequence[str]] = {
    "verdicts": (
        "What is known of each bias before anything is measured, from how this kind of attention computes. Redundant: "
        "it does nothing and can be removed. Foldable: it can be moved to another parameter, where it does the same. "
        "Needed: no exact way to remove it is known. Beside the verdict stands what was measured with that bias set to "
        "zero at all sites of the kind.",
        "A relative change is the norm of the change over the norm of what is changed. The noise floor is what "
        "rounding alone changes: the unchanged model against itself in float64. A change of a few times the floor is "
        "rounding.",
    ),
    "perturbation": (
        "Each bias was replaced at all sites of a kind at once, in several ways, and the model run on the same texts. "
        "Further to the right is a larger change of the last hidden states, on a scale of powers of ten. Marks near "
        "the dashed line are rounding.",
    ),
    "where": (
        "The bias of one layer at a time was set to zero. Brighter cells are layers where it matters more; the darkest "
        "stand for the least change that is more than rounding, and for everything below it.",
    ),
    "removal": (
        "Biases were set to zero one after the other, those with the least effect first, until all were zero. The "
        "curve shows how much loss that costs; below the dashed line it is within the bound that was asked for.",
    ),
    "folds": (
        "A bias after a layer norm can be moved into the weight of its own map and be zero from then on, while the "
        "model computes the same. Here that was done, and the model run: a change of a few times the noise floor is "
        "rounding. Where it cannot be done, the table gives the reason.",
    ),
    "steps": (
        "One step of training on one projection's biases alone: along the gradient, along AdamW's first step, and "
        "along random signs as long as AdamW's. Bars show how much the step changes what the model computes, for a "
        "learning rate of one, on a scale of powers of ten. Where there is no bar, the step changes nothing but "
        "rounding; so it is with a redundant key bias, whose gradient is zero.",
    ),
    "lessons": (
        "The biases of one projection were trained at all sites, and nothing else, on three quarters of the texts. A "
        "curve that falls is a bias that learns; one that stays flat cannot learn. Where the dotted curve falls and "
        "the other rises, what is learned holds for those texts only.",
    ),
    "drift": (
        "The whole model was trained with AdamW. A filled point is how far that projection's biases moved, an open one "
        "how far weight decay alone would have moved them, and a stroke their norm at the start. The last figure shows "
        "what these biases do to the model if they alone move as they did: a bias can move far and change nothing.",
    ),
    "scores": (
        "Scores with a bias removed. “As it is”: removed, then scored. “Fine-tuned”: removed, trained without it, "
        "scored. “Fine-tuned, then removed”: trained with all biases, scored without this one. “From scratch”: trained "
        "without it from random weights. Points are runs, a stroke is their mean with its standard deviation, and the "
        "dashed line the mean with nothing removed. Differences in the table are between runs of the same seed.",
    ),
    "comparison": (
        "Each bias was set to zero at all sites of a kind at once. Further to the right is a larger change of the "
        "last hidden states, on a scale of powers of ten. A stroke marks each model's noise floor: marks near it are "
        "rounding.",
    ),
    "scores of models": (
        "Tasks that each model was scored on, with a bias removed: as it is, after training without it, or from "
        "scratch. Differences are between runs of one model and the same seed.",
    ),
}
HEADS = (
    "The maps by head show one head's part of a bias at a time. They have a scale of their own, because one head does "
    "less than a layer."
)
REMOVAL_WITHOUT_LOSS = (
    "Biases were set to zero one after the other, those with the least effect first, until all were zero. The model "
    "has no head that predicts tokens, so the curve shows the change of its last hidden states."
)
CONTRASTS: Mapping[str, Column] = {
    "greater_is_better": Column("greater is better"),
    "seeds": Column("seeds", "count", "training runs; 0 where nothing was trained"),
    "mean": Column("mean", "fine", "of the metric, over runs"),
    "sd": Column("± sd", "number", "standard deviation over runs"),
    "against": Column("against", "text", "the bias that the other models lack"),
    "difference": Column("difference", "signed", "mean difference between runs of the same seed"),
    "difference_sd": Column("± sd of it", "number", "standard deviation of that difference"),
    "p": Column("p", "number", "of a two-sided paired t-test, not corrected for the number of tests"),
}
