"""`revert` gives the source back, every file of it, bit for bit; or says why not, and changes nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import hf_bias_patch
from hf_bias_patch.errors import BiasPatchError, CheckpointError, TargetError
from hf_bias_patch.patching.record import UNDO
from tests.models import NAMES, WITH_NORMS

Saved = Callable[..., Path]
Tree = Callable[[Path], dict[str, str]]

RECIPES: list[dict[str, Any]] = [
    {"fold": "key,value,query", "max_loss": 1.0},
    {"fold": "key,value,query", "storage": "absent", "max_loss": 1.0},
    {"fold": "query:norm,key:weight,value:weight", "max_loss": 1.0},
    {"fill": "key=uniform:-5:5,query=normal:0:1", "drop": "value", "freeze": "output"},
]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_file_of_every_family(
    saved: Saved, tree: Tree, name: str, recipe: dict[str, Any], tmp_path: Path
) -> None:
    if "fold" in recipe:
        recipe = recipe | WITH_NORMS.get(name, {})
    source, variant, back = saved(name), tmp_path / "variant", tmp_path / "back"
    hf_bias_patch.patch(source, variant, **recipe)
    patched = tree(variant)
    assert patched["model.safetensors"] != tree(source)["model.safetensors"]
    done = hf_bias_patch.revert(variant, back)
    assert tree(back) == tree(source) and tree(variant) == patched
    assert done.path == back and done.sha256 == ("model.safetensors",) and not done.recovered
    done = hf_bias_patch.revert(variant)
    assert tree(variant) == tree(source) and done.path == variant
    assert {path.name for path in tmp_path.iterdir()} == {"variant", "back"}


@pytest.mark.parametrize("dtype", ["F64", "F16", "BF16"])
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_every_dtype(saved: Saved, tree: Tree, name: str, recipe: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    hf_bias_patch.patch(saved(name, dtype), tmp_path / "variant", **recipe)
    hf_bias_patch.revert(tmp_path / "variant")
    assert tree(tmp_path / "variant") == tree(saved(name, dtype))


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_shards(saved: Saved, tree: Tree, name: str, recipe: dict[str, Any], tmp_path: Path) -> None:
    source = saved(name, shard="20KB")
    hf_bias_patch.patch(source, tmp_path / "variant", **recipe)
    done = hf_bias_patch.revert(tmp_path / "variant", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(source)
    assert set(done.sha256) == {path.name for path in source.glob("*.safetensors")}
    hf_bias_patch.revert(tmp_path / "variant")
    assert tree(tmp_path / "variant") == tree(source)


CHAIN: list[dict[str, Any]] = [
    {"fold": "key"},
    {"fold": "value:weight", "layers": 1},
    {"fold": "query,value", "storage": "absent"},
    {"fill": "output=0.5"},
]


@pytest.mark.parametrize("in_place", [True, False])
def test_chained_patches_are_taken_back_one_by_one(saved: Saved, tree: Tree, in_place: bool, tmp_path: Path) -> None:
    folders = [saved("roberta")]
    for number, recipe in enumerate(CHAIN):
        folders.append(tmp_path / str(number))
        hf_bias_patch.patch(folders[-2], folders[-1], **recipe)
    last = folders.pop()
    for number, before in enumerate(reversed(folders)):
        if in_place:
            hf_bias_patch.revert(last)
        else:
            hf_bias_patch.revert(last, tmp_path / f"back{number}")
            last = tmp_path / f"back{number}"
        assert tree(last) == tree(before)
    with pytest.raises(CheckpointError, match="not a variant"):
        hf_bias_patch.revert(last)


@pytest.mark.parametrize("recipe", [RECIPES[0], RECIPES[2], RECIPES[3]], ids=str)
@pytest.mark.parametrize(
    ("name", "dtype", "shard"), [("bert", "F32", "1GB"), ("gpt2", "BF16", "20KB"), ("bart", "F16", "1GB")]
)
def test_an_edit_in_place(
    saved: Saved, tree: Tree, name: str, dtype: str, shard: str, recipe: dict[str, Any], tmp_path: Path
) -> None:
    source, folder = saved(name, dtype, shard=shard), tmp_path / "model"
    shutil.copytree(source, folder)
    if name == "bart":
        recipe = recipe | {"stack": "encoder"}
    done = hf_bias_patch.patch_in_place(folder, **recipe)
    hf_bias_patch.patch(source, tmp_path / "copy", **recipe)
    weights = [file for file in tree(source) if file.endswith(".safetensors")]
    assert [tree(folder)[file] for file in weights] == [tree(tmp_path / "copy")[file] for file in weights]
    assert done.path == folder and not done.unchanged
    reverted = hf_bias_patch.revert(folder)
    assert tree(folder) == tree(source) and reverted.tensors == len(done.plan.touched) and reverted.sha256 == ()


def test_edits_in_place_are_taken_back_one_by_one(saved: Saved, tree: Tree, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved("bert"), folder)
    states = [tree(folder)]
    for recipe in (CHAIN[0], CHAIN[1], CHAIN[3]):
        hf_bias_patch.patch_in_place(folder, **recipe)
        states.append(tree(folder))
    assert hf_bias_patch.patch_in_place(folder, **CHAIN[3]).unchanged and tree(folder) == states[-1]
    for state in reversed(states[:-1]):
        hf_bias_patch.revert(folder)
        assert tree(folder) == state


def test_a_copy_patched_further_in_place(saved: Saved, tree: Tree, tmp_path: Path) -> None:
    hf_bias_patch.patch(saved("bert"), tmp_path / "out", fold="key,query")
    once = tree(tmp_path / "out")
    hf_bias_patch.patch_in_place(tmp_path / "out", fold="value")
    hf_bias_patch.revert(tmp_path / "out")
    assert tree(tmp_path / "out") == once
    hf_bias_patch.revert(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(saved("bert"))


def change(folder: Path, name: str) -> None:
    """One step of training of one tensor."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors[name] = (tensors[name] + np.float32(0.01)).astype(np.float32)
    save_file(tensors, path, {"format": "pt"})


