"""The command line, as a user types it: what it prints, what it refuses, how it exits."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hf_bias_patch.checkpoint.checkpoint import open_checkpoint

Run = Callable[..., tuple[int, str, str]]


def biases(folder: Path, projection: str) -> np.ndarray:
    """All biases of one projection of a BERT, one behind the other."""
    checkpoint = open_checkpoint(folder)
    found = [name for name in checkpoint.tensors if re.search(rf"attention\.self\.{projection}\.bias$", name)]
    assert found
    return np.concatenate([checkpoint.read(name) for name in found])


def test_inspect_prints_a_row_for_each_site_and_every_reason(run: Run, saved: Callable[..., Path]) -> None:
    code, out, _ = run("inspect", saved("bart"), "--values")
    assert code == 0
    assert len(re.findall(r"^ *(encoder|decoder) +\d +(self|cross) +4 ", out, re.M)) == 8
    assert all(word in out for word in ("redundant", "foldable", "needed", "softmax cancels", "all are stored as F32"))
    assert re.search(r"^ *decoder\.2\.cross +value +([\d.]+ +){3}[\d.]+", out, re.M), "norms of four heads"
    assert "parameters" in out and "%" in out


def test_inspect_json_holds_what_the_checkpoint_holds(run: Run, saved: Callable[..., Path]) -> None:
    code, out, _ = run("inspect", saved("bert"), "--json")
    found = json.loads(out)
    assert code == 0
    bias = open_checkpoint(saved("bert")).read("bert.encoder.layer.1.attention.self.key.bias").astype(np.float64)
    entry = found["sites"][1]["biases"]["key"]
    assert entry["norm"] == pytest.approx(np.linalg.norm(bias), rel=1e-12)
    assert entry["head_norms"] == pytest.approx(np.linalg.norm(bias.reshape(4, 8), axis=1), rel=1e-12)
    assert entry["verdict"] == "redundant" and found["verdicts"]["redundant"] == 3 * 32


def test_biases_at_no_site_are_named(run: Run, saved: Callable[..., Path], tmp_path: Path) -> None:
    source, folder = saved("bert"), tmp_path / "beside"
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    for layer in range(2):
        tensors[f"bert.extra.{layer}.attn.k_proj.weight"] = np.ones((32, 32), np.float32)
        tensors[f"bert.extra.{layer}.attn.k_proj.bias"] = np.ones(32, np.float32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for command in (("inspect", folder), ("patch", folder, "--fold", "key", "--dry-run")):
        said = " ".join(run(*command)[1].split())
        assert "2 attention biases are at no attention site that is known of this model: bert.extra.*.attn" in said
        assert "not counted and never changed" in said
    assert "no attention site" not in run("inspect", source)[1]
    assert json.loads(run("inspect", folder, "--json")[1])["uncovered"] == [
        "bert.extra.0.attn.k_proj.bias",
        "bert.extra.1.attn.k_proj.bias",
    ]


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_inspect_draws(run: Run, saved: Callable[..., Path], tmp_path: Path, ending: str, start: bytes) -> None:
    picture = tmp_path / f"norms.{ending}"
    code, out, _ = run("inspect", saved("bart"), "--plot", picture)
    assert code == 0 and f"Picture written: {picture}\n" in out
    code, out, err = run("inspect", saved("bart"), "--plot", picture, "--json")
    assert code == 0 and json.loads(out) and f"Picture written: {picture}\n" in err
    assert picture.read_bytes().startswith(start) and picture.stat().st_size > 5_000


def test_inspect_refuses_a_picture_of_no_known_kind(run: Run, saved: Callable[..., Path], tmp_path: Path) -> None:
    code, _, err = run("inspect", saved("bert"), "--plot", tmp_path / "norms.doc")
    assert code == 2 and ".png" in err and not list(tmp_path.iterdir())


def test_inspect_marks_what_is_not_finite(run: Run, saved: Callable[..., Path], tmp_path: Path) -> None:
    tensors = load_file(saved("bert") / "model.safetensors")
    name = "bert.encoder.layer.1.attention.self.key.bias"
    save_file(tensors | {name: np.full_like(tensors[name], np.nan)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((saved("bert") / "config.json").read_bytes())
    code, out, _ = run("inspect", tmp_path)
    assert code == 0 and len(re.findall("32 NaN or inf +redundant", out)) == 1
    code, out, _ = run("inspect", tmp_path, "--json")
    assert code == 0 and "NaN" not in out and json.loads(out)["sites"][1]["biases"]["key"]["not_finite"] == 32


def test_patch_verify_and_revert(run: Run, saved: Callable[..., Path], tmp_path: Path, tree: Callable) -> None:
    out = tmp_path / "out"
    code, printed, _ = run("patch", saved("bert"), out, "--fold", "key,value,query")
    assert code == 0, printed
    assert "PASSED" in printed and "own weight" in printed and "Stays equal" in printed
    assert not any(biases(out, name).any() for name in ("query", "key", "value"))
    assert json.loads((out / "bias_patch" / "certificate.json").read_text())["passed"] is True
    code, printed, _ = run("verify", out, "--against", saved("bert"))
    assert code == 0 and "PASSED" in printed
    code, printed, _ = run("verify", out)
    assert code == 0 and "PASSED" in printed, "against the source restored from the variant"
    code, printed, _ = run("revert", out, tmp_path / "again")
    assert code == 0 and "sha256" in printed
    assert tree(tmp_path / "again") == tree(saved("bert"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "out"], "nothing is left lying about"


def test_revert_says_that_a_pickle_comes_back_as_its_conversion(run: Run, tmp_path: Path) -> None:
    from tests.patching.test_pickled_source import pickled

    assert run("patch", pickled(tmp_path / "source"), tmp_path / "out", "--fold", "key", "--no-verify")[0] == 0
    code, printed, _ = run("revert", tmp_path / "out")
    words = " ".join(printed.split())
    assert code == 0 and "sha256 of model.safetensors is that of the conversion of pytorch_model.bin" in words


def test_verify_fails_with_exit_code_1(run: Run, saved: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, printed, _ = run("patch", saved("bert"), out, "--drop", "value")
    assert code == 0 and "as asked" in printed, "a lossy recipe is done as asked, and said to be lossy"
    code, printed, _ = run("verify", out, "--against", saved("bert"))
    assert code == 1 and "NOT EQUAL" in printed


def test_verify_says_what_is_missing(run: Run, saved: Callable[..., Path]) -> None:
    code, _, err = run("verify", saved("bert"))
    assert code == 2 and "--against MODEL" in " ".join(err.split()) and "revert" not in err


def test_layerwise_names_the_worst_site(run: Run, saved: Callable[..., Path], tmp_path: Path) -> None:
    assert run("patch", saved("bart"), tmp_path / "out", "--fold", "key,value", "--no-verify")[0] == 0
    code, out, _ = run("verify", tmp_path / "out", "--layerwise")
    assert code == 0 and len(re.findall(r"(encoder|decoder)\.\d\.(self|cross), worst of 8 sites", out)) == 2


def test_json_of_patch_has_plan_and_certificate(run: Run, saved: Callable[..., Path], tmp_path: Path) -> None:
    code, out, _ = run("patch", saved("gpt2"), tmp_path / "out", "--fold", "key", "--json")
    result = json.loads(out)
    assert code == 0 and result["certificate"]["passed"] and len(result["plan"]["edits"]) == 3


def test_dry_run_writes_nothing(run: Run, saved: Callable[..., Path], tmp_path: Path) -> None:
    code, out, _ = run("patch", saved("bart"), tmp_path / "out", "--fold", "query:norm", "--dry-run")
    assert code == 0 and "conditioning" in out and not list(tmp_path.iterdir())


def test_selectors_and_fill(run: Run, saved: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("--fill", "key=uniform:-5:5", "--layers", "1-2", "--seed", "3", "--no-verify")
    assert run("patch", saved("bert"), out, *arguments)[0] == 0
    before, after = biases(saved("bert"), "key").reshape(3, 32), biases(out, "key").reshape(3, 32)
    assert (before[0] == after[0]).all()
    assert (np.abs(after[1:]) <= 5).all() and np.abs(after[1:]).max() > 4 and len(np.unique(after[1:])) == 64


def test_recipe_file(run: Run, saved: Callable[..., Path], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("fold: {value: output}\nlayers: 0-1\n")
    assert run("patch", saved("bert"), tmp_path / "out", "--recipe", recipe, "--no-verify")[0] == 0
    after = biases(tmp_path / "out", "value").reshape(3, 32)
    assert not after[:2].any() and after[2].all()
    code, _, err = run("patch", saved("bert"), tmp_path / "other", "--recipe", recipe, "--fold", "key")
    assert code == 2 and "--fold" in err and not (tmp_path / "other").exists()


def test_in_place_and_back(run: Run, saved: Callable[..., Path], tmp_path: Path, tree: Callable) -> None:
    import shutil

    model = tmp_path / "model"
    shutil.copytree(saved("bert"), model)
    code, out, _ = run("patch", model, "--in-place", "--fold", "key,value")
    assert code == 0 and "PASSED" in out and not biases(model, "key").any()
    code, out, _ = run("patch", model, "--in-place", "--fold", "key,value")
    assert code == 0 and "nothing was written" in out
    assert run("revert", model)[0] == 0
    assert tree(model) == tree(saved("bert"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


REFUSED = [
    (("--fold", "kye"), "kye"),
    (("--fold", "key", "--layers", "0-7"), "no layer 3"),
    (("--fold", "key", "--attention", "cross"), "encoder self (layers 0-2"),
    (("--fold", "value:norm"), "value:norm is unsupported"),
    (("--fold", "key", "--drop", "key"), "both fold and drop"),
    ((), "no action"),
    (("--recipe", "nowhere.yaml"), "nowhere.yaml"),
    (("--fold", "key", "--texts", "nowhere.txt"), "nowhere.txt"),
    (("--fold", "key", "--in-place"), "Leave one of them out"),
    (("--fold", "key", "--in-place", "--overwrite"), "--overwrite, which is about OUT"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_refusals_name_the_reason_and_write_nothing(
    run: Run, saved: Callable[..., Path], tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    code, _, err = run("patch", saved("bert"), tmp_path / "out", *arguments)
    assert code == 2 and err.startswith("error:")
    assert words in " ".join(err.split()), err
    assert not list(tmp_path.iterdir())


def test_texts_site_by_site_are_refused_before_anything_is_written(
    run: Run, saved: Callable[..., Path], tmp_path: Path
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("a text\n")
    code, _, err = run("patch", saved("bert"), tmp_path / "out", "--fold", "key", "--texts", texts, "--layerwise")
    assert code == 2 and "A check site by site cannot use texts" in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_an_existing_out_needs_overwrite(run: Run, saved: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("patch", saved("bert"), out, "--fold", "key", "--no-verify")
    assert run(*arguments)[0] == 0
    code, _, err = run(*arguments)
    assert code == 2 and "overwrite" in err
    assert run(*arguments, "--overwrite")[0] == 0


def test_an_empty_folder_is_as_good_as_none(run: Run, saved: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert run("patch", saved("bert"), tmp_path / "out", "--fold", "key", "--no-verify")[0] == 0
    assert not biases(tmp_path / "out", "key").any()


def test_a_model_that_is_nowhere(run: Run) -> None:
    code, _, err = run("inspect", "no/such/folder/at/all")
    assert code == 2 and "no/such/folder/at/all" in " ".join(err.split())


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['hf-bias-patch', '--help']\n"
        "from hf_bias_patch.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'torch', 'transformers', 'pydantic', 'matplotlib', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in ("inspect", "patch", "verify", "revert"))


def test_module_and_command_are_one() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hf_bias_patch", "--version"], capture_output=True, text=True, check=True
    )
    from hf_bias_patch import __version__

    assert done.stdout.strip() == __version__


def test_the_model_type_is_an_option_of_inspect_and_patch(run: Run, saved: Callable[..., Path], tmp_path: Path) -> None:
    from tests.patching.test_model_type import untyped

    source = untyped(saved("bert"), tmp_path / "source", pickled=True)
    code, _, err = run("inspect", source)
    assert code == 2 and "--model-type bert" in " ".join(err.split())
    code, printed, _ = run("inspect", source, "--model-type", "bert", "--json")
    assert code == 0 and json.loads(printed)["model_type"] == "bert"
    assert run("patch", source, "--fold", "key", "--model-type", "bert", "--dry-run")[0] == 0
    code, _, err = run("inspect", source, "--probe", "--model-type", "bert")
    assert code == 2 and "--probe" in err
    assert run("patch", source, tmp_path / "out", "--fold", "key", "--model-type", "bert", "--no-verify")[0] == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "bert"


def test_options_may_be_typed_with_underscores(run: Run) -> None:
    code, plain, _ = run("patch", "embedded:bert", "--fold", "key", "--dry-run", "--max-loss", "0.2")
    assert code == 0 and run("patch", "embedded:bert", "--fold", "key", "--dry_run", "--max_loss", "0.2")[1] == plain
