"""Variants published without their weights, and made again of the base by whoever fetches them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModel

from hf_bias_patch import inspect, load, patch, patch_in_place, pull, verify
from hf_bias_patch.checkpoint.checkpoint import open_model
from hf_bias_patch.checkpoint.sidecar import PATCH
from hf_bias_patch.errors import BiasPatchError, CheckpointError, SourceError, TargetError
from hf_bias_patch.patching.patch_only import VALUES, extract
from hf_bias_patch.publish.push import Pushed, push
from tests.hub.server import Fault, Hub

Saved = Callable[..., Path]
Tree = Callable[[Path], dict[str, str]]

BASE, THIN = "owner/base", "owner/thin"
TOKENS = torch.arange(3, 8)[None]
pytestmark = pytest.mark.usefixtures("login")


@pytest.fixture
def variant(hub: Hub, saved: Saved, tmp_path: Path) -> Path:
    """Of a base on the Hub, with new vectors, new matrices and zeros."""
    return _variant(hub, saved("bert"), tmp_path / "variant", fold="key,value,query")


def _variant(hub: Hub, base: Path, out: Path, **asked: object) -> Path:
    hub.add(BASE, base)
    patch(BASE, out, **asked)  # type: ignore[arg-type]
    verify(out, BASE)
    return out


def _push(variant: Path, name: str = THIN, **asked: object) -> Pushed:
    return push(variant, name, patch_only=True, **asked)  # type: ignore[arg-type]


def _forget(hub: Hub, tmp_path: Path) -> None:
    """An empty cache, as on another machine."""
    shutil.rmtree(tmp_path / "cache")
    hub.requests.clear()


@pytest.mark.parametrize(
    ("kind", "shard", "asked"),
    [
        ("bert", "1GB", {"fold": "key,value,query"}),
        ("bert", "20KB", {"fold": "key,value:weight", "layers": [0]}),
        ("gpt2", "1GB", {"fold": "key,value,query"}),
        ("bart", "20KB", {"fold": "key,value", "storage": "absent"}),
        ("bert", "1GB", {"fold": "key", "fill": "value=uniform:-1:1"}),
    ],
    ids=["weights", "shards", "fused", "absent", "filled"],
)
def test_what_is_made_again_is_what_was_published(
    hub: Hub, saved: Saved, tmp_path: Path, tree: Tree, kind: str, shard: str, asked: dict[str, object]
) -> None:
    variant = _variant(hub, saved(kind, shard=shard), tmp_path / "variant", **asked)
    _push(variant, allow_lossy="fill" in asked)
    there = hub.files(THIN)
    assert PATCH in there and not any(name.startswith("model") and name.endswith(".safetensors") for name in there)
    _forget(hub, tmp_path)
    made = tree(pull(THIN, tmp_path / "made"))
    extra = {name: made.pop(name) for name in set(made) - set(tree(variant))}
    assert made == tree(variant)
    assert set(extra) == {"README.md", *(f"bias_patch/{name}" for name in ("base.json", "norms.json", "norms.png"))}


def test_it_is_kilobytes(hub: Hub, variant: Path) -> None:
    """New matrices are made of the base's; of vectors, those that became zero are known."""
    _push(variant)
    there = hub.files(THIN)
    values = load_file(variant / "model.safetensors")
    written = {name for name, content in values.items() if content.ndim == 1}
    assert VALUES in there and (variant / "bias_patch" / "undo.zip").exists() and "bias_patch/undo.zip" not in there
    (variant / "sent.safetensors").write_bytes(there[VALUES])
    sent = load_file(variant / "sent.safetensors")
    assert set(sent) < written and all(
        (values[name] == content).all() and content.any() for name, content in sent.items()
    )
    assert json.loads(there[PATCH])["revision"] == hub.repos[BASE].refs["main"]


def test_it_loads_like_any_other(hub: Hub, variant: Path, tmp_path: Path) -> None:
    _push(variant)
    _forget(hub, tmp_path)
    with torch.no_grad():
        base, made = AutoModel.from_pretrained(BASE).eval()(TOKENS)[0], load(THIN, AutoModel)(TOKENS)[0]
    assert torch.allclose(base, made, atol=1e-5) and not torch.equal(base, made)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".bias_patch")]


def test_the_card_says_how(hub: Hub, variant: Path) -> None:
    _push(variant)
    card = hub.files(THIN)["README.md"].decode()
    assert f'hf_bias_patch.load("{THIN}", ' in card and "On the Hub it has no weights" in card
    assert "from_pretrained" not in card


