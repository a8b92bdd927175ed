"""A variant on disk: the bytes that an edit in memory gives, and every other byte of the source."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open

import hf_bias_patch
from hf_bias_patch.checkpoint.header import read_header
from hf_bias_patch.errors import CheckpointError, PlanError, RecipeError, TargetError
from hf_bias_patch.patching.in_memory import apply
from tests.models import DTYPES, FAMILIES, NAMES, WITH_NORMS, error, fresh, heads, inputs_of, outputs_of

Saved = Callable[..., Path]
Tree = Callable[[Path], dict[str, str]]

FOLDS = ("key,value,query", "query:norm,key:weight,value:weight")


def raw(folder: Path) -> dict[str, bytes]:
    """Every tensor's bytes, read by the safetensors library."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                values = file.get_tensor(name).contiguous()
                found[name] = values.view(-1).view(torch.uint8).numpy().tobytes() if values.numel() else b""
    return found


def loaded(folder: Path, stock: Any) -> Any:
    """The model stock transformers loads, whose load report must be empty."""
    model, report = stock.from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_disk_gives_the_bytes_of_memory(saved: Saved, name: str, dtype: str, tmp_path: Path) -> None:
    source = saved(name, dtype)
    before = raw(source)
    for number, fold in enumerate(FOLDS):
        recipe = {"fold": fold, "max_loss": 1.0} | (WITH_NORMS.get(name, {}))
        out = tmp_path / f"disk{number}"
        done = hf_bias_patch.patch(source, out, **recipe)
        after = raw(out)
        model = fresh(name, dtype=DTYPES[dtype])
        apply(model, **recipe)
        model.save_pretrained(tmp_path / f"memory{number}")
        assert after == raw(tmp_path / f"memory{number}")
        assert {key for key in before if before[key] != after[key]} == set(done.plan.touched)
        for edit in done.plan.edits:
            bias = np.frombuffer(after[edit.bias], np.uint8).reshape(edit.slot.view.axis, -1)
            assert not edit.slot.view.take(bias).any(), "zeros are not zeros"
        header, old = read_header(out / "model.safetensors"), read_header(source / "model.safetensors")
        assert header.raw == old.raw, "the layout is the source's"


@pytest.mark.parametrize("name", NAMES)
def test_stock_transformers_loads_a_variant(saved: Saved, name: str, tmp_path: Path) -> None:
    source = saved(name)
    model = fresh(name, dtype=torch.float32)
    expected = outputs_of(fresh(name), inputs_of(fresh(name)))
    hf_bias_patch.patch(source, tmp_path / "out", fold="key,value,query", **WITH_NORMS.get(name, {}))
    variant = loaded(tmp_path / "out", type(model)).double()
    assert variant.config.bias_patch["recipe"]["fold"] == {"key": "default", "value": "default", "query": "default"}
    floor = error(outputs_of(model), expected)
    assert error(outputs_of(variant), expected) < 4 * max(floor, 2.0**-22)


HEADED = [(family, head) for family in FAMILIES for head in heads(family)]


@pytest.mark.parametrize(("family", "head"), HEADED, ids=lambda value: getattr(value, "__name__", value))
def test_every_task_head(saved: Saved, family: str, head: Any, tmp_path: Path) -> None:
    """Patched from disk under its own prefix, loaded by its own class, computing the same."""
    source = saved(family, "F64", head=head)
    without_memory = family in ("bart", "mbart") and "CausalLM" in head.__name__
    wanted = "key,value,query" if not without_memory else "key,value:output,query"
    done = hf_bias_patch.patch(source, tmp_path / "out", fold=wanted)
    assert len(done.plan.edits) == 3 * len({edit.site for edit in done.plan.edits}) >= 9
    model = fresh(family, head)
    expected = outputs_of(model)
    assert error(outputs_of(loaded(tmp_path / "out", head)), expected) < 1e-9
    with apply(model, drop="value,query"):
        assert error(outputs_of(model), expected) > 1e-3


