"""The base id of a variant: checked on the Hub where it is given, kept, changed, and taken back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner, Result

from hf_bias_patch import patch, patch_in_place, verify
from hf_bias_patch.cli import app
from hf_bias_patch.errors import BiasPatchError, CheckpointError, SourceError, TargetError
from hf_bias_patch.patching.record import BASE as KEPT
from hf_bias_patch.publish.base import check_base, parse_base
from hf_bias_patch.publish.push import push
from hf_bias_patch.publish.push_plan import plan_push
from tests.hub.server import Fault, Hub, offline

Saved = Callable[..., Path]
Tree = Callable[[Path], dict[str, str]]

BASE, NAME = "owner/base", "owner/variant"
pytestmark = pytest.mark.usefixtures("login")


@pytest.fixture
def local(saved: Saved, tmp_path: Path) -> Path:
    """A copy of the base that nobody knows the origin of."""
    return shutil.copytree(saved("bert"), tmp_path / "local")


@pytest.fixture
def variant(local: Path, tmp_path: Path) -> Path:
    patch(local, tmp_path / "variant", fold="key")
    return tmp_path / "variant"


def _card(variant: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["card", str(variant), *arguments])


def _kept(variant: Path) -> dict[str, object]:
    return json.loads((variant / KEPT).read_text())


def _refused(result: Result, *says: str) -> None:
    assert isinstance(result.exception, BiasPatchError) and result.exception.remedy
    assert all(words in str(result.exception) for words in says), str(result.exception)


class TestGiven:
    def test_a_branch_becomes_its_commit(self, hub: Hub, saved: Saved, variant: Path, tree: Tree) -> None:
        commit = hub.add(BASE, saved("bert"))
        for typed in (BASE, f"{BASE}@main", BASE):
            assert _card(variant, "--base-model", typed).exit_code == 0
            assert _kept(variant) == {"name": BASE, "revision": commit}
        before = tree(variant)
        assert _card(variant, "--base-model", BASE).exit_code == 0 and tree(variant) == before
        assert f"base_model: {BASE}" in (variant / "README.md").read_text()

    def test_a_branch_is_looked_at_where_it_is(self, hub: Hub, saved: Saved, variant: Path) -> None:
        commit = hub.add(BASE, saved("bert"))
        hub.add(BASE, saved("gpt2"))
        _refused(_card(variant, "--base-model", BASE), "model.safetensors is not the file that was patched")
        assert _card(variant, "--base-model", f"{BASE}@{commit}").exit_code == 0

    def test_what_is_not_there_is_refused_in_the_hubs_words(
        self, hub: Hub, saved: Saved, variant: Path, tree: Tree
    ) -> None:
        hub.add(BASE, saved("bert"))
        hub.add("owner/hidden", saved("bert"), gated=True)
        before = tree(variant)
        _refused(_card(variant, "--base-model", "owner/none"), "owner/none", "no model of that name", "Unauthorized")
        _refused(_card(variant, "--base-model", f"{BASE}@v9"), f"{BASE}@v9", "Not Found")
        _refused(_card(variant, "--base-model", "owner/hidden"), "hf auth login")
        _refused(_card(variant, "--print", "--base-model", "owner/none"), "no model of that name")
        assert tree(variant) == before

    def test_other_weights_are_refused_by_file_and_hashes(
        self, hub: Hub, saved: Saved, variant: Path, tree: Tree
    ) -> None:
        hub.add("owner/other", saved("roberta"))
        before = tree(variant)
        theirs, ours = (tree(saved(kind))["model.safetensors"] for kind in ("roberta", "bert"))
        _refused(_card(variant, "--base-model", "owner/other"), "model.safetensors", theirs, ours)
        assert tree(variant) == before

    def test_a_file_that_lies_in_git_is_hashed(self, hub: Hub, saved: Saved, variant: Path) -> None:
        hub.add(BASE, saved("bert"), in_git=True)
        hub.add("owner/other", saved("roberta"), in_git=True)
        assert _card(variant, "--base-model", BASE).exit_code == 0
        _refused(_card(variant, "--base-model", "owner/other"), "is not the file that was patched")

    @pytest.mark.parametrize("network", [False, True])
    def test_where_the_hub_does_not_answer_it_is_kept_and_push_checks(
        self, hub: Hub, saved: Saved, variant: Path, network: bool
    ) -> None:
        verify(variant, saved("bert"))
        for name in (BASE, "owner/wrong"):
            with nullcontext() if network else offline():
                hub.fail("GET /api/models", *[Fault(status=503)] if network else [])
                done = _card(variant, "--base-model", name)
            assert done.exit_code == 0 and hub.faults_left == 0 and _kept(variant) == {"name": name, "revision": None}
            assert f"{name} was not checked" in done.stderr and "push` will check it" in done.stderr
            with pytest.raises(SourceError, match="no model of that name"):
                plan_push(variant, NAME)
            commit = hub.add(name, saved("bert" if name == BASE else "roberta"))
            if name == BASE:
                assert plan_push(variant, NAME).base.revision == commit
        with pytest.raises(CheckpointError, match="is not the file that was patched"):
            plan_push(variant, NAME)

    def test_what_was_checked_is_not_forgotten_offline(self, hub: Hub, saved: Saved, variant: Path) -> None:
        commit = hub.add(BASE, saved("bert"))
        assert _card(variant, "--base-model", BASE).exit_code == 0
        with offline():
            assert _card(variant, "--base-model", BASE).exit_code == 0 and _kept(variant)["revision"] == commit
            assert _card(variant).exit_code == 0, "a card alone needs no network"

    def test_pickles_are_compared_with_pickles(self, hub: Hub, local: Path, tmp_path: Path) -> None:
        weights = {name: torch.from_numpy(value) for name, value in load_file(local / "model.safetensors").items()}
        (local / "model.safetensors").unlink()
        torch.save(weights, local / "pytorch_model.bin")
        hub.add(BASE, local)
        patch(local, tmp_path / "first", fold="key")
        patch(tmp_path / "first", tmp_path / "second", fold="value")
        for name, patches in (("first", 1), ("second", 2)):
            assert check_base(tmp_path / name, parse_base(BASE)).patches == patches
        torch.save(weights | {"extra": torch.ones(1)}, local / "pytorch_model.bin")
        hub.add(BASE, local)
        for name in ("first", "second"):
            with pytest.raises(CheckpointError, match="is not the file that was patched"):
                check_base(tmp_path / name, parse_base(BASE))


class TestChanged:
    def test_to_another_and_back(self, hub: Hub, saved: Saved, variant: Path, tree: Tree) -> None:
        hub.add(BASE, saved("bert"))
        commit = hub.add("owner/mirror", saved("bert"))
        assert _card(variant).exit_code == 0
        before = tree(variant)
        for name in (BASE, "owner/mirror"):
            assert _card(variant, "--base-model", name).exit_code == 0
        assert _kept(variant) == {"name": "owner/mirror", "revision": commit}
        card = (variant / "README.md").read_text()
        assert "base_model: owner/mirror" in card and BASE not in card
        for _ in range(2):
            assert _card(variant, "--no-base-model").exit_code == 0 and tree(variant) == before
        _refused(_card(variant, "--no-base-model", "--base-model", BASE), "Leave one of them out")

    def test_back_to_what_config_json_says(self, hub: Hub, saved: Saved, tmp_path: Path) -> None:
        commit = hub.add(BASE, saved("bert"))
        hub.add("owner/mirror", saved("bert"))
        patch(BASE, tmp_path / "known", fold="key")
        assert _card(tmp_path / "known", "--base-model", "owner/mirror").exit_code == 0
        assert _card(tmp_path / "known", "--no-base-model").exit_code == 0
        assert _kept(tmp_path / "known") == {"name": BASE, "revision": commit}
        assert f"base_model: {BASE}" in (tmp_path / "known" / "README.md").read_text()

    def test_a_card_that_somebody_wrote_into_keeps_its_base(self, hub: Hub, saved: Saved, variant: Path) -> None:
        hub.add(BASE, saved("bert"))
        hub.add("owner/mirror", saved("bert"))
        assert _card(variant, "--base-model", BASE).exit_code == 0
        card = variant / "README.md"
        card.write_text(card.read_text() + "By hand.\n")
        for change in (("--base-model", "owner/mirror"), ("--no-base-model",)):
            _refused(_card(variant, *change), "Somebody edited")
            assert _kept(variant)["name"] == BASE and "By hand." in card.read_text()
        assert _card(variant, "--no-base-model", "--overwrite").exit_code == 0 and not (variant / KEPT).exists()

    def test_a_push_does_not_contradict_the_card(self, hub: Hub, saved: Saved, variant: Path) -> None:
        first = hub.add(BASE, saved("bert"))
        hub.add("owner/mirror", saved("bert"))
        verify(variant, saved("bert"))
        assert _card(variant, "--base-model", BASE).exit_code == 0
        with pytest.raises(CheckpointError, match=f"names owner/mirror, and the card of .* names {BASE}"):
            plan_push(variant, NAME, base_model="owner/mirror")
        second = hub.add(BASE, saved("bert"))
        assert first != second
        for typed in (None, BASE, f"{BASE}@{first}"):
            assert plan_push(variant, NAME, base_model=typed).base.revision == first
        with pytest.raises(CheckpointError, match="names"):
            plan_push(variant, NAME, base_model=f"{BASE}@{second}")
        push(variant, NAME)
        assert json.loads(hub.files(NAME)[KEPT]) == {"name": BASE, "revision": first}

    def test_a_push_does_not_contradict_what_somebody_wrote(self, hub: Hub, saved: Saved, variant: Path) -> None:
        hub.add(BASE, saved("bert"))
        verify(variant, saved("bert"))
        assert _card(variant).exit_code == 0
        assert plan_push(variant, NAME, base_model=BASE).base.name == BASE
        card = variant / "README.md"
        card.write_text(card.read_text() + "By hand.\n")
        with pytest.raises(CheckpointError, match="names no base"):
            plan_push(variant, NAME, base_model=BASE)
        card.write_text(card.read_text() + f"Of {BASE}.\n")
        assert plan_push(variant, NAME, base_model=BASE).base.name == BASE

    def test_a_base_that_went_from_the_hub_stays_named(self, hub: Hub, saved: Saved, tmp_path: Path) -> None:
        """It was there when the variant was made of it."""
        commit = hub.add(BASE, saved("bert"))
        patch(BASE, tmp_path / "known", fold="key")
        verify(tmp_path / "known", BASE)
        del hub.repos[BASE]
        planned = plan_push(tmp_path / "known", NAME)
        assert (planned.base.name, planned.base.revision) == (BASE, commit)


class TestInPlace:
    def test_of_what_was_edited_the_source_is_known_again(self, hub: Hub, saved: Saved, local: Path) -> None:
        commit = hub.add(BASE, saved("bert"))
        hub.add("owner/other", saved("roberta"))
        patch_in_place(local, fold="key")
        _refused(_card(local, "--base-model", "owner/other"), "is not the file that was patched")
        assert _card(local, "--base-model", BASE).exit_code == 0
        assert _kept(local) == {"name": BASE, "revision": commit}

    def test_a_base_that_differs_where_nothing_was_edited_is_refused(
        self, hub: Hub, saved: Saved, local: Path, tmp_path: Path
    ) -> None:
        """As one is whose biases were frozen while it was fine-tuned."""
        values = load_file(local / "model.safetensors")
        name = next(name for name in values if name.endswith("query.weight"))
        values[name][0, 0] += 1
        shutil.copytree(local, tmp_path / "tuned")
        save_file(values, tmp_path / "tuned" / "model.safetensors", {"format": "pt"})
        hub.add("owner/tuned", tmp_path / "tuned")
        patch_in_place(local, fold="key")
        _refused(_card(local, "--base-model", "owner/tuned"), "is not the file that was patched")

    @pytest.mark.parametrize("shard", ["1GB", "20KB"])
    def test_one_edit_after_another(self, hub: Hub, saved: Saved, tmp_path: Path, shard: str) -> None:
        """The second moves what the first changed: value weights, and the same norms and output biases."""
        source, edited = saved("bert", shard=shard), tmp_path / "edited"
        hub.add(BASE, source)
        shutil.copytree(source, edited)
        patch_in_place(edited, fold="value:weight", layers=[0])
        hub.add("owner/first", edited)
        patch_in_place(edited, fold="query:norm,value")
        found = {name: check_base(edited, parse_base(name)).patches for name in ("owner/first", BASE)}
        assert found == {"owner/first": 1, BASE: 2}
        patch_in_place(edited, drop="key")
        assert check_base(edited, parse_base(BASE)).patches == 3

    def test_in_a_chain_with_copies(self, hub: Hub, saved: Saved, local: Path, tmp_path: Path) -> None:
        hub.add(BASE, saved("bert"))
        patch_in_place(local, fold="key", layers=[0])
        patch(local, tmp_path / "copy", fold="key", layers=[1])
        patch_in_place(tmp_path / "copy", fold="value")
        assert check_base(tmp_path / "copy", parse_base(BASE)).patches == 3

    @pytest.mark.parametrize("shard", ["1GB", 50])
    def test_below_a_copy_that_tensors_left(self, hub: Hub, saved: Saved, tmp_path: Path, shard: str | int) -> None:
        """Of the smallest shards some hold nothing but tensors that left, and are not there any more."""
        hub.add(BASE, saved("bert", shard=shard))
        edited, absent = shutil.copytree(saved("bert", shard=shard), tmp_path / "edited"), tmp_path / "absent"
        patch_in_place(edited, fold="query:norm", layers=[0])
        patch(edited, absent, fold="key,value", storage="absent")
        assert (len(list(edited.glob("*.safetensors"))) > len(list(absent.glob("*.safetensors")))) is (shard == 50)
        assert check_base(absent, parse_base(BASE)).patches == 2

    def test_without_an_undo_file_nothing_tells(self, hub: Hub, saved: Saved, local: Path) -> None:
        hub.add(BASE, saved("bert"))
        patch_in_place(local, fold="key")
        (local / "bias_patch" / "undo.zip").unlink()
        _refused(_card(local, "--base-model", BASE), "It is not known what", "undo.zip")

    def test_what_was_trained_since_has_no_source(self, hub: Hub, saved: Saved, local: Path) -> None:
        hub.add(BASE, saved("bert"))
        patch_in_place(local, fold="key")
        values = load_file(local / "model.safetensors")
        name = next(name for name in values if name.endswith("key.bias"))
        save_file(values | {name: values[name] + 1}, local / "model.safetensors", {"format": "pt"})
        _refused(_card(local, "--base-model", BASE), "changed since it was patched")


class TestChain:
    @pytest.fixture
    def second(self, hub: Hub, saved: Saved, tmp_path: Path) -> Path:
        """A variant of a variant of a copy of the base."""
        hub.add(BASE, saved("bert"))
        patch(saved("bert"), tmp_path / "first", fold="key")
        patch(tmp_path / "first", tmp_path / "second", fold="value")
        verify(tmp_path / "second", tmp_path / "first")
        return tmp_path / "second"

    def test_the_first_source_is_a_base_and_the_card_says_how_far(self, hub: Hub, second: Path) -> None:
        assert _card(second, "--base-model", BASE).exit_code == 0
        card = (second / "README.md").read_text()
        assert _kept(second)["patches"] == 2 and "the last of 2 since the base" in card
        assert "It computes what `first` computes" in card and "took the 1 before it back too" in card
        assert "It computes what its base computes" not in card

    def test_a_stranger_is_none(self, hub: Hub, saved: Saved, second: Path) -> None:
        hub.add("owner/other", saved("roberta"))
        _refused(_card(second, "--base-model", "owner/other"), "is not the base", "one of the 1 before")

    def test_it_is_published_once_it_was_measured_against_the_base(self, hub: Hub, second: Path) -> None:
        with pytest.raises(CheckpointError, match=f"is against first, and not against {BASE}"):
            plan_push(second, NAME, base_model=BASE)
        with pytest.raises(CheckpointError, match="by 2 patches"):
            plan_push(second, NAME, base_model=BASE, patch_only=True)
        verify(second, BASE)
        push(second, NAME, base_model=BASE)
        assert f"It computes what `{BASE}` computes" in hub.files(NAME)["README.md"].decode()

    def test_without_one_it_is_published_as_before(self, hub: Hub, second: Path) -> None:
        push(second, NAME)
        assert "It computes what its base computes" in hub.files(NAME)["README.md"].decode()


def test_the_hubs_cache_is_left_alone(hub: Hub, saved: Saved, variant: Path, tmp_path: Path) -> None:
    hub.add(BASE, saved("bert"))
    repo = tmp_path / "models--owner--variant"
    (repo / "blobs").mkdir(parents=True)
    snapshot = shutil.copytree(variant, repo / "snapshots" / ("0" * 40))
    assert isinstance(_card(snapshot, "--base-model", BASE).exception, TargetError) and not (snapshot / KEPT).exists()
