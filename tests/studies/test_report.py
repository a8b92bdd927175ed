"""What a study's page says, without a browser."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from hf_bias_patch.errors import ExtraError
from hf_bias_patch.studies.figures.study_figures import figures_of, layers, steps
from hf_bias_patch.studies.figures.to_matplotlib import COLOURS, draw, write_pictures
from hf_bias_patch.studies.figures.to_plotly import plotly_panel
from hf_bias_patch.studies.number_formats import fine, number, percent, signed
from hf_bias_patch.studies.records import ArmRecord, DriftRecord, Study
from hf_bias_patch.studies.report.study import page_of, write_report
from hf_bias_patch.studies.report.tables import Column, cell, table_of
from hf_bias_patch.studies.results import tables_of
from hf_bias_patch.studies.summaries.single_study import summary
from tests.studies.complete import HOSTILE, complete, environment_in
from tests.studies.complete import rows as rows_of

EVERY = ("rows", "folds", "steps", "lessons", "drifts", "scores")
NONE: dict[str, Any] = {name: () for name in EVERY}
TOLD = {
    "rows": {"verdicts", "perturbation", "where", "removal"}, "folds": {"folds"}, "steps": {"steps"},
    "lessons": {"lessons"}, "drifts": {"drift"}, "scores": {"scores"},
}  # fmt: skip


def _html(found: Study, tmp_path: Path) -> str:
    folder = environment_in(tmp_path / "study")
    return (folder / write_report(found, folder)[0]).read_text("utf-8")


@pytest.mark.parametrize("only", EVERY)
def test_a_section_for_each_experiment_that_was_made(only: str) -> None:
    whole = complete()
    found = replace(whole, **{**NONE, only: getattr(whole, only)})
    sections = page_of(found, {}).sections
    assert {section.name for section in sections} == TOLD[only]
    for section in sections:
        assert section.about and section.tables and all(table.rows for table in section.tables)


def test_a_study_of_nothing_is_a_page_all_the_same(tmp_path: Path) -> None:
    text = _html(replace(complete(), **NONE, notes=()), tmp_path)
    assert "Nothing was measured" in text and len(text) < 100_000  # nothing to draw, and no library to draw it


def test_every_table_holds_every_record() -> None:
    found = complete()
    tables = [table for section in page_of(found, {}).sections for table in section.tables]
    records = sum(map(len, tables_of(found).values()))
    assert sum(len(table.rows) for table in tables) == 9 + records  # 9 verdicts


def _coloured(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _coloured(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_coloured(part) for part in value]
    return "#123456" if isinstance(value, str) and re.fullmatch(r"\$[a-z]+", value) else value


def test_plotly_knows_all_that_it_is_given() -> None:
    panels = [panel for section in page_of(complete(), {}).sections for panel in section.panels]
    assert len({panel.name for panel in panels}) == len(panels) >= 15
    for panel in panels:
        drawn = plotly_panel(panel)
        go.Figure(_coloured(drawn))  # ValueError for what it does not know
        assert any(trace["hovertext"] for trace in drawn["data"])


def test_the_same_study_is_the_same_page(tmp_path: Path) -> None:
    text = _html(complete(), tmp_path / "one")
    assert text == _html(complete(), tmp_path / "two")
    assert text.count("plotly.js v") == 1 and len(text) < 8_000_000
    for sentence in summary(complete()):
        assert sentence in text.replace("&#39;", "'")


class _Tags(HTMLParser):
    """Counts elements, and collects what lies in scripts of data."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.counts: dict[str, int] = {}
        self.data, self._in = "", False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self._in = ("type", "application/json") in attrs

    def handle_data(self, data: str) -> None:
        if self._in:
            self.data += data

    def handle_endtag(self, tag: str) -> None:
        self._in = False


def _tags(text: str) -> _Tags:
    made = _Tags()
    made.feed(text)
    return made


def test_no_name_becomes_a_tag(tmp_path: Path) -> None:
    plain, hostile = complete(), complete(HOSTILE)
    hostile = replace(
        hostile,
        notes=(HOSTILE,),
        model_type=HOSTILE,
        rows=tuple(replace(row, place=row.place and HOSTILE) for row in plain.rows),
        scores=tuple(replace(score, task=HOSTILE, metric=HOSTILE) for score in plain.scores),
        drifts=tuple(replace(row, precision=HOSTILE) for row in plain.drifts),
    )
    text = _html(hostile, tmp_path)
    found = _tags(text)
    assert found.counts["script"] == 3 and "b" not in found.counts
    for plot in json.loads(found.data).values():
        for trace in plot["data"]:
            del trace["hovertext"]  # shown as plain text
        assert "</script>" not in json.dumps(plot)


def test_what_is_no_number_is_null_in_figures_and_last_in_tables(tmp_path: Path) -> None:
    whole = complete()
    odd = [
        replace(row, figures={**row.figures, "relative": value, "loss_change": value})
        for row, value in zip(whole.rows[:3], (math.nan, math.inf, 0.0), strict=True)
    ]
    found = replace(whole, rows=(*odd, *whole.rows[3:]))
    page = page_of(found, {})
    about = " ".join(next(section for section in page.sections if section.name == "perturbation").about)
    assert "2 of 72 changes are not finite" in about and "exactly 0" in about
    plots = json.loads(_tags(_html(found, tmp_path)).data)  # NaN and Infinity are no JSON
    assert None in plots["perturbation-encoder-self"]["data"][0]["x"]
    assert cell(math.nan, "number") == ("NaN", "") and cell(math.inf, "number") == ("∞", "Infinity")
    assert cell(None, "count") == ("", "")