@pytest.mark.parametrize("name", ["bert", "gpt2", "bart", "bert+gpt2"])
def test_shards(saved: Saved, name: str, tmp_path: Path) -> None:
    source = saved(name, shard="20KB")
    assert len(list(source.glob("*.safetensors"))) >= 4
    hf_bias_patch.patch(source, tmp_path / "out", fold="key,value,query")
    hf_bias_patch.patch(saved(name), tmp_path / "one", fold="key,value,query")
    assert raw(tmp_path / "out") == raw(tmp_path / "one")
    index = "model.safetensors.index.json"
    assert (tmp_path / "out" / index).read_bytes() == (source / index).read_bytes()
    names = {path.name for path in source.glob("*.safetensors")}
    assert {path.name for path in (tmp_path / "out").glob("*.safetensors")} == names
    variant = loaded(tmp_path / "out", type(fresh(name)))
    assert error(outputs_of(variant.double()), outputs_of(fresh(name))) < 1e-5


def test_companions_come_along_and_stale_weights_do_not(saved: Saved, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for path in saved("bert").iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    texts = {"tokenizer.json": "{}", "vocab.txt": "a\nb", "1_Pooling/config.json": "{}", "README.md": "# card"}
    for name, text in texts.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(text)
    stale = ["pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "onnx/model.onnx"]
    for name in stale:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"old weights")
    done = hf_bias_patch.patch(source, tmp_path / "out", fold="key")
    assert sorted(path.as_posix() for path in done.left_behind) == sorted(stale)
    for name, text in texts.items():
        assert (tmp_path / "out" / name).read_text() == text
    assert not any((tmp_path / "out" / name).exists() for name in stale)


def test_the_config_says_what_was_done(saved: Saved, tmp_path: Path, tree: Tree) -> None:
    source = saved("bert")
    done = hf_bias_patch.patch(source, tmp_path / "out", fold="key,query", layers="0-1", freeze="value")
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path / "out"))
    block = new.pop("bias_patch")
    assert new == old
    assert block["version"] == hf_bias_patch.__version__ and block["lossy"] is False
    assert block["recipe"] == {"fold": {"key": "default", "query": "default"}, "freeze": ["value"], "layers": [0, 1]}
    assert block["source"]["name"] == source.name, "the folders of this machine are nobody's business"
    assert block["source"]["sha256"] == {"model.safetensors": tree(source)["model.safetensors"]}
    assert block["freeze"] == ["encoder.0.self.value", "encoder.1.self.value"]
    text = (tmp_path / "out" / "bias_patch" / "plan.json").read_text()
    assert hf_bias_patch.Plan.loads(text) == done.plan
    for path in (tmp_path / "out").rglob("*.json"):
        assert str(tmp_path) not in path.read_text() and str(source.parent) not in path.read_text()


@pytest.mark.parametrize(
    "block", ["hello", ["key"], 3, {"absent": "key"}, {"absent": [3]}, {"recipe": ["fold"]}], ids=str
)
def test_a_damaged_record_of_a_patch_is_refused(saved: Saved, tmp_path: Path, block: Any) -> None:
    """A patch would replace it, and a revert could not bring it back."""
    source = tmp_path / "model"
    shutil.copytree(saved("bert"), source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"bias_patch": block}))
    for attempt in (
        lambda: hf_bias_patch.plan(source, fold="key"),
        lambda: hf_bias_patch.patch(source, tmp_path / "out", fold="key"),
        lambda: hf_bias_patch.patch_in_place(source, fold="key"),
        lambda: hf_bias_patch.load(source),
    ):
        with pytest.raises(CheckpointError, match=r"config\.json: `bias_patch` is .*Restore the field"):
            attempt()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["{0}/", "{0}/.", "{0}/../{1}", "{0}/model.safetensors"])
def test_no_folder_of_this_machine_is_published(saved: Saved, tmp_path: Path, form: str) -> None:
    source = saved("bert")
    hf_bias_patch.patch(form.format(source, source.name), tmp_path / "out", fold="key")
    block = json.loads((tmp_path / "out" / "config.json").read_text())["bias_patch"]
    assert block["source"]["name"] == ("model.safetensors" if "safetensors" in form else source.name)