def test_the_base_is_taken_at_its_commit(hub: Hub, saved: Saved, variant: Path, tmp_path: Path, tree: Tree) -> None:
    _push(variant)
    hub.add(BASE, saved("gpt2"))
    _forget(hub, tmp_path)
    pull(THIN, tmp_path / "made")
    assert tree(tmp_path / "made")["model.safetensors"] == tree(variant)["model.safetensors"]


def test_another_base_is_refused_before_it_is_downloaded(
    hub: Hub, saved: Saved, variant: Path, tmp_path: Path, tree: Tree
) -> None:
    _push(variant)
    patched = tree(saved("bert"))["model.safetensors"]
    commits = hub.repos[BASE].commits
    other = hub.add("owner/other", saved("roberta"))
    commits[hub.repos[BASE].refs["main"]] = hub.repos["owner/other"].commits[other]
    _forget(hub, tmp_path)
    with pytest.raises(CheckpointError, match="is not what was patched") as caught:
        pull(THIN, tmp_path / "made")
    assert patched in str(caught.value) and tree(saved("roberta"))["model.safetensors"] in str(caught.value)
    assert not (tmp_path / "made").exists() and not any(
        ".safetensors" in r.path for r in hub.requests if BASE in r.path
    )
    with pytest.raises(CheckpointError, match="is not what was patched"):
        pull(THIN, tmp_path / "made", base=saved("roberta"))
    pull(THIN, tmp_path / "made", base=saved("bert"))
    assert tree(tmp_path / "made")["model.safetensors"] == tree(variant)["model.safetensors"]


def test_a_base_that_is_gone_is_named(hub: Hub, saved: Saved, variant: Path, tmp_path: Path) -> None:
    _push(variant)
    del hub.repos[BASE]
    _forget(hub, tmp_path)
    with pytest.raises(SourceError, match=f"no public model '{BASE}'"):
        load(THIN, AutoModel)
    pull(THIN, tmp_path / "made", base=saved("bert"))


@pytest.mark.parametrize("damaged", ["base", "thin"])
def test_what_arrives_damaged_is_fetched_again(hub: Hub, variant: Path, tmp_path: Path, damaged: str) -> None:
    _push(variant)
    _forget(hub, tmp_path)
    hub.fail(rf"GET /owner/{damaged}/.*\.safetensors", Fault(flip_at=-1))
    with pytest.raises(CheckpointError, match="damaged"):
        pull(THIN, tmp_path / "made")
    assert hub.faults_left == 0 and not (tmp_path / "made").exists()
    pull(THIN, tmp_path / "made")


def test_a_whole_one_that_arrives_damaged_is_fetched_again(hub: Hub, variant: Path, tmp_path: Path, tree: Tree) -> None:
    push(variant, "owner/whole")
    _forget(hub, tmp_path)
    hub.fail(r"GET /owner/whole/.*\.safetensors", Fault(flip_at=-1))
    with pytest.raises(CheckpointError, match="damaged"):
        pull("owner/whole", tmp_path / "made")
    pull("owner/whole", tmp_path / "made")
    made = tree(tmp_path / "made")
    assert {name: made[name] for name in tree(variant)} == tree(variant)


def test_a_download_that_is_cut_goes_on(hub: Hub, variant: Path, tmp_path: Path) -> None:
    _push(variant)
    _forget(hub, tmp_path)
    hub.fail(r"GET /owner/base/.*\.safetensors", Fault(cut_after=1000))
    pull(THIN, tmp_path / "made")
    assert hub.faults_left == 0


def test_values_that_somebody_changed_are_refused(hub: Hub, variant: Path, tmp_path: Path) -> None:
    _push(variant)
    for name, content in hub.files(THIN).items():
        (tmp_path / "forged" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "forged" / name).write_bytes(content)
    values = load_file(tmp_path / "forged" / VALUES)
    name = next(iter(values))
    save_file(values | {name: values[name] + 1}, tmp_path / "forged" / VALUES)
    hub.add("owner/forged", tmp_path / "forged")
    with pytest.raises(CheckpointError, match="differs from what was published"):
        pull("owner/forged", tmp_path / "made")
    assert not (tmp_path / "made").exists()
    (tmp_path / "forged" / PATCH).write_text("{}")
    hub.add("owner/forged", tmp_path / "forged")
    with pytest.raises(CheckpointError, match="cannot be read"):
        pull("owner/forged", tmp_path / "made")


