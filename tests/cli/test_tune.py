"""`tune` and `compare` as a person types them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from hf_bias_patch.cli import main
from tests.tuning.jobs import alone

_SHORT = ["--max-train-samples", "16", "--max-eval-samples", "8", "--epochs", "1"]
_GLUE = ["tune", "glue", "--model", "embedded:bert", "--task", "embedded:opinion", *_SHORT]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Exit code, stdout and stderr of a command."""

    def run(*words: str) -> tuple[int, str, str]:
        alone()
        monkeypatch.setattr("sys.argv", ["hf-bias-patch", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def test_a_run_says_what_trains_and_what_came_out(typed: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, _ = typed(*_GLUE, "--output", str(tmp_path / "run"))
    assert code == 0
    assert "bert.encoder.layer.*.attention.self.value.bias" in out and "classifier.weight" in out
    assert "4,546 of 243,842 parameters train (1.86 %), 4,290 of them the head's" in out
    assert "accuracy" in out and "results.json" in out


def test_json_is_json(typed: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, _ = typed(*_GLUE, "--output", str(tmp_path / "run"), "--json")
    found = json.loads(out)
    assert code == 0 and found == json.loads((tmp_path / "run" / "results.json").read_text())


def test_options_win_over_the_file(typed: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"train": ["query", "value"], "seed": 3, "num_train_epochs": 9}))
    code, _, err = typed(*_GLUE, "--output", str(tmp_path / "run"), "--config", str(file), "--seed", "5", "--quiet")
    assert code == 0, err
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert (settings["train"], settings["seed"], settings["num_train_epochs"]) == ("query,value", 5, 1.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train", "key"], "key bias is redundant"),
        (["--train", "values"], "'values' is not known"),
        (["--config", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["--task", "sst-2"], "no task 'sst-2'"),
        (["--epochs", "0"], "--epochs: 0.0 is not above 0"),
        (["--colour", "red"], "No such option"),
    ],
)
def test_refusals(typed: Callable[..., tuple[int, str, str]], tmp_path: Path, words: list[str], said: str) -> None:
    code, _, err = typed(*_GLUE, "--output", str(tmp_path / "run"), *words)
    assert code == 2 and said in " ".join(err.split()) and "Traceback" not in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [["tune"], ["tune", "glue"], ["tune", "lm"], ["tune", "generation"], ["compare"]])
def test_help(typed: Callable[..., tuple[int, str, str]], words: list[str]) -> None:
    code, out, _ = typed(*words, "--help")
    assert code == 0 and "Usage" in out


@pytest.mark.parametrize("command", ["tune glue", "tune lm", "tune generation", "compare", "evaluate", "study"])
def test_options_are_shown_with_dashes_and_each_once(typed: Callable[..., tuple[int, str, str]], command: str) -> None:
    _, out, _ = typed(*command.split(), "--help")
    shown = re.findall(r"--[a-z][a-z_-]*", out)
    assert len(shown) > 15 and not [option for option in shown if "_" in option]
    old = {"--out", "--output-dir", "--limit", "--file", "--num-train-epochs", "--task-name", "--tasks"}
    assert not old & set(shown)


_OLD = {
    "tune": "tune glue --model_name_or_path embedded:bert --task_name embedded:opinion --max_train_samples 8 "
    "--max_eval_samples 8 --num_train_epochs 1 --no_train_head --output_dir",
    "compare": "compare --model-name-or-path embedded:bert --task-name embedded:opinion --max_train_samples 16 "
    "--max_eval_samples 8 --num-train-epochs 1 --arms none --seeds 1 --learning_rates 1e-3 --out",
    "study": "study --model embedded:bert --count 2 --train_steps 0 --tasks embedded:opinion --max_train_samples 16 "
    "--limit 8 --from_scratch --seeds 1 --num_train_epochs 1 --out",
    "evaluate": "evaluate --model_name_or_path=embedded:gpt2 --task_name embedded:letters --limit 2 "
    "--batch_tokens 500 --predict",
}


@pytest.mark.parametrize("command", _OLD)
def test_the_words_of_run_glue_and_of_before_are_understood(
    typed: Callable[..., tuple[int, str, str]], command: str, tmp_path: Path
) -> None:
    code, out, err = typed(*_OLD[command].split(), str(tmp_path / "out"))
    if command == "evaluate":
        assert code == 2 and "has no predictions to write" in err
    else:
        assert code == 0 and "Written" in out, err


def test_a_file_may_have_any_of_these_words(typed: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    file, given = tmp_path / "run.yaml", {"output": str(tmp_path / "run"), "max-train-samples": 16, "epochs": 1}
    file.write_text(yaml.safe_dump({"model_name_or_path": "embedded:bert", "task": "embedded:opinion", **given}))
    code, _, err = typed("tune", "glue", "--max-eval-samples", "8", "--config", str(file))
    assert code == 0, err
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["num_train_epochs"] == 1


@pytest.mark.parametrize("command", [("tune", "lm"), ("compare",), ("evaluate", "embedded:bert")])
def test_what_is_required_is_named(typed: Callable[..., tuple[int, str, str]], command: tuple[str, ...]) -> None:
    code, _, err = typed(*command)
    assert code == 2 and "missing" in err and ("--task" if command[0] != "tune" else "--output") in err


def _default(kind: type[BaseModel], name: str | None) -> Any:
    field = kind.model_fields.get(name or "")
    return field.default if field else None


def test_every_setting_is_an_option() -> None:
    from hf_bias_patch.cli.tune import command
    from hf_bias_patch.tuning.task_settings import KINDS

    group = command()
    for name, kind in KINDS.items():
        options = {parameter.name for parameter in group.commands[name].params}
        assert set(kind.model_fields) <= options and "config" in options
        assert all(parameter.help for parameter in group.commands[name].params)
        on = [parameter for parameter in group.commands[name].params if _default(kind, parameter.name) is True]
        assert on and all(parameter.secondary_opts for parameter in on)  # they can be switched off


def test_compare(typed: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    given = ["compare", "--model", "embedded:bert", "--task", "embedded:opinion", *_SHORT]
    more = ["--arms", "none", "--seeds", "1", "--learning-rates", "1e-3", "--output", str(tmp_path / "arms")]
    code, out, err = typed(*given, *more)
    assert code == 0, err
    assert "embedded:opinion" in out and "±" in out
    assert "embedded:opinion: 16 training samples (16 of 3,000 rows), 8 to validate on" in err
    assert "none: rate-0.001 (run 1 of 2)" in err and "none: seed-1 (run 2 of 2)" in err
    assert (tmp_path / "arms" / "compare.csv").read_text().startswith("task,arm,")