def test_the_same_patch_gives_the_same_files(saved: Saved, tmp_path: Path, tree: Tree) -> None:
    for out in ("one", "two"):
        hf_bias_patch.patch(saved("gpt2"), tmp_path / out, fold="key,value,query")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_a_single_file_is_patched_with_what_lies_beside_it(saved: Saved, tmp_path: Path) -> None:
    source = saved("distilbert")
    hf_bias_patch.patch(source / "model.safetensors", tmp_path / "file", fold="key,value")
    hf_bias_patch.patch(source, tmp_path / "folder", fold="key,value")
    assert raw(tmp_path / "file") == raw(tmp_path / "folder")


def test_a_lone_file_needs_a_config_beside_it(saved: Saved, tmp_path: Path) -> None:
    lone = tmp_path / "model.safetensors"
    shutil.copyfile(saved("distilbert") / lone.name, lone)
    for attempt in (
        lambda: hf_bias_patch.plan(lone, fold="key"),
        lambda: hf_bias_patch.patch(lone, tmp_path / "out", fold="key"),
        lambda: hf_bias_patch.patch_in_place(lone, fold="key"),
    ):
        with pytest.raises(CheckpointError, match=r"There is no config\.json beside .*model\.safetensors"):
            attempt()


def test_a_snapshot_in_the_hubs_cache(saved: Saved, tmp_path: Path, tree: Tree) -> None:
    """Files there are links to blobs named by their sha256, which need not be computed again."""
    source, repo = saved("bert"), tmp_path / "hub" / "models--owner--name"
    commit, hashes = "0123456789" * 4, tree(source)
    (repo / "blobs").mkdir(parents=True)
    (repo / "snapshots" / commit).mkdir(parents=True)
    for path in source.iterdir():
        (repo / "blobs" / hashes[path.name]).write_bytes(path.read_bytes())
        (repo / "snapshots" / commit / path.name).symlink_to(Path("../../blobs") / hashes[path.name])
    before = tree(repo)
    hf_bias_patch.patch(repo / "snapshots" / commit, tmp_path / "out", fold="key,query")
    block = json.loads((tmp_path / "out" / "config.json").read_text())["bias_patch"]
    assert block["source"]["revision"] == commit
    assert block["source"]["sha256"] == {"model.safetensors": hashes["model.safetensors"]}
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    hf_bias_patch.revert(tmp_path / "out")
    assert tree(tmp_path / "out") == hashes and tree(repo) == before


def test_nothing_but_marks(saved: Saved, tmp_path: Path) -> None:
    done = hf_bias_patch.patch(saved("bert"), tmp_path / "out", freeze="key", train="value")
    assert not done.plan.changes and raw(tmp_path / "out") == raw(saved("bert"))
    block = json.loads((tmp_path / "out" / "config.json").read_text())["bias_patch"]
    assert len(block["freeze"]) == len(block["train"]) == 3


class TestAgain:
    @pytest.mark.parametrize("storage", ["zeros", "absent"])
    def test_the_same_recipe_is_a_no_op(self, saved: Saved, tmp_path: Path, tree: Tree, storage: str) -> None:
        first = hf_bias_patch.patch(saved("bert"), tmp_path / "one", fold="key,value", storage=storage)
        before = tree(tmp_path / "one")
        again = hf_bias_patch.patch(tmp_path / "one", tmp_path / "two", fold="key,value", storage=storage)
        assert again.unchanged and not first.unchanged
        assert again.path == tmp_path / "one" and not (tmp_path / "two").exists()
        assert tree(tmp_path / "one") == before

    @pytest.mark.parametrize("storage", ["zeros", "absent"])
    def test_another_recipe_composes(self, saved: Saved, tmp_path: Path, storage: str) -> None:
        hf_bias_patch.patch(saved("bart"), tmp_path / "one", fold="key")
        done = hf_bias_patch.patch(tmp_path / "one", tmp_path / "two", fold="value,query", storage=storage)
        assert not done.unchanged and done.plan.changes
        hf_bias_patch.patch(saved("bart"), tmp_path / "at once", fold="value,query,key")
        one, other = raw(tmp_path / "two"), raw(tmp_path / "at once")
        assert all(one[name] == other[name] for name in one) and (len(one) < len(other)) is (storage == "absent")

    def test_a_recipe_whose_biases_came_back_is_no_no_op(self, saved: Saved, tmp_path: Path) -> None:
        """A variant keeps its config when it is trained on, and its biases may grow again."""
        hf_bias_patch.patch(saved("bert"), tmp_path / "one", fold="value")
        model = loaded(tmp_path / "one", type(fresh("bert")))
        with torch.no_grad():
            model.bert.encoder.layer[1].attention.self.value.bias.fill_(0.5)
        model.save_pretrained(tmp_path / "trained")
        done = hf_bias_patch.patch(tmp_path / "trained", tmp_path / "two", fold="value")
        assert not done.unchanged
        variant = loaded(tmp_path / "two", type(model))
        assert not variant.bert.encoder.layer[1].attention.self.value.bias.any()
        assert error(outputs_of(variant), outputs_of(model.eval())) < 1e-5

    def test_lossy_once_is_lossy_ever_after(self, saved: Saved, tmp_path: Path) -> None:
        hf_bias_patch.patch(saved("bert"), tmp_path / "one", drop="value")
        done = hf_bias_patch.patch(tmp_path / "one", tmp_path / "two", fold="key")
        assert not done.plan.lossy
        block = json.loads((tmp_path / "two" / "config.json").read_text())["bias_patch"]
        assert block["lossy"] is True


