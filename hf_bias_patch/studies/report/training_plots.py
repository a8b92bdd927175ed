"""Figures of what training does to biases, as Plotly takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hf_bias_patch.studies.biases.arms import STUDIED
from hf_bias_patch.studies.downstream.contrasts import REMOVED, comparable, spread
from hf_bias_patch.studies.records import DriftRecord, ScoreRecord, SingleBiasRecord, StepRecord, Study
from hf_bias_patch.studies.report.plots import (
    RELATIVE,
    SYMBOLS,
    Key,
    Plot,
    floor_line,
    hover,
    log_axis,
    low_end,
    projections,
    safe,
    slug,
)

__all__ = ["drift", "drift_effect", "lessons", "scores", "steps"]

_PRECISIONS = (("circle-open", "open"), ("diamond", "diamond"), ("square", "square"), ("x", "cross"))


_SCORE_KEYS = (
    Key("a run", "circle", "ink"),
    Key("mean ± standard deviation", "stroke", "ink"),
    Key("mean with nothing removed", "dash", "muted"),
)


def steps(found: Study) -> Iterator[Plot]:
    """For each place: what a step along each direction changes, bars by projection; none where it is rounding."""
    title = "change of a token's last states,<br>per unit of learning rate"
    axis = log_axis(title, [step.change for step in found.moving_steps])
    axis["range"][0] -= 1  # a bar begins at the end of the axis, and the least of them must be seen
    for place in dict.fromkeys(step.place for step in found.steps):
        mine = [step for step in found.moving_steps if step.place == place]
        directions = list(dict.fromkeys(step.direction for step in found.steps))
        data = [_bars([step for step in mine if step.projection == name], name) for name in STUDIED]
        layout = {
            "barmode": "group",
            "xaxis": {"type": "category", "categoryarray": [safe(direction) for direction in directions]},
            "yaxis": axis,
        }
        keys = [Key(key.name, "square", key.colour) for key in projections(step.projection for step in mine)]
        yield Plot(f"steps-{slug(place)}", place, [bars for bars in data if bars["x"]], layout, 310, keys)


def _bars(rows: Sequence[StepRecord], projection: str) -> dict[str, Any]:
    return {
        "type": "bar",
        "name": projection,
        "x": [safe(row.direction) for row in rows],
        "y": [row.change for row in rows],
        "hovertext": [_hover(asdict(row), ("place", "projection", "direction")) for row in rows],
        "hoverinfo": "none",
        "marker": {"color": f"${projection}"},
    }


def _hover(record: Mapping[str, Any], title: Sequence[str]) -> str:
    """All of a record: what says which it is as the title."""
    figures = {name: value for name, value in record.items() if name not in title and value is not None}
    return hover(", ".join(str(record[name]) for name in title), figures)


def lessons(found: Study) -> Iterator[Plot]:
    """What losses changed by, two lines for each projection that trained: held-out texts, and those it trains on."""
    data, keys = [], []
    for trained in dict.fromkeys(lesson.trained for lesson in found.lessons):
        mine = [row for row in found.lessons if row.trained == trained]
        data += [_curve(mine, trained, "loss", "solid"), _curve(mine, trained, "fitted", "dot")]
        keys.append(Key(trained, "line", _colour(trained)))
    layout = {
        "xaxis": {"title": {"text": "steps"}},
        "yaxis": {"title": {"text": "change of the loss<br>(nats a token)"}, "automargin": True},
    }
    if data:
        keys += [Key("held-out texts", "line", "ink"), Key("texts it trains on", "dash", "ink")]
        yield Plot("lessons", "", data, layout, 340, keys)


def _curve(rows: Sequence[SingleBiasRecord], trained: str, which: str, dash: str) -> dict[str, Any]:
    colour = f"${_colour(trained)}"
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": safe(trained),
        "x": [row.step for row in rows],
        "y": [getattr(row, which) - getattr(rows[0], which) for row in rows],
        "hovertext": [_hover(asdict(row), ("trained",)) for row in rows],
        "hoverinfo": "none",
        "marker": {"color": colour, "symbol": SYMBOLS.get(trained, "circle"), "size": 7},
        "line": {"color": colour, "dash": dash, "width": 2},
    }


def drift(found: Study) -> Iterator[Plot]:
    """For each precision: how far biases moved, beside how long they were."""
    axis = log_axis("Euclidean norm", [size for row in found.drifts for size in (row.start, row.moved, row.decay)])
    keys = [
        *(
            Key(f"moved by, {key.name}", "circle", key.colour)
            for key in projections(r.projection for r in found.drifts)
        ),
        Key("by decay alone", "open", "muted"),
        Key("at the start", "stroke", "muted"),
    ]
    for number, precision in enumerate(dict.fromkeys(row.precision for row in found.drifts)):
        mine = [row for row in found.drifts if row.precision == precision]
        colours = [f"${row.projection}" for row in mine]
        bold = {"line": {"width": 2}, "color": "$muted"}
        data = [
            _sizes(mine, "start", low_end(axis), {"symbol": "line-ns-open", "size": 13, **bold}),
            _sizes(mine, "decay", low_end(axis), {"symbol": "circle-open", "size": 10, **bold}),
            _sizes(mine, "moved", low_end(axis), {"symbol": "circle", "size": 10, "color": colours}),
        ]
        layout = {"xaxis": axis, "yaxis": _lines_of(mine)}
        yield Plot(f"drift-{number}", precision, data, layout, 84 + 26 * len(mine), keys)


def _line_of(row: DriftRecord) -> str:
    return safe(f"{row.place}, {row.projection}")


def _lines_of(rows: Sequence[DriftRecord]) -> dict[str, Any]:
    return {"type": "category", "categoryarray": list(dict.fromkeys(_line_of(row) for row in reversed(rows)))}


def _sizes(rows: Sequence[DriftRecord], which: str, least: float, marker: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": which,
        "x": [max(getattr(row, which), least) for row in rows],
        "y": [_line_of(row) for row in rows],
        "hovertext": [_hover(asdict(row), ("precision", "place", "projection")) for row in rows],
        "hoverinfo": "none",
        "marker": marker,
    }


def drift_effect(found: Study) -> Iterator[Plot]:
    """What the drift of one projection's biases alone changes, by precision."""
    if not found.drifts:
        return
    axis = log_axis(RELATIVE, [row.relative for row in found.drifts])
    data, keys = [], []
    for number, precision in enumerate(dict.fromkeys(row.precision for row in found.drifts)):
        mine = [row for row in found.drifts if row.precision == precision]
        symbol, mark = _PRECISIONS[number % len(_PRECISIONS)]
        marker = {"symbol": symbol, "size": 10, "color": [f"${row.projection}" for row in mine]}
        data.append(_sizes(mine, "relative", low_end(axis), marker))
        keys.append(Key(precision, mark, "ink"))
    lines = len({_line_of(row) for row in found.drifts})
    layout = {"xaxis": axis, "yaxis": _lines_of(found.drifts)}
    yield Plot("drift-effect", "what these moves alone do", data, layout, 84 + 26 * lines, keys)


