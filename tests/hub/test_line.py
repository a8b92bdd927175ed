"""The whole line: patch, fine-tune, score, card, push, pull; in every order, and loaded by stock transformers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from hf_bias_patch.checkpoint.guards import ASSETS
from hf_bias_patch.cli import app
from hf_bias_patch.errors import CheckpointError
from tests.hub.server import Hub

BASE, NAME = "owner/base", "owner/tuned"
CARD = "---\nlicense: mit\nlanguage: [en]\ntags: [mine]\npipeline_tag: feature-extraction\n---\n# Base\n"

STRANGER = """
import sys
sys.modules["hf_bias_patch"] = None  # an import of it fails
import transformers
from transformers import AutoTokenizer, pipeline

name, auto = sys.argv[1:]
model, info = getattr(transformers, auto).from_pretrained(name, output_loading_info=True)
assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
texts = ["the garden is fine", "the old bridge is not so fine , and it is closed today"]
if auto == "AutoModelForSeq2SeqLM":
    tokenizer = AutoTokenizer.from_pretrained(name)
    model.generate(**tokenizer(texts, return_tensors="pt", padding=True), max_new_tokens=4)
else:
    task = {"AutoModelForCausalLM": "text-generation"}.get(auto, "text-classification")
    more = {"max_new_tokens": 4} if task == "text-generation" else {}
    assert len(pipeline(task, model=name)(texts, batch_size=2, **more)) == 2
"""

ADAPTER_STRANGER = """
import sys
sys.modules["hf_bias_patch"] = None  # an import of it fails
import peft, torch, transformers

inputs = torch.arange(5, 15)[None]
adapter = peft.AutoPeftModelForSequenceClassification.from_pretrained("owner/tuned", num_labels=2).eval()
merged = transformers.AutoModelForSequenceClassification.from_pretrained("run/model").eval()
with torch.no_grad():
    assert torch.allclose(adapter(inputs).logits, merged(inputs).logits, atol=1e-5)