class TestRefusals:
    """A refused request leaves nothing behind and the source as it was (which the fixture checks)."""

    @pytest.mark.parametrize(
        ("fields", "kind"),
        [
            ({"fold": "keys"}, RecipeError),
            ({"fold": "key", "layers": 9}, RecipeError),
            ({"fold": "query", "max_loss": 1e-9}, PlanError),
            ({"fill": "key=1e39"}, PlanError),
        ],
        ids=str,
    )
    def test_nothing_is_written(self, saved: Saved, tmp_path: Path, fields: dict[str, Any], kind: Any) -> None:
        with pytest.raises(kind):
            hf_bias_patch.patch(saved("bert"), tmp_path / "deep" / "out", **fields)
        assert not list(tmp_path.iterdir())

    def test_an_existing_target(self, saved: Saved, tmp_path: Path, tree: Tree) -> None:
        hf_bias_patch.patch(saved("bert"), tmp_path / "out", fold="key")
        before = tree(tmp_path)
        with pytest.raises(TargetError, match="exists"):
            hf_bias_patch.patch(saved("bert"), tmp_path / "out", fold="value")
        assert tree(tmp_path) == before
        hf_bias_patch.patch(saved("bert"), tmp_path / "out", fold="value", overwrite=True)
        hf_bias_patch.patch(saved("bert"), tmp_path / "new", fold="value")
        assert tree(tmp_path / "out") == tree(tmp_path / "new")

    @pytest.mark.parametrize("place", [".", "out", "deep/out", ".."])
    def test_a_target_in_or_around_the_source(self, saved: Saved, tmp_path: Path, place: str, tree: Tree) -> None:
        source = tmp_path / "source"
        source.mkdir()
        for path in saved("bert").iterdir():
            (source / path.name).write_bytes(path.read_bytes())
        before = tree(tmp_path)
        with pytest.raises(TargetError, match="source is never modified"):
            hf_bias_patch.patch(source, source / place, fold="key", overwrite=True)
        assert tree(tmp_path) == before


def test_progress_counts_every_byte(saved: Saved, tmp_path: Path) -> None:
    counts: list[int] = []
    hf_bias_patch.patch(saved("gpt2", shard="20KB"), tmp_path / "out", fold="key,query", progress=counts.append)
    assert min(counts) >= 0
    assert sum(counts) == sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors"))


def test_the_names_of_converted_layer_norms(saved: Saved, tmp_path: Path) -> None:
    """A file that calls γ and β so is patched under its own names, and loads."""
    from safetensors.torch import load_file, save_file

    source = tmp_path / "source"
    source.mkdir()
    tensors = load_file(saved("bert") / "model.safetensors")
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in tensors.items()
    }
    save_file(renamed, source / "model.safetensors", {"format": "pt"})
    (source / "config.json").write_bytes((saved("bert") / "config.json").read_bytes())
    done = hf_bias_patch.patch(source, tmp_path / "out", fold="query:norm,value,key")
    assert any(name.endswith("LayerNorm.beta") for name in done.plan.touched)
    variant = loaded(tmp_path / "out", transformers.BertForMaskedLM).double()
    assert error(outputs_of(variant), outputs_of(fresh("bert"))) < 1e-4
