"""Draws what training does to biases, and what tasks say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hf_bias_patch.studies.biases.arms import STUDIED
from hf_bias_patch.studies.downstream.contrasts import REMOVED, comparable, spread
from hf_bias_patch.studies.figures.biases import COLOURS, RELATIVE
from hf_bias_patch.studies.records import DriftRecord, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["drift", "lessons", "scores", "steps"]

_MARKS = "os^Dv"
_WHOLE = "tab:gray"


def steps(found: Study) -> Figure:
    """Bars: change per unit of learning rate, by direction and projection, but for rounding; a panel for each place."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    places = list(dict.fromkeys(step.place for step in found.steps))
    directions = list(dict.fromkeys(step.direction for step in found.steps))
    there = [name for name in STUDIED if any(step.projection == name for step in found.moving_steps)]
    figure = Figure(figsize=(3.2 * len(places) + 1.6, 3.4), layout="constrained")
    panels = figure.subplots(1, len(places), sharey=True, squeeze=False)[0]
    for panel, place in zip(panels, places, strict=True):
        for number, projection in enumerate(there):
            mine = [row for row in found.moving_steps if (row.place, row.projection) == (place, projection)]
            width = 0.8 / len(there)
            at = [directions.index(row.direction) + width * (number - (len(there) - 1) / 2) for row in mine]
            panel.bar(at, [row.change for row in mine], 0.9 * width, color=COLOURS[projection])
        panel.set_xticks(range(len(directions)), directions)
        panel.set_title(place)
        panel.grid(axis="y", alpha=0.3)
    if seen := [step.change for step in found.moving_steps if step.change < math.inf]:
        panels[0].set_yscale("log")
        panels[0].set_ylim(bottom=min(seen) / 5)  # the least bar has to be seen
    panels[0].set_ylabel("change of a token's last states,\nper unit of learning rate")
    keys = [Patch(color=COLOURS[name], label=name) for name in there]
    figure.legend(handles=keys, loc="outside upper center", ncols=3, fontsize="small")
    return figure


def lessons(found: Study) -> Figure:
    """What losses changed by, by step: on held-out texts, and dotted on those that are trained on."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for trained in dict.fromkeys(lesson.trained for lesson in found.lessons):
        mine = [row for row in found.lessons if row.trained == trained]
        steps, colour = [row.step for row in mine], COLOURS.get(trained, _WHOLE)
        held = [row.loss - mine[0].loss for row in mine]
        axes.plot(steps, held, "-o", color=colour, label=f"{trained}, held-out texts", markersize=4)
        fitted = [row.fitted - mine[0].fitted for row in mine]
        axes.plot(steps, fitted, ":", color=colour, label=f"{trained}, texts it trains on")
    axes.set_xlabel("steps")
    axes.set_ylabel("change of the loss (nats a token)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def drift(found: Study) -> Figure:
    """How far biases moved beside how long they were, and what that alone does; a mark for each precision."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(f"{row.place}, {row.projection}" for row in found.drifts))
    figure = Figure(figsize=(9, 1.8 + 0.3 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for number, precision in enumerate(dict.fromkeys(row.precision for row in found.drifts)):
        mine = [row for row in found.drifts if row.precision == precision]
        for axes, which in ((left, "moved"), (right, "relative")):
            _scatter(axes, mine, which, names, _MARKS[number % len(_MARKS)])
        left.plot([], [], _MARKS[number % len(_MARKS)], color=_WHOLE, label=precision)
    starts = [row.start or math.nan for row in found.drifts]
    lines = [names.index(f"{row.place}, {row.projection}") for row in found.drifts]
    left.plot(starts, lines, "|", color=_WHOLE, markersize=12, label="at the start")
    for axes, which, title in ((left, "moved", "norm of what the biases moved by"), (right, "relative", RELATIVE)):
        _log(axes, [getattr(row, which) for row in found.drifts])
        axes.set_xlabel(title)
        axes.grid(alpha=0.3)
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize="small")
    return figure


def _log(axes: Axes, values: Iterable[float]) -> None:
    """Powers of ten, where there is anything to show on them."""
    if any(0 < value < math.inf for value in values):
        axes.set_xscale("log")


def _scatter(axes: Axes, rows: Sequence[DriftRecord], which: str, names: Sequence[str], mark: str) -> None:
    sizes = [getattr(row, which) or math.nan for row in rows]
    lines = [names.index(f"{row.place}, {row.projection}") for row in rows]
    axes.scatter(sizes, lines, c=[COLOURS[row.projection] for row in rows], marker=mark, alpha=0.85)


def scores(found: Study) -> Figure:
    """Each run, and mean ± standard deviation, by what was removed; a panel for each task and way of training."""
    from matplotlib.figure import Figure

    groups = comparable(found.scores)
    across = min(3, len(groups))
    down = -(-len(groups) // across)
    figure = Figure(figsize=(3.6 * across, 2.3 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).flat
    for rows in groups:
        panel, like = next(panels), rows[0]
        names = _present(row.removed for row in rows)
        for line, name in enumerate(names):
            values = [row.value for row in rows if row.removed == name]
            mean, sd = spread(values)
            colour = COLOURS.get(name, _WHOLE)
            panel.plot(values, [line] * len(values), "o", color=colour, markersize=4, alpha=0.7)
            panel.errorbar([mean], [line], xerr=[sd or 0.0], fmt="|", color=colour, markersize=12, capsize=3)
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.set_title(f"{like.task}, {like.how}", fontsize="small")
        panel.set_xlabel(like.metric)
        panel.grid(axis="x", alpha=0.3)
    for panel in panels:
        panel.set_visible(False)
    return figure


def _present(removed: Iterable[str]) -> list[str]:
    there = set(removed)
    return [name for name in REMOVED if name in there] + sorted(there.difference(REMOVED))
