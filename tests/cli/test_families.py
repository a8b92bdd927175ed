"""`families`: the support_table, its page, and the check of table against numbers."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hf_bias_patch.architecture.family import model_types
from hf_bias_patch.architecture.family_files import drafted, text_of
from hf_bias_patch.architecture.support_table import support_table
from hf_bias_patch.cli import app

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["families", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def printed_cells(*names: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    """(model type, stack, kind) → cells."""
    code, out = run(*names, "--json")
    assert code == 0
    return {
        (name, entry["stack"], entry["kind"]): entry["cells"]
        for entry in json.loads(out)["sites"]
        for name in entry["model_types"]
    }


def test_the_matrix_says_what_the_facts_say() -> None:
    cells = {key[0]: found for key, found in printed_cells("bert", "gpt_neox", "llama").items() if key[2] == "self"}
    bert, neox, llama = cells["bert"], cells["gpt_neox"], cells["llama"]
    assert bert["key"]["verdict"] == "redundant" and bert["value"]["folds"] == {"output": "", "weight": ""}
    assert neox["key"]["verdict"] == "foldable" and neox["key"]["closed"] == ["rotary"]
    assert "rotary positions" in neox["key"]["folds"]["nothing"] and neox["key"]["folds"]["weight"] == ""
    assert llama["query"]["verdict"] == "needed" and "no layer norm" in llama["query"]["reason"]


def test_every_model_type_is_in_the_matrix() -> None:
    code, out = run("--json")
    found = json.loads(out)
    named = {name for entry in found["sites"] + found["towers"] for name in entry["model_types"]}
    assert "mamba" in found["without_attention"] and not named & set(found["without_attention"])
    named |= set(found["without_attention"])
    assert code == 0 and named == set(model_types()) and len(named) > 5


def test_the_table_is_printed_without_torch() -> None:
    code = "import sys; from hf_bias_patch.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "families", "bert"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "redundant" in done.stdout and done.stdout.strip().endswith("False")


def page_script() -> Any:
    """The script that writes the documents, as a module."""
    spec = importlib.util.spec_from_file_location("make", ROOT / "scripts" / "make_families_doc.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_up_to_date() -> None:
    module = page_script()
    assert (ROOT / "docs" / "families.md").read_text("utf-8") == module.text(), "run scripts/make_families_doc.py"
    page = (ROOT / "docs" / "verdicts.md").read_text("utf-8")
    assert page == module.verdicts(page), "run scripts/make_families_doc.py"
    assert "| → own weight | redundant | → output bias" in page.partition(module.BEGIN)[2].partition(module.END)[0]
    assert set(module.WELL_KNOWN) <= set(model_types())
    assert "| bert" in run("bert", "--markdown")[1]


def test_rows_of_one_type_are_told_apart() -> None:
    overview, (entries, _) = page_script().overview, support_table()
    rows = {name: [row.split("|")[1] for row in overview(entries, [name]).splitlines()[2:]] for name in model_types()}
    assert all(len(set(found)) == len(found) for found in rows.values())
    assert rows["gemma4_text"][1:] == [
        " gemma4_text (layers without a value map) ",
        " gemma4_text (layers without a key and value map) ",
    ]


def test_an_unknown_type_is_named_with_its_neighbours() -> None:
    with pytest.raises(Exception, match=r"'bertt'.*Close to it: .*bert"):
        run("bertt")
    with pytest.raises(Exception, match="'bertt'"):
        run("bertt", "--check")


def test_a_check_agrees_where_the_table_is_right() -> None:
    code, out = run("--check", "bert", "gpt2", "--jobs", "2")
    assert code == 0 and "bert: 6 agreed" in out and "gpt2: 6 agreed" in out and "0 wrong" in out


def test_a_check_fails_where_the_table_is_wrong() -> None:
    with drafted("gpt_neox", text_of("gpt_neox").replace('traps = [{trap = "rotary"}]\n', "")):
        code, out = run("--check", "gpt_neox", "--json")
    found, *published = json.loads(out)
    assert {one["checkpoint"] for one in published} == {"togethercomputer/RedPajama-INCITE-Base-3B-v1"}
    promised = [item["table"] for item in found["differences"]]
    assert code == 1 and promised[:2] == ["nothing: exact"] * 2
    assert any("executed" in item["numbers"] for item in found["differences"][2:])


def test_a_wrong_norm_is_told_where_numbers_cannot_tell() -> None:
    """The small PVT's attention has a single key in its first stages: neither query nor key moves anything there."""
    block = 'query = "encoder.layers.{stage}.blocks.{layer}.'
    right, wrong = f'{block}layer_norm_1"', f'{block}attention.layer_norm"'
    assert right in text_of("pvt_v2"), "vacuous"
    with drafted("pvt_v2", text_of("pvt_v2").replace(right, wrong)):
        code, out = run("--check", "pvt_v2", "--json")
    told = [item for item in json.loads(out)[0]["differences"] if item["kind"] == "wrong"]
    assert code == 1 and any("(query)" in item["slot"] and "it reads" in item["numbers"] for item in told)


