"""The tables of what stock transformers does are those that the scripts make of the installed one."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hf_bias_patch.architecture.stock import entry, named_in

SCRIPTS = Path(__file__).parents[2] / "scripts"
TABLES = ("stock_biases", "stock_configs", "stock_parts")
SOME = ("bert", "internlm3", "opt", "qwen2_moe", "swin", "vit", "whisper")
"""Types with switches of every sort, and a staged one."""


@pytest.fixture
def script(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(SCRIPTS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield importlib.import_module(request.param)
    for name in (request.param, "stock_tables"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("table", TABLES)
def test_they_are_of_this_version(table: str) -> None:
    text = resources.files("hf_bias_patch.architecture").joinpath(f"{table}.toml").read_text("utf-8")
    assert f"# Made from transformers {transformers.__version__}.\n" in text, "run `make tables`"
    assert len(named_in(table)) > 400, "vacuous"


@pytest.mark.parametrize("script", ["make_stock_biases"], indirect=True)
def test_what_is_read_is_what_is_measured(script: ModuleType) -> None:
    with mock.patch("hf_bias_patch.architecture.unread.entry", return_value={}):
        measured = {model_type: script.measured(model_type)[model_type] for model_type in SOME}
    assert measured == {model_type: entry("stock_biases", model_type) for model_type in SOME}, "run `make tables`"


@pytest.mark.parametrize("script", ["make_stock_configs"], indirect=True)
def test_configs_are_as_their_classes_have_them(script: ModuleType) -> None:
    some = [*SOME, "bloom", "clip", "gpt2", "llava", "qwen2_vl", "voxtral"]
    made = {model_type: script.facts_of(CONFIG_MAPPING[model_type]) for model_type in some}
    assert made == {model_type: entry("stock_configs", model_type) for model_type in some}, "run `make tables`"