"""

Run = Callable[..., str]


@dataclass(frozen=True)
class Kind:
    """A kind of task, and a model for it."""

    asset: str
    command: str
    task: str
    auto: str
    options: tuple[str, ...] = ()

    @property
    def tune(self) -> list[str]:
        sizes = ["--max_train_samples", "48", "--max_eval_samples", "12", "--num_train_epochs", "1", "--quiet"]
        return ["tune", self.command, "--task", self.task, *sizes, *self.options]

    @property
    def evaluate(self) -> list[str]:
        return ["--task", self.task, "--limit", "12", "--json"]


KINDS = {
    "glue": Kind("bert", "glue", "embedded:opinion", "AutoModelForSequenceClassification"),
    "lm": Kind("gpt2", "lm", "embedded:letters", "AutoModelForCausalLM"),
    "generation": Kind(
        "bart", "generation", "embedded:records", "AutoModelForSeq2SeqLM", ("--num_beams", "1", "--max_new_tokens", "8")
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, hub: Hub, tmp_path: Path) -> Kind:
    """A kind of task; its model, with a card, is on the Hub."""
    kind = KINDS[request.param]
    base = tmp_path / "base"
    base.mkdir()
    for path in (ASSETS / kind.asset).iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    (base / "README.md").write_text(CARD)
    hub.add(BASE, base)
    return kind


@pytest.fixture
def fresh(hub: Hub, tmp_path: Path) -> Run:
    """Runs Python in a process of its own, which knows the Hub and nothing of this one."""
    env = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    env |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "hf_right",
    }

    def run(*arguments: str) -> str:
        command = [sys.executable, "-W", "ignore", *arguments]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{arguments}: {done.stderr}{done.stdout}"
        return done.stdout

    return run


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hub: Hub) -> Run:
    """Runs a command in this process."""
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, f"{arguments}: {done.output}"
        return done.stdout

    return run


def _check_card(folder: Path, kind: Kind, *gone: str, base: str = BASE, identical: bool = True) -> None:
    text = (folder / "README.md").read_text()
    matter = yaml.safe_load(text.split("---\n")[1])
    assert (matter["base_model"], matter["base_model_relation"]) == (BASE, "finetune")
    assert matter["license"] == "mit" and matter["language"] == ["en"] and "mine" in matter["tags"]
    assert matter.get("pipeline_tag") != "feature-extraction" and matter["library_name"] == "transformers"
    assert f"on the task {kind.task}" in text and "bit-identical" in text
    opening = text.partition("made by hf_bias_patch")[0]
    assert all(projection in opening for projection in gone)
    record = json.loads((folder / "bias_patch" / "training.json").read_text())
    assert record["passed"] and record["base"]["name"] == base and bool(record["kept"]["identical"]) >= identical


def test_patch_tune_push_in_fresh_processes(fresh: Run, tmp_path: Path, kind: Kind) -> None:
    ours = ("-m", "hf_bias_patch")
    fresh(*ours, "patch", BASE, "variant", "--fold", "key,value")
    fresh(*ours, *kind.tune, "--model", "variant", "--output", "run", "--train", "query")
    scores = fresh(*ours, "evaluate", "run/model", *kind.evaluate)
    (tmp_path / "scores.json").write_text(scores)
    fresh(*ours, "card", "run/model", "--results", "scores.json")
    _check_card(tmp_path / "run" / "model", kind, "key", "value")
    fresh(*ours, "push", "run/model", NAME)
    fresh(*ours, "pull", NAME, "pulled")
    again = fresh(*ours, "evaluate", "pulled", *kind.evaluate)
    assert json.loads(again)["metrics"] == json.loads(scores)["metrics"]
    assert "PASSED" in fresh(*ours, "verify", "pulled", "--against", "variant")
    fresh("-c", STRANGER, NAME, kind.auto)


def test_tune_patch_push(here: Run, tmp_path: Path, kind: Kind) -> None:
    here(*kind.tune, "--model", BASE, "--output", "run", "--train", "query,value")
    here("patch", "run/model", "variant", "--fold", "key,value")
    here("card", "variant")
    _check_card(tmp_path / "variant", kind, "key", "value")
    here("push", "variant", NAME)
    here("pull", NAME, "pulled")
    here("verify", "pulled")
    here("revert", "pulled", "back")
    assert "PASSED" in here("verify", "back", "--against", BASE)


def test_folds_given_to_tune(here: Run, tmp_path: Path, kind: Kind) -> None:
    here(*kind.tune, "--model", BASE, "--output", "run", "--fold", "key", "--freeze", "query", "--train", "value")
    here("card", "run/model")
    _check_card(tmp_path / "run" / "model", kind, "key")
    here("push", "run/model", NAME)
    here("pull", NAME, "pulled")
    assert "PASSED" in here("verify", "pulled")


@pytest.mark.parametrize("kind", ["glue"], indirect=True)
def test_adapters(here: Run, fresh: Run, hub: Hub, tmp_path: Path, kind: Kind) -> None:
    here(*kind.tune, "--model", BASE, "--output", "run", "--train", "lora", "--learning_rate", "0.01")
    scores = json.loads(here("evaluate", "run/adapter", *kind.evaluate))
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    here("card", "run/adapter", "--results", "scores.json")
    matter = yaml.safe_load((tmp_path / "run" / "adapter" / "README.md").read_text().split("---\n")[1])
    assert (matter["base_model"], matter["base_model_relation"], matter["library_name"]) == (BASE, "adapter", "peft")
    here("push", "run/adapter", NAME)
    config = json.loads(hub.files(NAME)["adapter_config.json"])
    assert config["base_model_name_or_path"] == BASE and len(config["revision"]) == 40
    here("pull", NAME, "pulled")
    assert json.loads(here("evaluate", "pulled", *kind.evaluate))["metrics"] == scores["metrics"]
    fresh("-c", ADAPTER_STRANGER)
    (tmp_path / "run" / "adapter" / "adapter_model.safetensors").write_bytes(b"other")
    done = CliRunner().invoke(app, ["push", "run/adapter", NAME])
    assert isinstance(done.exception, CheckpointError) and "training record is of another" in str(done.exception)


@pytest.mark.parametrize("kind", ["glue"], indirect=True)
def test_a_base_that_is_named_gives_its_licence(here: Run, tmp_path: Path, kind: Kind) -> None:
    shutil.copytree(tmp_path / "base", tmp_path / "local", ignore=shutil.ignore_patterns("README.md"))
    here(*kind.tune, "--model", "local", "--output", "run", "--train", "value")
    here("card", "run/model")
    assert "license" not in yaml.safe_load((tmp_path / "run" / "model" / "README.md").read_text().split("---\n")[1])
    here("card", "run/model", "--base-model", BASE)
    _check_card(tmp_path / "run" / "model", kind, base="local")
    here("push", "run/model", NAME)


@pytest.mark.parametrize("kind", ["lm"], indirect=True)
def test_all_of_a_model_with_tied_weights_after_another_training(here: Run, tmp_path: Path, kind: Kind) -> None:
    here(*kind.tune, "--model", BASE, "--output", "first", "--train", "value")
    here(*kind.tune, "--model", "first/model", "--output", "second", "--train", "all")
    here("card", "second/model")
    _check_card(tmp_path / "second" / "model", kind, identical=False)
    text = (tmp_path / "second" / "model" / "README.md").read_text()
    assert f"fine-tuned on the task {kind.task}, then on the task {kind.task}" in text
    assert "PASSED" in here("verify", "second/model")


@pytest.mark.parametrize("kind", ["glue"], indirect=True)
def test_a_drop_before_the_training_is_said(here: Run, tmp_path: Path, kind: Kind) -> None:
    here(*kind.tune, "--model", BASE, "--output", "run", "--drop", "value", "--train", "query")
    here("card", "run/model")
    text = (tmp_path / "run" / "model" / "README.md").read_text()
    assert text.split("-->")[1].strip().startswith("**Needed biases were taken away")
    done = CliRunner().invoke(app, ["push", "run/model", NAME])
    assert isinstance(done.exception, CheckpointError) and "--allow-lossy" in str(done.exception)
    here("push", "run/model", NAME, "--allow-lossy")


@pytest.mark.parametrize("kind", ["glue"], indirect=True)
def test_what_transformers_left_in_the_cache_is_completed(fresh: Run, here: Run, tmp_path: Path, kind: Kind) -> None:
    here(*kind.tune, "--model", BASE, "--output", "run", "--train", "query")
    here("push", "run/model", NAME)
    fresh("-c", STRANGER, NAME, kind.auto)  # fetches what it needs, and no more
    fresh("-m", "hf_bias_patch", "pull", NAME, "pulled")
    for name in ("README.md", "bias_patch/training.json"):
        assert (tmp_path / "pulled" / name).is_file()
