"""An edit in place changes the bytes it says, of files that are nobody else's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

import hf_bias_patch
from hf_bias_patch.errors import PlanError, TargetError

Saved = Callable[..., Path]
Tree = Callable[[Path], dict[str, str]]


class TestInPlace:
    def test_absent_cannot_be_made(self, saved: Saved, tree: Tree, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        shutil.copytree(saved("bert"), folder)
        before = tree(folder)
        with pytest.raises(PlanError, match="cannot be made in place"):
            hf_bias_patch.patch_in_place(folder, fold="key", storage="absent")
        assert tree(folder) == before

    @pytest.mark.parametrize("kind", ["symlink", "hard link", "read-only", "hub cache"])
    def test_files_of_others_are_refused(self, saved: Saved, tree: Tree, tmp_path: Path, kind: str) -> None:
        folder = tmp_path / "model"
        if kind == "hub cache":
            folder = tmp_path / "hub" / "models--owner--name" / "snapshots" / ("0" * 40)
            (folder.parent.parent / "blobs").mkdir(parents=True)
        shutil.copytree(saved("bert"), folder)
        weights, other = folder / "model.safetensors", tmp_path / "other"
        if kind == "symlink":
            weights.rename(other)
            weights.symlink_to(other)
        elif kind == "hard link":
            os.link(weights, other)
        elif kind == "read-only":
            weights.chmod(0o444)
        before = tree(tmp_path)
        with pytest.raises(TargetError, match="cannot be edited in place"):
            hf_bias_patch.patch_in_place(folder, fold="key")
        assert tree(tmp_path) == before

    def test_it_changes_the_bytes_it_says(self, saved: Saved, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        shutil.copytree(saved("gpt2"), folder)
        old = (folder / "model.safetensors").read_bytes()
        done = hf_bias_patch.patch_in_place(folder, fold="key,value")
        new = (folder / "model.safetensors").read_bytes()
        changed = sum(one != two for one, two in zip(old, new, strict=True))
        assert 0 < changed <= sum(done.plan.touched.values())
        tensors, before = load_file(folder / "model.safetensors"), load_file(saved("gpt2") / "model.safetensors")
        assert {name for name in before if before[name].tobytes() != tensors[name].tobytes()} == set(done.plan.touched)

    def test_a_certificate_of_the_state_before_goes_and_comes_back(
        self, saved: Saved, tmp_path: Path, tree: Tree
    ) -> None:
        folder = tmp_path / "model"
        hf_bias_patch.patch(saved("bert"), folder, fold="key")
        (folder / "bias_patch" / "certificate.json").write_text("{}")
        before = tree(folder)
        hf_bias_patch.patch_in_place(folder, fold="value")
        assert not (folder / "bias_patch" / "certificate.json").exists()
        hf_bias_patch.revert(folder)
        assert tree(folder) == before

    @pytest.mark.parametrize("name", ["embedded:bert", "path", "file", "link"])
    def test_the_embedded_checkpoints_stay_as_they_are(self, name: str, tree: Tree, tmp_path: Path) -> None:
        from hf_bias_patch.checkpoint.source import resolve

        folder = resolve("embedded:bert").path
        before = tree(folder)
        (tmp_path / "link").symlink_to(folder)
        given = {"path": folder, "file": folder / "model.safetensors", "link": tmp_path / "link"}.get(name, name)
        for edit in (lambda: hf_bias_patch.patch_in_place(given, fold="key"), lambda: hf_bias_patch.revert(given)):
            with pytest.raises(TargetError, match=r"comes with this package.*patch embedded:bert OUT"):
                edit()
        assert tree(folder) == before