def scores(found: Study) -> Iterator[Plot]:
    """For each task and way of training: each run's score, and mean ± standard deviation, by what was removed."""
    for number, mine in enumerate(comparable(found.scores)):
        removed = [name for name in REMOVED if any(row.removed == name for row in mine)]
        more = list(dict.fromkeys(row.removed for row in mine if row.removed not in removed))
        lines = [*removed, *more]
        whole = [row.value for row in mine if row.removed == "nothing"]
        data = [_means(mine, lines), _runs(mine)]
        layout = {
            "xaxis": {"title": {"text": safe(mine[0].metric)}, "automargin": True},
            "yaxis": {"type": "category", "categoryarray": [safe(name) for name in reversed(lines)]},
            "shapes": [floor_line("x", spread(whole)[0])] if whole else [],
        }
        better = "more" if mine[0].greater_is_better else "less"
        title = f"{mine[0].task}, {mine[0].how}: {mine[0].metric} ({better} is better)"
        yield Plot(f"scores-{number}", title, data, layout, 84 + 34 * len(lines), _SCORE_KEYS)


def _colour(projection: str) -> str:
    return projection if projection in SYMBOLS else "ink"


def _runs(rows: Sequence[ScoreRecord]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "each run",
        "x": [row.value for row in rows],
        "y": [safe(row.removed) for row in rows],
        "hovertext": [_hover(asdict(row), ("task", "how", "removed")) for row in rows],
        "hoverinfo": "none",
        "marker": {"color": [f"${_colour(row.removed)}" for row in rows], "size": 9, "symbol": "circle"},
    }


def _means(rows: Sequence[ScoreRecord], lines: Sequence[str]) -> dict[str, Any]:
    means, spreads = [], []
    for name in lines:
        mean, sd = spread([row.value for row in rows if row.removed == name])
        means.append(mean)
        spreads.append(sd or 0.0)
    words = [
        hover(f"{name} removed", {"mean": mean, "standard deviation": sd})
        for name, mean, sd in zip(lines, means, spreads, strict=True)
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "mean ± standard deviation",
        "x": means,
        "y": [safe(name) for name in lines],
        "error_x": {"type": "data", "array": spreads, "color": "$ink", "thickness": 1.5, "width": 5},
        "hovertext": words,
        "hoverinfo": "none",
        "marker": {"color": "$ink", "size": 14, "symbol": "line-ns-open", "line": {"width": 3}},
    }