TOUCHED = ["bert.encoder.layer.1.attention.self.query.weight", "bert.encoder.layer.1.attention.output.dense.bias"]
UNTOUCHED = ["bert.embeddings.word_embeddings.weight", "bert.encoder.layer.2.intermediate.dense.bias"]


@pytest.mark.parametrize("to", ["itself", "a copy"])
@pytest.mark.parametrize("storage", ["zeros", "absent"])
@pytest.mark.parametrize("name", [*TOUCHED, *UNTOUCHED])
def test_a_variant_trained_since_is_refused(
    saved: Saved, tree: Tree, name: str, storage: str, to: str, tmp_path: Path
) -> None:
    hf_bias_patch.patch(saved("bert"), tmp_path / "variant", fold="key,value,query", storage=storage)
    change(tmp_path / "variant", name)
    before = tree(tmp_path)
    out = None if to == "itself" else tmp_path / "back"
    with pytest.raises(CheckpointError, match=f"{name} changed since|its sha256 is not") as caught:
        hf_bias_patch.revert(tmp_path / "variant", out)
    assert "before any training" in str(caught.value)
    assert tree(tmp_path) == before


def test_a_variant_saved_anew_is_refused(saved: Saved, tmp_path: Path) -> None:
    hf_bias_patch.patch(saved("bert"), tmp_path / "variant", fold="key")
    hf_bias_patch.load(tmp_path / "variant").save_pretrained(tmp_path / "again")
    with pytest.raises(CheckpointError, match="saved again"):
        hf_bias_patch.revert(tmp_path / "again")


def test_what_is_no_variant_is_refused(saved: Saved, tree: Tree) -> None:
    with pytest.raises(CheckpointError, match="not a variant"):
        hf_bias_patch.revert(saved("bert"))


def test_an_existing_target_is_refused(saved: Saved, tree: Tree, tmp_path: Path) -> None:
    hf_bias_patch.patch(saved("bert"), tmp_path / "variant", fold="key")
    shutil.copytree(saved("gpt2"), tmp_path / "there")
    before = tree(tmp_path)
    with pytest.raises(TargetError, match="exists"):
        hf_bias_patch.revert(tmp_path / "variant", tmp_path / "there")
    with pytest.raises(TargetError, match="input"):
        hf_bias_patch.revert(tmp_path / "variant", tmp_path / "variant" / "inside")
    assert tree(tmp_path) == before
    hf_bias_patch.revert(tmp_path / "variant", tmp_path / "there", overwrite=True)
    assert tree(tmp_path / "there") == tree(saved("bert"))


