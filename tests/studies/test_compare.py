"""Studies of several models in one table: the command, its table and its sentences."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hf_bias_patch import compare_studies
from hf_bias_patch.cli import app
from hf_bias_patch.errors import ArgumentError, SourceError, TargetError
from hf_bias_patch.studies.records import Study
from hf_bias_patch.studies.results import write_results
from hf_bias_patch.studies.summaries.comparison import comparison_rows, model_names, sentences
from tests.studies.complete import complete, environment_in, rows


def _study(model: str, query: float = 0.05, key: float = 2e-7, value: float = 0.09) -> Study:
    return complete(model, rows=tuple(rows(1, 1, {"query": query, "key": key, "value": value})))


def _saved(folder: Path, found: Study) -> Path:
    write_results(found, environment_in(folder))
    return folder


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["study", *map(str, arguments)])


def _said(*studies: Study) -> str:
    told = {f"m{number}": study for number, study in enumerate(studies)}
    return " ".join(sentences(told, comparison_rows(told)))


@pytest.mark.parametrize(
    ("query", "value", "says"),
    [
        (0.1, 0.2, "more than removing the query bias in 3 of 6 kinds"),
        (0.2, 0.1, "less than removing the query bias in 3 of 6 kinds"),
        (0.1, 0.11, "about as much as removing the query bias in 6 of 6 kinds"),
    ],
)
def test_value_against_query(query: float, value: float, says: str) -> None:
    text = _said(_study("a", query=query, value=value), _study("b", query=1.0, value=1.0))
    assert says in text
    if "3 of 6" in says:
        assert f"{says} of attention: m0 (encoder self, decoder self, decoder cross)." in text


def test_biases_that_do_nothing_are_in_no_order() -> None:
    text = _said(_study("a", query=0.0, value=1e-7), _study("b"))
    assert "or the value bias, changes nothing but rounding in 3 of 6 kinds of attention: m0 (" in text
    assert "less than" not in text and "more than removing the query bias in 3 of 6 kinds" in text


def test_in_float64_a_last_digit_is_rounding() -> None:
    exact = replace(_study("a", key=9e-16), floor={"relative": 0.0, "loss_change": 0.0})
    assert "matters" not in _said(exact, exact)


def test_a_key_that_matters_is_named() -> None:
    text = _said(_study("a"), _study("b", key=0.03))
    assert "does nothing, whatever replaces it, in 3 of 6 kinds of attention: m0 (" in text
    assert "The key bias matters in 3 of 6 kinds of attention: m1 (" in text
    assert "matters" not in _said(_study("a"), _study("b"))
    late = list(_study("c").rows)
    at = next(number for number, row in enumerate(late) if (row.projection, row.fill) == ("key", "tens"))
    late[at] = replace(late[at], figures={**late[at].figures, "relative": 0.5})  # not zeros: tens alone matter
    assert f"matters in 1 of 6 kinds of attention: m1 ({late[at].place})" in _said(
        _study("a"), replace(_study("c"), rows=tuple(late))
    )


def test_what_can_go_and_what_cannot_be_compared() -> None:
    one, two = _study("a"), _study("b")
    text = _said(one, two)
    assert "m0: 480 of 800 query, key and value bias parameters can be zero" in text and "differ" not in text
    other = replace(two, settings=replace(two.settings, dtype="bfloat16"))
    assert "The studies differ in dtype as well as in the model" in _said(one, other)
    assert "m1 has no measured arms" in _said(one, replace(two, rows=()))
    stateless = replace(two, floor={"relative": 1e-7}, rows=tuple(
        replace(row, figures={"relative": row.figures["relative"]}) for row in two.rows
    ))  # fmt: skip
    assert "m1:" not in _said(one, stateless)
    row = comparison_rows({"x": stateless})[0]
    assert row.can_go is None and row.query_loss is None


def test_models_are_told_apart() -> None:
    folders = [Path("one"), Path("two"), Path("far/two")]
    models = ["/long/path/to/some/model", "owner/a", "owner/a"]
    assert model_names([_study(model) for model in models], folders) == [
        "some/model",
        "owner/a (two) 1",
        "owner/a (two) 2",
    ]


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    folders = [_saved(tmp_path / "a", _study("owner/one")), _saved(tmp_path / "b", _study("owner/[two]", key=0.03))]
    done = _run("compare", *folders, "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    printed = " ".join(done.output.split())
    assert "owner/one" in printed and "owner/[two]" in printed and "480 of 800" in printed
    assert "The key bias matters in 3 of 6 kinds of attention: owner/[two] (" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(f"comparison.{ending}" for ending in ("csv", "html", "png", "svg")), "comparison-scores.csv",
    }  # fmt: skip
    with open(tmp_path / "out" / "comparison.csv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 6 and float(table[0]["value"]) == 0.09 and table[3]["model"] == "owner/[two]"
    assert (
        "Scores without a bias" in printed and "Scores on tasks" in (tmp_path / "out" / "comparison.html").read_text()
    )
    with open(tmp_path / "out" / "comparison-scores.csv", encoding="utf-8", newline="") as file:
        scores = list(csv.DictReader(file))
    tuned = [
        row for row in scores if (row["how"], row["removed"], row["against"]) == ("fine-tuned", "value", "nothing")
    ]
    assert [row["model"] for row in tuned] == ["owner/one", "owner/[two]"] and float(tuned[0]["difference"]) < 0
    again = _run("compare", *folders, "--output", tmp_path / "out")
    assert isinstance(again.exception, TargetError) and "exists" in str(again.exception)
    assert _run("compare", *folders, "--output", tmp_path / "out", "--overwrite").exit_code == 0


def test_what_a_missing_library_leaves_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [_saved(tmp_path / name, _study(f"owner/{name}")) for name in "ab"]
    assert compare_studies(folders).files == []
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    found = compare_studies(folders, tmp_path / "out")
    assert found.files == ["comparison.csv", "comparison-scores.csv", "comparison.png", "comparison.svg"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(found.files)
    assert list(found.studies) == ["owner/a", "owner/b"] and "plotly" in " ".join(found.missing)


def test_what_cannot_be_compared_is_an_error(tmp_path: Path) -> None:
    one = _saved(tmp_path / "a", _study("owner/one"))
    (tmp_path / "empty").mkdir()
    for folders, error, says in (
        ([one], ArgumentError, "two studies or more"),
        ([one, tmp_path / "b" / ".." / "a"], ArgumentError, "is the same folder as"),
        ([one, tmp_path / "empty"], SourceError, "holds no study"),
    ):
        failed = _run("compare", *folders, "--output", tmp_path / "out")
        assert isinstance(failed.exception, error) and says in str(failed.exception)
        assert failed.exception.remedy and not (tmp_path / "out").exists()


def test_a_study_is_still_called_by_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = _run("--help")
    assert shown.exit_code == 0 and "--loss-bound" in shown.output and "study compare" in shown.output
    assert "[OPTIONS] " in shown.output and "DIR" in _run("compare", "--help").output
    assert _run().exit_code == 2 and "Missing argument" in _run().output
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compare").mkdir()
    for arguments in (("./compare", "--output", "out"), ("--output", "out", "compare"), ("MODEL", "--output", "out")):
        failed = _run(*arguments)  # a model, and none that can be studied
        assert isinstance(failed.exception, Exception) and "study" not in type(failed.exception).__name__.lower()
        assert not isinstance(failed.exception, ArgumentError | SystemExit), failed.output
