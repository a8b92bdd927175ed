"""The experiments on a model in memory, in the order in which they tell most."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from hf_bias_patch.attention.sites import Projection
from hf_bias_patch.studies.biases.arms import (
    Arm,
    BiasGroup,
    Target,
    groups_of,
    head_arms,
    layer_arms,
    removal_arms,
    whole_arms,
)
from hf_bias_patch.studies.biases.fills import FILLS
from hf_bias_patch.studies.measuring.bench import Bench
from hf_bias_patch.studies.measuring.folds import fold
from hf_bias_patch.studies.records import ArmRecord, DriftRecord, FoldRecord, SingleBiasRecord
from hf_bias_patch.studies.runner import Experiment, Measurement, Tell
from hf_bias_patch.studies.settings import StudySettings
from hf_bias_patch.studies.store import MeasurementStore, Outcome
from hf_bias_patch.studies.training.drift import PRECISIONS, drift
from hf_bias_patch.studies.training.single_bias_training import lesson
from hf_bias_patch.studies.training.steps import Steps

__all__ = ["experiments_in_memory"]

_AT_ONCE = 24
"""Arms that are measured in one pass over the texts: what is interrupted costs no more than these."""


def experiments_in_memory(bench: Bench, settings: StudySettings) -> list[Experiment]:
    """The experiments on a model in memory, those that tell most first."""
    sites = list(bench.biases.sites.values())
    groups, layers = groups_of(sites), list(layer_arms(sites))
    found = [
        _arms(bench, "all layers at once", list(whole_arms(sites, FILLS))),
        _folds(bench, groups),
        _steps(bench, groups),
        _arms(bench, "layer by layer", layers),
        _removal(bench, layers),
    ]
    if settings.train_steps and bench.has_loss:
        if len(bench.inputs.rows) > 1:  # else none is left to hold out
            found.append(_lessons(bench, groups, settings.train_steps))
        found.append(_drifts(bench, settings.train_steps))
    if settings.heads:
        found.append(_arms(bench, "head by head", list(head_arms(sites, ("value", "query")))))
    return found


def _arms(bench: Bench, title: str, arms: Sequence[Arm]) -> Experiment:
    return Experiment(title, "rows", len(arms), lambda _: _items(arms), _measured(bench), _AT_ONCE)


def _removal(bench: Bench, layers: Sequence[Arm]) -> Experiment:
    """One bias after the other, in the order of the least effect that each has by itself."""

    def items(store: MeasurementStore) -> list[Measurement]:
        done = all(arm.name in store for arm in layers)  # else time is over: they are named only, as left out
        order = _by_effect(layers, store) if done else [arm.targets[0] for arm in layers]
        return _items(list(removal_arms(order)))

    size = len(list(removal_arms([arm.targets[0] for arm in layers])))
    return Experiment("removal", "rows", size, items, _measured(bench), _AT_ONCE)


def _items(arms: Sequence[Arm]) -> list[Measurement]:
    return [Measurement(arm.name, arm) for arm in arms]


def _measured(bench: Bench) -> Callable[[Sequence[Arm], Tell], list[Outcome]]:
    def measure(arms: Sequence[Arm], tell: Tell) -> list[Outcome]:
        figures = bench.measure(arms, tell)
        return [Outcome([_row(bench, arm, of_arm)]) for arm, of_arm in zip(arms, figures, strict=True)]

    return measure


def _folds(bench: Bench, groups: Sequence[BiasGroup]) -> Experiment:
    def one(group: BiasGroup, tell: Tell) -> list[FoldRecord]:
        numbers = sum(map(bench.biases.numbers, group.targets))
        return [fold(bench.model, bench.inputs, bench.batch_tokens, group, numbers)]

    return _each(bench, "biases into weights", "folds", {f"fold: {group.name}": group for group in groups}, one)


def _steps(bench: Bench, groups: Sequence[BiasGroup]) -> Experiment:
    def measure(chosen: Sequence[BiasGroup], tell: Tell) -> list[Outcome]:
        def measured() -> list[Outcome]:
            steps = Steps(copy.deepcopy(bench.model).double(), bench.inputs, bench.batch_tokens, bench.seed)
            return [Outcome(steps.measure(group)) for group in chosen]

        return bench.halving(measured) if chosen else []

    items = [Measurement(f"step: {group.name}", group) for group in groups]
    return Experiment("steps of training", "steps", len(items), lambda _: items, measure, at_once=len(items))


def _lessons(bench: Bench, groups: Sequence[BiasGroup], steps: int) -> Experiment:
    def one(trained: Projection, tell: Tell) -> list[SingleBiasRecord]:
        return lesson(bench.model, bench.inputs, bench.batch_tokens, trained, steps, tell)

    trained = {f"lesson: {group.projection}": group.projection for group in groups}
    return _each(bench, "training one bias alone", "lessons", trained, one)


def _drifts(bench: Bench, steps: int) -> Experiment:
    def one(precision: str, tell: Tell) -> list[DriftRecord]:
        return drift(bench.model, bench.inputs, bench.batch_tokens, precision, steps, tell)

    return _each(bench, "drift in training", "drifts", {f"drift: {name}": name for name in PRECISIONS}, one)


def _each(
    bench: Bench, title: str, kind: str, items: Mapping[str, Any], one: Callable[[Any, Tell], list[Any]]
) -> Experiment:
    """Measurements that have nothing in common, one after the other."""

    def measure(chosen: Sequence[Any], tell: Tell) -> list[Outcome]:
        return [Outcome(bench.halving(partial(one, item, tell))) for item in chosen]

    return Experiment(title, kind, len(items), lambda _: [Measurement(*item) for item in items.items()], measure)


def _by_effect(arms: Sequence[Arm], store: MeasurementStore) -> list[Target]:
    """What single removals changed, least first."""

    return [arm.targets[0] for arm in sorted(arms, key=lambda arm: store.of(arm.name).records[0].effect)]


def _row(bench: Bench, arm: Arm, figures: dict[str, float]) -> ArmRecord:
    verdicts = [bench.biases.sites[target.site].slots[target.projection].verdict for target in arm.targets]
    return ArmRecord(
        arm.name,
        arm.stage,
        arm.place,
        arm.projection,
        arm.fill,
        arm.layer,
        arm.head,
        sum(bench.biases.numbers(target) for target in arm.targets),
        _one_of({verdict.state for verdict in verdicts}),
        figures,
        _one_of({verdict.reason for verdict in verdicts}),
    )


def _one_of(values: set[str]) -> str:
    return values.pop() if len(values) == 1 else ""