class TestDamage:
    @pytest.fixture(params=["zeros", "absent"])
    def variant(self, request: pytest.FixtureRequest, saved: Saved, tmp_path: Path) -> Path:
        folder = tmp_path / "variant"
        hf_bias_patch.patch(saved("bert"), folder, fold="key,value,query", storage=request.param)
        return folder

    def test_a_missing_undo_file(self, variant: Path, tree: Tree) -> None:
        (variant / UNDO).unlink()
        before = tree(variant)
        with pytest.raises(CheckpointError, match=r"undo\.zip"):
            hf_bias_patch.revert(variant)
        assert tree(variant) == before

    def test_flipped_bits_anywhere(self, variant: Path, tree: Tree, saved: Saved, tmp_path: Path) -> None:
        """Either it does not matter (a date, a flag) and the source comes back, or it is refused by name."""
        path = variant / UNDO
        good, draw = path.read_bytes(), random.Random(0)
        source, refused = tree(saved("bert")), 0
        places = [draw.randrange(len(good)) for _ in range(60)]
        places += [len(good) - 1 - draw.randrange(3000) for _ in range(30)]
        for number, place in enumerate(places):
            bad = bytearray(good)
            bad[place] ^= 1 << draw.randrange(8)
            path.write_bytes(bad)
            before = tree(variant)
            back = tmp_path / f"back{number}"
            try:
                hf_bias_patch.revert(variant, back)
            except CheckpointError as error:
                assert "undo.zip" in str(error) or "sha256" in str(error)
                refused += 1
                assert not back.exists()
            else:
                assert tree(back) == source
                shutil.rmtree(back)
            assert tree(variant) == before
        assert refused > 60
        path.write_bytes(good)
        hf_bias_patch.revert(variant)
        assert tree(variant) == source

    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
    def test_a_truncated_undo_file(self, variant: Path, tree: Tree, share: float) -> None:
        path = variant / UNDO
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        before = tree(variant)
        with pytest.raises(CheckpointError, match=r"undo.zip is damaged"):
            hf_bias_patch.revert(variant)
        assert tree(variant) == before

    def rewritten(self, variant: Path, edit: Callable[[dict[str, Any], dict[str, bytes]], None]) -> None:
        """The undo file with other contents, and right checksums of the archive."""
        path = variant / UNDO
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        manifest = json.loads(members["manifest.json"])
        edit(manifest, members)
        members["manifest.json"] = json.dumps(manifest).encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)

    @pytest.mark.parametrize("name", ["../outside", "/tmp/outside-{}", "a/../../outside"])
    @pytest.mark.parametrize("field", ["files", "headers", "created", "tensors"])
    def test_names_that_lead_out_of_the_folder(
        self, variant: Path, tree: Tree, tmp_path: Path, field: str, name: str
    ) -> None:
        """An undo file comes with a downloaded variant: it may be hostile."""
        name = name.format(os.getpid())
        victim = tmp_path / "outside"
        victim.write_text("precious")

        def edit(manifest: dict[str, Any], members: dict[str, bytes]) -> None:
            members["bad"] = b"bad"
            if field in ("files", "headers"):
                manifest[field][name] = "bad"
            elif field == "created":
                manifest[field] = [*manifest[field], name]
            else:
                next(iter(manifest[field].values()))["file"] = name

        self.rewritten(variant, edit)
        before = tree(tmp_path)
        for out in (None, tmp_path / "deep" / "back"):
            with pytest.raises(CheckpointError, match=r"undo\.zip .*outside"):
                hf_bias_patch.revert(variant, out)
            assert tree(tmp_path) == before and victim.read_text() == "precious"
            assert not (tmp_path / "deep").exists() and (name.startswith("..") or not Path(name).exists())

    @pytest.mark.parametrize(
        "edit",
        [
            lambda manifest, members: manifest.update(format="new"),
            lambda manifest, members: manifest.update(more=1),
            lambda manifest, members: members.pop("tensors/0/rows", members.pop("tensors/0", None)),
            lambda manifest, members: next(iter(manifest["tensors"].values())).update(sha256="0" * 64),
            lambda manifest, members: next(iter(manifest["tensors"].values())).update(dtype="F31"),
            lambda manifest, members: next(iter(manifest["tensors"].values())).update(shape=[5, 5]),
            lambda manifest, members: members.update({k: b"x" for k in members if k.endswith("rows")}),
            lambda manifest, members: members.update({k: b"x" for k in members if k.endswith("bias")}),
            lambda manifest, members: members.update({k: b"\x05" + bytes(12) for k in members if k.endswith("rows")}),
            lambda manifest, members: manifest["sha256"].update(ghost="0" * 64),
        ],
    )
    def test_contents_that_make_no_sense(self, variant: Path, tree: Tree, tmp_path: Path, edit: Any) -> None:
        self.rewritten(variant, edit)
        before = tree(tmp_path)
        for out in (tmp_path / "back", None):
            with pytest.raises(CheckpointError):
                hf_bias_patch.revert(variant, out)
            assert tree(tmp_path) == before

    def test_a_variant_whose_weights_are_damaged(self, variant: Path, tree: Tree) -> None:
        path = variant / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-5])
        before = tree(variant)
        with pytest.raises(BiasPatchError):
            hf_bias_patch.revert(variant)
        assert tree(variant) == before


def test_a_variant_in_the_hub_cache_is_not_reverted_in_place(saved: Saved, tree: Tree, tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "models--owner--name" / "snapshots" / ("0" * 40)
    (folder.parent.parent / "blobs").mkdir(parents=True)
    for storage in ("zeros", "absent"):
        hf_bias_patch.patch(saved("bert"), folder, fold="key", storage=storage)
        before = tree(folder)
        with pytest.raises(TargetError, match="Hub's cache"):
            hf_bias_patch.revert(folder)
        assert tree(folder) == before
        hf_bias_patch.revert(folder, tmp_path / storage)
        assert tree(tmp_path / storage) == tree(saved("bert"))
        shutil.rmtree(folder)