def test_a_type_that_takes_too_long_or_fails_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_bias_patch.family_check import sweep
    from hf_bias_patch.family_check.cases import Case

    def check_type(name: str, seeds: object, changes: object, written: bool) -> object:
        import os
        import time

        if name == "slow":
            time.sleep(60)
        if name == "dead":
            os._exit(3)
        raise ValueError("bad")

    monkeypatch.setattr(sweep, "check_type", check_type)
    items = (Case(name) for name in ("slow", "dead", "bad"))
    found = {one.case.model_type: one.problem for one in sweep.sweep(items, jobs=2, timeout=2)}
    assert "not finished" in found["slow"] and "exit code 3" in found["dead"] and found["bad"] == "ValueError: bad"


def test_bias_flags_are_switched_on() -> None:
    from hf_bias_patch.family_check.one_type import switched_on

    config = {"attention_bias": False, "mlp_bias": False, "text": {"qkv_bias": False, "use_bias": True, "bias": False}}
    assert switched_on(config) == {"attention_bias": True, "text.qkv_bias": True, "text.bias": True}


def test_changes_of_the_config_are_checked_too() -> None:
    code, out = run("--check", "--vary", "vitdet")
    assert code == 0
    assert "vitdet with qkv_bias = false: " in out
    assert "vitdet with use_absolute_position_embeddings = false: 0 agreed, could not be built: " in out
    assert "model types: 1; " in out and "changes of the config: " in out and ", 0 wrong, " in out
    summary = out[out.index("changes of the config") :]
    assert "1 could not be built\n  vitdet with use_absolute_position_embeddings = false" in summary


def test_a_change_that_the_table_gets_wrong_fails() -> None:
    with drafted("olmo", text_of("olmo").replace('[handled]\nclip_qkv = ["null"]\n', "")):
        code, out = run("--check", "--vary", "olmo", "--json")
    default, *varied = (one for one in json.loads(out) if not one["checkpoint"])
    clipped = next(one for one in varied if one["changes"] == [{"key": "clip_qkv", "value": 2.0}])
    assert code == 1 and default["changes"] == []
    kinds = [{item["kind"] for item in found["differences"]} for found in (default, clipped)]
    assert "wrong" not in kinds[0] and "wrong" in kinds[1]


def test_pairs_of_changes_are_checked() -> None:
    from hf_bias_patch.family_check.cases import Case, cases
    from hf_bias_patch.family_check.sweep import sweep
    from hf_bias_patch.family_check.variations import Change

    changes = Change("relative_attention", True), Change("pos_att_type", ["p2c"])
    asked = [case for case in cases(["deberta-v2"], pairs=True, changes=lambda name: changes) if not case.checkpoint]
    assert asked == [Case("deberta-v2"), *(Case("deberta-v2", (change,)) for change in changes), asked[-1]]
    (found,) = sweep(asked[-1:])
    assert str(found.case) == 'deberta-v2 with relative_attention = true, pos_att_type = ["p2c"]' and found.agreed == 6
    code, out = run("--check", "--vary", "--pairs", "vitdet")
    assert code == 0 and "vitdet with qkv_bias = false, use_absolute_position_embeddings = false: " in out


@pytest.mark.parametrize(("given", "needed"), [(["--vary"], "--check"), (["--check", "--pairs"], "--vary")])
def test_an_option_that_would_do_nothing_is_refused(given: list[str], needed: str) -> None:
    code, out = run("bert", *given)
    assert code == 2 and f"it goes with {needed}" in out


def test_a_type_without_attention_is_told() -> None:
    code, out = run("mamba")
    assert code == 0 and "no attention" in out
    assert "mamba" in run("--markdown", "mamba")[1]


def test_a_draft_is_written_and_checked(tmp_path: Path) -> None:
    code, out = run("--draft", "fnet", "phi", "--output", str(tmp_path / "new"))
    assert code == 0, out
    assert "phi: 6 agreed" in out and "0 wrong" in out
    assert "add it to the model types of families/without_attention.toml" in out
    text = (tmp_path / "new" / "phi.toml").read_text("utf-8")
    assert "rotary" in text and 'reads = "layers.{layer}.input_layernorm"' in text
    assert '"fnet"' in (tmp_path / "new" / "without_attention.toml").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--draft"], "needs model types"),
        (["--draft", "--check", "bert"], "cannot be combined with"),
        (["--output", "x", "bert"], "goes with --draft"),
    ],
)
def test_a_draft_asked_for_wrongly_is_refused(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["families", *arguments])
    assert result.exit_code and said in result.output + str(result.exception)
