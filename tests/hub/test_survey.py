"""A survey: many models of a Hub, read without downloading, kept as they come, drawn and counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from hf_bias_patch import inspect, survey
from hf_bias_patch.cli import app
from hf_bias_patch.errors import RecipeError, SourceError, TargetError, UnreachableError
from hf_bias_patch.surveying.record import SurveyedModel, read_models
from hf_bias_patch.surveying.summary import by_family, draw, write_parquet
from hf_bias_patch.surveying.survey import find_models, read_ids
from tests.hub.server import Fault, Hub

Saved = Callable[..., Path]


@pytest.fixture
def full(hub: Hub, saved: Saved, tmp_path: Path) -> Hub:
    """A Hub with four models, one of which is of an architecture that nobody knows."""
    for name, folder in (
        ("a/bert", saved("bert")),
        ("a/bert-2", saved("bert", shard="20KB")),
        ("b/gpt2", saved("gpt2")),
    ):
        hub.add(name, folder)
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "config.json").write_text('{"model_type": "nobody-knows"}')
    (strange / "model.safetensors").write_bytes((saved("bert") / "model.safetensors").read_bytes())
    hub.add("b/strange", strange)
    return hub


NAMES = ["a/bert", "b/gpt2", "a/bert-2", "b/strange", "b/gone", "a/bert"]


def _survey(out: Path, ids: Sequence[str] = NAMES) -> dict[str, SurveyedModel]:
    return {model.model: model for model in survey(out, ids=ids).models}


def test_each_model_is_told_once(full: Hub, saved: Saved, tmp_path: Path) -> None:
    found = _survey(tmp_path / "out")
    assert sorted(found) == sorted(set(NAMES))
    assert "nobody-knows" in found["b/strange"].problem and "b/gone" in found["b/gone"].problem
    assert not any(model.passes for model in found.values())
    here = inspect(saved("bert"))
    assert found["a/bert"].commit == full.repos["a/bert"].refs["main"]
    assert sum(bias["parameters"] for bias in found["a/bert"].biases) == here.bias_parameters
    norms = [bias["norm"] for bias in found["a/bert"].biases]
    assert norms == [here.values[site.name, p].norm for site in here.sites for p in site.slots]
    assert [model for model in read_models(tmp_path / "out") if model.model == "a/bert"] == [found["a/bert"]]


def test_it_goes_on_where_it_stopped(full: Hub, tmp_path: Path) -> None:
    out = tmp_path / "out"
    full.fail("/api/models/b/gpt2", Fault(status=503))
    first = _survey(out)
    assert first["b/gpt2"].passes and "503" in first["b/gpt2"].problem
    asked = len(full.requests)
    second = _survey(out)
    assert not second["b/gpt2"].problem and second["b/gpt2"].biases
    assert all("b/gpt2" in request.path for request in full.requests[asked:])
    assert {name: model for name, model in second.items() if name != "b/gpt2"} == {
        name: model for name, model in first.items() if name != "b/gpt2"
    }


def test_a_line_that_was_cut_short_is_asked_again(full: Hub, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _survey(out, ["a/bert"])
    path = out / "models.jsonl"
    whole = path.read_text()
    path.write_text(whole + whole[:100])
    assert [model.model for model in read_models(out)] == ["a/bert"]
    _survey(out, ["a/bert", "b/gpt2"])
    assert [json.loads(line)["model"] for line in path.read_text().splitlines()] == ["a/bert", "b/gpt2"]


def test_what_is_none_of_ours_stays(full: Hub, tmp_path: Path) -> None:
    (tmp_path / "models.jsonl").write_text("my notes\nand more\n")
    with pytest.raises(TargetError, match="was not written by a survey"):
        _survey(tmp_path, ["a/bert"])
    assert (tmp_path / "models.jsonl").read_text() == "my notes\nand more\n" and not full.requests


def test_ids_are_read(tmp_path: Path) -> None:
    path = tmp_path / "ids"
    path.write_text("# mine\n\na/b  # why\n c/d@main \n")
    assert read_ids(path) == ["a/b", "c/d@main"]
    path.write_text("# none\n")
    for bad in (path, tmp_path / "gone"):
        with pytest.raises(SourceError):
            read_ids(bad)


def test_models_are_found(full: Hub) -> None:
    assert find_models("a", None, 5) == ["a/bert", "a/bert-2"]
    assert find_models(None, "gpt", 5) == ["b/gpt2"] and find_models(None, "b", 1) == ["a/bert"]
    with pytest.raises(SourceError, match="no such models"):
        find_models("nobody", None, 5)


def test_a_hub_that_cannot_be_asked_is_no_missing_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UnreachableError, match="cannot be asked for the models of 'google-bert'") as caught:
        find_models("google-bert", None, 5)
    assert "network" in str(caught.value) and "folder" not in str(caught.value)


def _model(model: str, family: str, key: str, norm: float | None) -> SurveyedModel:
    bias = {"reason": "", "dtype": "F32", "parameters": 4, "site": "encoder.0.self"}
    return SurveyedModel(
        model,
        family=family,
        biases=(
            bias | {"projection": "key", "verdict": key, "norm": norm},
            bias | {"projection": "value", "verdict": "foldable", "norm": 9.0},
        ),
    )


def test_families_are_summed_up(tmp_path: Path) -> None:
    models = [
        _model("a", "bert", "redundant", 1.0),
        _model("b", "bert", "redundant", 3.0),
        _model("c", "bert", "redundant", None),
        _model("d", "qwen2", "needed", 5.0),
        SurveyedModel("e", problem="gone"),
        SurveyedModel("f", family="none"),
    ]
    bert, none, qwen2 = by_family(models)
    assert (bert.family, bert.models, bert.with_key, bert.redundant, bert.removable, bert.norm) == (
        "bert",
        3,
        3,
        3,
        12,
        2,
    )
    assert (qwen2.with_key, qwen2.redundant, qwen2.removable, qwen2.norm) == (1, 0, 0, None)
    assert (none.family, none.models, none.with_key) == ("none", 1, 0)
    write_parquet(models, tmp_path / "c.parquet")
    rows = parquet.read_table(tmp_path / "c.parquet").to_pylist()
    assert len(rows) == 8 and rows[0]["norm"] == 1.0 and rows[4]["norm"] is None and rows[0]["projection"] == "key"
    assert draw(models, tmp_path / "c.png") and (tmp_path / "c.png").stat().st_size > 10_000
    assert not draw([SurveyedModel("f", family="none")], tmp_path / "none.png") and not (tmp_path / "none.png").exists()


def test_on_the_command_line(full: Hub, tmp_path: Path) -> None:
    ids, out = tmp_path / "ids", tmp_path / "out"
    ids.write_text("\n".join(NAMES))
    done = CliRunner().invoke(app, ["survey", str(out), "--ids", str(ids)])
    assert done.exit_code == 0, done.output
    for text in ("bert", "gpt2", "b/gone", "could not be read: 2", "looked at: 3"):
        assert text in done.output
    assert {path.name for path in out.iterdir()} == {"models.jsonl", "survey.parquet", "survey.png"}
    asked = len(full.requests)
    for name in ("survey", "census"):
        again = CliRunner().invoke(app, [name, str(out), "--ids", str(ids), "--json"])
        assert json.loads(again.stdout)[0]["family"] in ("bert", "gpt2") and len(full.requests) == asked
        assert ("is called `survey` now" in again.stderr) is (name == "census")
    for arguments in ([], ["--ids", str(ids), "--author", "a"]):
        assert isinstance(CliRunner().invoke(app, ["survey", str(out), *arguments]).exception, RecipeError)


def test_a_function_does_what_the_command_does(full: Hub, tmp_path: Path) -> None:
    counts: list[int] = []
    seen: list[str] = []
    found = survey(
        tmp_path / "out", author="a", announce=counts.append, progress=lambda model: seen.append(model.model)
    )
    assert counts == [2] and sorted(seen) == [model.model for model in sorted(found.models, key=lambda one: one.model)]
    assert found.families == tuple(by_family(found.models)) and found.families[0].family == "bert"
    assert found.files == ("models.jsonl", "survey.parquet", "survey.png") and found.path == tmp_path / "out"
    (tmp_path / "ids").write_text("b/gpt2\n")
    assert [model.model for model in survey(tmp_path / "out", ids=tmp_path / "ids").models] == ["b/gpt2"]
