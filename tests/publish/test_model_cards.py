"""The cards in model_cards/ are what their facts say, and their plans what this version plans."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_model_cards", ROOT / "scripts" / "make_model_cards.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_they_are_up_to_date(script: ModuleType, tmp_path: Path) -> None:
    assert script.problems(tmp_path) == []


def test_what_is_old_is_found(script: ModuleType, tmp_path: Path) -> None:
    shutil.copytree(script.TARGET, tmp_path / "cards")
    facts = tmp_path / "cards" / "bert-key-value-folded"
    certificate = json.loads((facts / "bias_patch" / "certificate.json").read_text())
    certificate["runs"][0]["deployed"][0]["error"] *= 1.5
    (facts / "bias_patch" / "certificate.json").write_text(json.dumps(certificate))
    shutil.rmtree(tmp_path / "cards" / "bart-key-value-folded")
    figure = tmp_path / "cards" / f"{script.REAL}-key-value-folded" / "bias_patch" / "norms.png"
    figure.write_bytes((facts / "bias_patch" / "norms.png").read_bytes())
    (tmp_path / "cards" / "other").mkdir()
    assert script.problems(tmp_path, tmp_path / "cards") == [
        "other is no variant of this script",
        "bert-key-value-folded: README.md is not what the facts say",
        "bart-key-value-folded is missing",
        f"{script.REAL}-key-value-folded: bias_patch/norms.png is not what the facts say",
    ]


def test_an_old_plan_is_found(script: ModuleType, tmp_path: Path) -> None:
    found = script.problems(tmp_path, fold="key,value:weight")
    assert [line for line in found if line.endswith("the plan is another one now")] == [
        f"{name}: the plan is another one now" for name in script.VARIANTS
    ]