@pytest.mark.parametrize(
    ("reads", "value", "text"),
    [
        (number, 0.08175794, "0.0818"),
        (number, 1.8619535e-7, "1.86e−7"),
        (number, 2e-7, "2e−7"),
        (number, 439098.2, "439,098"),
        (number, -0.5, "−0.5"),
        (number, 0.0, "0"),
        (number, 3.2e8, "3.2e8"),
        (number, -math.inf, "−∞"),
        (fine, 0.99966, "0.99966"),
        (fine, 2.0313, "2.0313"),
        (signed, 0.00156, "+0.00156"),
        (signed, -0.0012, "−0.0012"),
        (percent, 0.98187, "98.19 %"),
    ],
)
def test_numbers_read_well(reads: Any, value: float, text: str) -> None:
    assert reads(value) == text


def test_a_long_table_is_folded_and_new_columns_are_shown() -> None:
    table = table_of([{"name": "x", "number of cats": 1 + at, "odd": 0.5} for at in range(100)], "Cats")
    assert table.folded and [column.kind for column in table.columns] == ["count", "number"]
    assert table.columns[0] == Column("number of cats", "count")


def test_every_experiment_is_drawn_as_a_picture(tmp_path: Path) -> None:
    names = ("perturbation", "layers", "heads", "removal", "steps", "lessons", "drift", "scores")
    written = write_pictures(figures_of(complete()), tmp_path)
    assert written == [f"{name}.{ending}" for name in names for ending in ("png", "svg")]
    assert all((tmp_path / name).stat().st_size > 5_000 for name in written)


def test_the_page_and_the_pictures_show_the_same_marks() -> None:
    from matplotlib.collections import PathCollection

    for figure in figures_of(complete()):
        picture = draw(figure)
        for panel, axes in zip(figure.panels, picture.axes, strict=False):
            data, layout = plotly_panel(panel).values()
            shown = [trace["x"] for trace in data if "z" not in trace]
            shown += [[value for value in row if value is not None] for row in data[0].get("z", ())]
            drawn = [part.get_offsets() for part in axes.collections if isinstance(part, PathCollection)]
            drawn += [line.get_xdata() for line in axes.lines if line.get_marker() in ("o", "D", "s")]
            drawn += [axes.patches, *(image.get_array().compressed() for image in axes.images)]
            assert sum(map(len, drawn)) == sum(map(len, shown)) > 0, panel.name
            assert axes.get_title() == panel.title
            assert (axes.get_xscale() == "log") == (layout["xaxis"].get("type") == "log")


def test_zeros_can_be_drawn(tmp_path: Path) -> None:
    nothing = DriftRecord("float32", "encoder self", "key", 8, 1e-3, 0.0, 1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    found = complete()
    figures = {**found.rows[0].figures, "relative": 0.0}
    row: ArmRecord = replace(found.rows[0], figures=figures)
    floor = {**found.floor, "relative": 0.0}
    found = replace(found, drifts=(nothing,), rows=(row,), floor=floor, steps=tuple(
        replace(step, change=0.0) for step in found.steps
    ))  # fmt: skip
    write_pictures(figures_of(found), tmp_path)
    assert "drift-effect" in _html(found, tmp_path)


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("jinja2", "plotly.offline"):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, name, None)
            with pytest.raises(ExtraError, match=r"hf_bias_patch\[study\]"):
                _html(complete(), tmp_path)


def test_the_legend_has_the_colours_of_the_bars() -> None:
    from matplotlib.colors import to_rgba

    picture = draw(steps(complete()))
    (legend,) = picture.legends
    told = {text.get_text(): line.get_color() for text, line in zip(legend.texts, legend.legend_handles, strict=True)}
    assert told == {name: COLOURS[name] for name in ("query", "value")}  # a key's step does nothing
    drawn = {bar.get_facecolor() for axes in picture.axes for bar in axes.patches}
    assert drawn == {to_rgba(COLOURS[name]) for name in ("query", "value")}


@pytest.mark.parametrize("size", [0.0, 0.1])
def test_rounding_takes_no_part_of_the_scale_of_layers(size: float) -> None:
    found = complete()
    rows = rows_of(sizes={"query": size, "key": 1e-8, "value": 2 * size})
    described = layers(replace(found, rows=tuple(rows)))
    image = draw(described).axes[0].images[0]
    assert image.norm.vmin >= 8 * found.rounding and image.norm.vmax >= 2 * image.norm.vmin
    shades = image.cmap(image.norm(image.get_array()))
    assert (shades[1] == image.cmap(0.0)).all() and (shades[2, 0] == shades[1, 0]).all() == (size == 0)


def test_a_table_shows_what_went_and_figures_before_reasons() -> None:
    page = page_of(complete(), {})
    columns = {section.name: [column.label for column in section.tables[0].columns] for section in page.sections}
    (table,) = next(section.tables for section in page.sections if section.name == "removal")
    assert columns["removal"][-1] == "removed now" and columns["verdicts"][-1] in ("reason", "loss change")
    assert table.rows[0][-1].text.startswith("encoder self key")