def test_where_weights_are_needed_it_says_how_to_get_them(hub: Hub, variant: Path, tmp_path: Path) -> None:
    _push(variant)
    for attempt in (
        lambda: inspect(THIN),
        lambda: patch(THIN, tmp_path / "out", fold="key"),
        lambda: verify(THIN, BASE),
    ):
        with pytest.raises(BiasPatchError, match="pull"):
            attempt()


def test_a_whole_push_takes_its_place_and_not_the_other_way(hub: Hub, variant: Path) -> None:
    _push(variant)
    assert {PATCH, VALUES} <= set(push(variant, THIN).plan.deleted)
    assert PATCH not in hub.files(THIN) and "model.safetensors" in hub.files(THIN)
    with pytest.raises(TargetError, match="holds weights"):
        _push(variant)


def test_again_is_nothing_to_do(hub: Hub, variant: Path) -> None:
    first = _push(variant)
    assert _push(variant).commit == first.commit


class TestWhatCannot:
    def test_be_made_of_a_base_that_nobody_knows(self, saved: Saved, tmp_path: Path) -> None:
        patch(saved("bert"), tmp_path / "local", fold="key")
        verify(tmp_path / "local", saved("bert"))
        with pytest.raises(SourceError, match="Hub id of the base is not known"):
            _push(tmp_path / "local")

    def test_be_made_of_a_base_that_is_named(self, hub: Hub, saved: Saved, tmp_path: Path) -> None:
        """This can."""
        commit = hub.add(BASE, saved("bert"))
        patch(saved("bert"), tmp_path / "local", fold="key")
        verify(tmp_path / "local", saved("bert"))
        _push(tmp_path / "local", base_model=f"{BASE}@{commit}")
        made = pull(THIN, tmp_path / "made") / "model.safetensors"
        assert made.read_bytes() == (tmp_path / "local" / "model.safetensors").read_bytes()
        assert json.loads(hub.files(THIN)[PATCH])["revision"] == commit

    def test_hold_what_was_trained_since(self, hub: Hub, variant: Path) -> None:
        values = load_file(variant / "model.safetensors")
        name = next(name for name in values if name.endswith("word_embeddings.weight"))
        save_file(values | {name: values[name] * 1.5}, variant / "model.safetensors", {"format": "pt"})
        with pytest.raises(CheckpointError, match="certificate is of another"):
            _push(variant)
        with pytest.raises(CheckpointError, match="differs from the base by more than the plan's edits"):
            extract(open_model(variant), BASE, "c" * 40, {})

    def test_be_made_of_an_edit_in_place(self, hub: Hub, saved: Saved, tmp_path: Path) -> None:
        hub.add(BASE, saved("bert"))
        shutil.copytree(saved("bert"), tmp_path / "edited")
        patch_in_place(tmp_path / "edited", fold="key")
        verify(tmp_path / "edited", saved("bert"))
        with pytest.raises(CheckpointError, match="edited in place"):
            _push(tmp_path / "edited", base_model=BASE)

    def test_be_pulled(self, hub: Hub, saved: Saved, variant: Path, tmp_path: Path) -> None:
        _forget(hub, tmp_path)
        with pytest.raises(CheckpointError, match="neither patched nor fine-tuned"):
            pull(BASE, tmp_path / "made")
        assert not any(".safetensors" in request.path for request in hub.requests)
        with pytest.raises(SourceError, match="no public model"):
            pull("owner/none", tmp_path / "made")
        _push(variant)
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "mine").touch()
        with pytest.raises(TargetError):
            pull(THIN, tmp_path / "made")
        assert (tmp_path / "made" / "mine").exists()


def test_the_bases_licence_comes_along(hub: Hub, saved: Saved, tmp_path: Path) -> None:
    """The card may link to it; other files of the base stay where they are."""
    shutil.copytree(saved("bert"), tmp_path / "base")
    for name in ("LICENSE", "notes.txt"):
        (tmp_path / "base" / name).write_text(name)
    variant = _variant(hub, tmp_path / "base", tmp_path / "variant", fold="key")
    _push(variant)
    assert hub.files(THIN)["LICENSE"] == b"LICENSE" and "notes.txt" not in hub.files(THIN)
    assert (pull(THIN, tmp_path / "made") / "notes.txt").exists()
