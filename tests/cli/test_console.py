"""Tables lose nothing where they are too wide: cells are folded, in narrow terminals and in pipes."""

from __future__ import annotations

import importlib.util
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

import hf_bias_patch
from hf_bias_patch.architecture.inspect import inspect
from hf_bias_patch.cli.console import CountBar, table
from hf_bias_patch.cli.inspect import _heads, _sites
from hf_bias_patch.cli.study_tables import arms_table
from hf_bias_patch.cli.tables import plan_lines
from tests.studies.complete import complete

DEMO = Path(__file__).parents[2] / "scripts" / "demo.py"


def printed(content: RenderableType, width: int) -> str:
    """What a console of some width shows."""
    text = io.StringIO()
    Console(file=text, width=width).print(content)
    assert all(len(line) <= width for line in text.getvalue().splitlines())
    return text.getvalue()


@pytest.mark.parametrize("width", [30, 40, 80, 160])
def test_nothing_is_cut_off(width: int) -> None:
    made = table("figure", "output", "error", numbers=("error",))
    made.add_row("algebra, float64", "encoder_last_hidden_state", "1.234567890e-123")
    text = printed(made, width)
    letters = sorted(re.sub(r"[\s─]", "", text))
    wanted = "figureoutputerror" + "algebra,float64" + "encoder_last_hidden_state" + "1.234567890e-123"
    assert letters == sorted(wanted)


@pytest.mark.parametrize("name", ["bert", "gpt2", "bart"])
@pytest.mark.parametrize("width", [60, 80])
def test_tables_of_the_commands_in_a_narrow_terminal(name: str, width: int) -> None:
    found = inspect(f"embedded:{name}")
    plan = hf_bias_patch.plan(f"embedded:{name}", fold="key,value,query:norm", max_loss=1)
    for content in (_sites(found)[0], _heads(found), *plan_lines(plan)):
        assert "…" not in printed(content, width)


def test_no_number_of_a_study_is_folded_in_80_columns() -> None:
    found = complete()
    less = {name: -value / 3 for name, value in found.floor.items()}
    text = printed(arms_table(replace(found, floor={**less, "kl": -1.15e-7, "loss_change": -1.15e-7})), 80)
    assert re.search(r"noise .* -6.7e-8 .* -1.1e-7 .* -1.1e-7", text)


def test_a_bar_of_unknown_length_claims_none() -> None:
    with CountBar() as bar:
        bar.show(0, 0, "loading")
        assert bar._progress.tasks[0].total is None
        bar.show(1, 60, "layers")
        assert bar._progress.tasks[0].total == 60


@pytest.mark.parametrize("width", [80, 160])
def test_the_summary_of_the_demo_is_whole(tmp_path: Path, width: int) -> None:
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    hf_bias_patch.patch("embedded:bart", tmp_path / "bart", fold="key,value,query")
    certificate = {"deployed": {"error": 1.0123e-06, "floor": 4.3e-07}}
    (tmp_path / "bart" / "bias_patch" / "certificate.json").write_text(json.dumps(certificate))
    text = printed(module.summary(["bart"], tmp_path), width)
    assert "…" not in text
    assert all(number in text for number in ("1.0e-06", "4.3e-07", "315,904"))
