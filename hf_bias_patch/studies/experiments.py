"""The experiments on a model in memory, the most informative first."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from hf_bias_patch.studies.biases.arms import (
    Arm,
    BiasGroup,
    groups_of,
    head_arms,
    layer_arms,
    removal_arms,
    whole_arms,
)
from hf_bias_patch.studies.biases.fills import FILLS
from hf_bias_patch.studies.measuring.bench import Bench
from hf_bias_patch.studies.measuring.folds import fold
from hf_bias_patch.studies.records import ArmRecord
from hf_bias_patch.studies.runner import Experiment, Measurement, PartDone
from hf_bias_patch.studies.settings import StudySettings
from hf_bias_patch.studies.store import MeasurementStore, Outcome
from hf_bias_patch.studies.training.drift import PRECISIONS, drift
from hf_bias_patch.studies.training.single_bias_training import train_single_bias
from hf_bias_patch.studies.training.steps import Steps

__all__ = ["experiments_in_memory"]

_AT_ONCE = 24
"""Arms that are measured in one pass over the texts: what is interrupted costs no more than these."""


def experiments_in_memory(bench: Bench, settings: StudySettings) -> list[Experiment]:
    """The experiments on a model in memory, the most informative first."""
    sites = list(bench.biases.sites.values())
    groups, layers = groups_of(sites), list(layer_arms(sites))
    folds = {f"fold: {group.name}": group for group in groups}
    found = [
        _arms(bench, "all layers at once", list(whole_arms(sites, FILLS))),
        _each(bench, "biases into weights", "folds", folds, lambda *given, part_done: fold(*given)),
        _steps(bench, groups),
        _arms(bench, "layer by layer", layers),
        _removal(bench, layers),
    ]
    if settings.train_steps and bench.has_loss:
        steps = settings.train_steps
        if len(bench.inputs.rows) > 1:  # else none is left to hold out
            trained = {f"lesson: {group.projection}": group.projection for group in groups}
            train_one = partial(train_single_bias, steps=steps)
            found.append(_each(bench, "training one bias alone", "lessons", trained, train_one))
        precisions = {f"drift: {name}": name for name in PRECISIONS}
        found.append(_each(bench, "drift in training", "drifts", precisions, partial(drift, steps=steps)))
    if settings.heads:
        found.append(_arms(bench, "head by head", list(head_arms(sites, ("value", "query")))))
    return found


def _arms(
    bench: Bench, title: str, arms: Sequence[Arm], order: Callable[[MeasurementStore], Sequence[Arm]] | None = None
) -> Experiment:
    """The experiment of some arms, or of as many that `order` derives from earlier measurements."""

    def measure(chosen: Sequence[Arm], part_done: PartDone) -> list[Outcome]:
        figures = bench.measure(chosen, part_done)
        return [Outcome([_record(bench, arm, of_arm)]) for arm, of_arm in zip(chosen, figures, strict=True)]

    def measurements(store: MeasurementStore) -> list[Measurement]:
        return [Measurement(arm.name, arm) for arm in (order(store) if order else arms)]

    return Experiment(title, "rows", len(arms), measurements, measure, _AT_ONCE)


def _removal(bench: Bench, layers: Sequence[Arm]) -> Experiment:
    """Remove one bias after the other, those with the least effect by themselves first."""

    def order(store: MeasurementStore) -> list[Arm]:
        if not all(arm.name in store for arm in layers):  # the time is over: they are only named, as left out
            return unordered
        by_effect = sorted(layers, key=lambda arm: store.of(arm.name).records[0].effect)
        return list(removal_arms([arm.targets[0] for arm in by_effect]))

    unordered = list(removal_arms([arm.targets[0] for arm in layers]))
    return _arms(bench, "removal", unordered, order)


def _steps(bench: Bench, groups: Sequence[BiasGroup]) -> Experiment:
    """All groups at once, because they share one model in float64 and its gradients."""

    def measure(chosen: Sequence[BiasGroup], part_done: PartDone) -> list[Outcome]:
        def measured() -> list[Outcome]:
            steps = Steps(copy.deepcopy(bench.model).double(), bench.inputs, bench.batch_tokens, bench.seed)
            return [Outcome(steps.measure(group)) for group in chosen]

        return bench.halving(measured) if chosen else []

    measurements = [Measurement(f"step: {group.name}", group) for group in groups]
    return Experiment("steps of training", "steps", len(groups), lambda _: measurements, measure, at_once=len(groups))


def _each(bench: Bench, title: str, kind: str, named: Mapping[str, Any], one: Callable[..., list[Any]]) -> Experiment:
    """Independent measurements by their names, one after the other."""

    def measure(chosen: Sequence[Any], part_done: PartDone) -> list[Outcome]:
        return [Outcome(bench.halving(partial(measure_one, what, part_done))) for what in chosen]

    def measure_one(what: Any, part_done: PartDone) -> list[Any]:
        return one(bench.model, bench.inputs, bench.batch_tokens, what, part_done=part_done)

    measurements = list(itertools.starmap(Measurement, named.items()))
    return Experiment(title, kind, len(named), lambda _: measurements, measure)


def _record(bench: Bench, arm: Arm, figures: dict[str, float]) -> ArmRecord:
    verdicts = [bench.biases.sites[target.site].slots[target.projection].verdict for target in arm.targets]
    of_arm = (arm.name, arm.stage, arm.place, arm.projection, arm.fill, arm.layer, arm.head)
    numbers, states = sum(map(bench.biases.numbers, arm.targets)), {verdict.state for verdict in verdicts}
    return ArmRecord(*of_arm, numbers, _one_of(states), figures, _one_of({verdict.reason for verdict in verdicts}))


def _one_of(values: set[str]) -> str:
    return values.pop() if len(values) == 1 else ""
