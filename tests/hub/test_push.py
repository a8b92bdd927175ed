"""Variants published by the real client to a server of the Hub's protocol, and what goes wrong on the way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError
from transformers import AutoModel

import hf_bias_patch as hbp
from hf_bias_patch import patch, verify
from hf_bias_patch.errors import ArgumentError, BiasPatchError, CheckpointError, TargetError
from hf_bias_patch.patching.pulling import pull
from hf_bias_patch.publish.card_text import LOSSY
from hf_bias_patch.publish.push import Pushed, push
from hf_bias_patch.publish.push_plan import plan_push
from tests.hub.server import Fault, Hub

Saved = Callable[..., Path]
Tree = Callable[[Path], dict[str, str]]

BASE, NAME = "owner/base", "owner/variant"
TOKEN = "hf_right"
BY_US = {
    "README.md",
    "bias_patch/base.json",
    "bias_patch/base_card.md",
    "bias_patch/norms.json",
    "bias_patch/norms.png",
}
pytestmark = pytest.mark.usefixtures("login")


@pytest.fixture
def variant(hub: Hub, saved: Saved, tmp_path: Path) -> Path:
    """Of a base on the Hub in several shards: one layer patched, and measured."""
    shutil.copytree(saved("bert", shard="20KB"), tmp_path / "base")
    (tmp_path / "base" / "README.md").write_text("---\nlicense: mit\n---\n# Base\n")
    hub.add(BASE, tmp_path / "base")
    patch(BASE, tmp_path / "variant", fold="key,value", layers=[0])
    verify(tmp_path / "variant", BASE)
    return tmp_path / "variant"


def _push(variant: Path, name: str = NAME, **asked: object) -> Pushed:
    return push(variant, name, **asked)  # type: ignore[arg-type]


def _how(variant: Path, name: str = NAME, **asked: object) -> dict[str, str]:
    return {file.name: file.how for file in plan_push(variant, name, **asked).files}  # type: ignore[arg-type]


def _writes(hub: Hub) -> list[str]:
    return [f"{request.method} {request.path}" for request in hub.requests if request.method in ("POST", "PUT")]


@contextmanager
def _refused(hub: Hub, says: str) -> Iterator[None]:
    """An error that says what to do and holds no token, and nothing of the variant to be seen."""
    before = {name: repo.refs.copy() for name, repo in hub.repos.items()}
    with pytest.raises(BiasPatchError, match=says) as caught:
        yield
    assert caught.value.remedy and "hf_" not in str(caught.value).replace("hf_bias_patch", "")
    for name, repo in hub.repos.items():
        assert name in before or not hub.files(name), f"{name} was published by half"
        assert all(repo.refs[ref] == commit for ref, commit in before.get(name, {}).items() if name != BASE)


class TestWhole:
    def test_what_is_pushed_is_what_lies_there(self, hub: Hub, variant: Path, tree: Tree) -> None:
        before = tree(variant)
        done = _push(variant)
        assert tree(variant) == before, "a push writes nothing here"
        there = hub.files(NAME)
        own = {path.relative_to(variant).as_posix(): path.read_bytes() for path in variant.rglob("*") if path.is_file()}
        assert all(there[name] == content for name, content in own.items() if name != "README.md")
        assert set(there) == set(own) | BY_US
        assert done.commit == hub.repos[NAME].refs["main"] and done.url.endswith(done.commit)
        assert len(hub.repos[NAME].commits) == 2  # an empty one by the Hub, and this
        summary, description = hub.messages[0]
        assert "fold key" in summary and "the variant's error" in description

    def test_the_card_names_the_place_and_the_commit_of_the_base(self, hub: Hub, variant: Path) -> None:
        _push(variant)
        card = hub.files(NAME)["README.md"].decode()
        assert f'from_pretrained("{NAME}")' in card and f"base_model: {BASE}" in card and "license: mit" in card
        assert hub.repos[BASE].refs["main"][:12] in card

    def test_stock_transformers_loads_it(self, hub: Hub, variant: Path) -> None:
        _push(variant)
        tokens = torch.arange(5)[None]
        with torch.no_grad():
            base, ours = (AutoModel.from_pretrained(name).eval()(tokens)[0] for name in (BASE, NAME))
        assert torch.allclose(base, ours, atol=1e-5) and not torch.equal(base, ours)

    def test_unchanged_files_are_copied_on_the_server(self, hub: Hub, variant: Path) -> None:
        how = _how(variant)
        shards = {name: done for name, done in how.items() if name.endswith(".safetensors")}
        assert set(shards.values()) == {"upload", "copy"}
        _push(variant)
        uploaded = sum((variant / name).stat().st_size for name, done in shards.items() if done == "upload")
        copied = sum((variant / name).stat().st_size for name, done in shards.items() if done == "copy")
        sent = sum(request.received for request in hub.requests if request.method == "PUT")
        assert (
            uploaded <= sent < uploaded + (variant / "bias_patch" / "undo.zip").stat().st_size + 1 < uploaded + copied
        )
        assert all(hub.files(NAME)[name] == (variant / name).read_bytes() for name in shards)

    def test_where_the_hub_does_not_copy_all_is_uploaded(self, hub: Hub, variant: Path) -> None:
        hub.fail("duplicate", Fault(status=400))
        done = _push(variant)
        assert not done.copied and hub.faults_left == 0
        assert all(hub.files(NAME)[path.name] == path.read_bytes() for path in variant.glob("*.safetensors"))

    def test_a_dry_run_only_asks(self, hub: Hub, variant: Path, tree: Tree) -> None:
        before = tree(variant)
        planned = plan_push(variant, NAME)
        assert planned.there is None and planned.changes and not _writes(hub) and NAME not in hub.repos
        assert planned.nbytes("upload") and planned.nbytes("copy") and tree(variant) == before

    def test_the_plan_is_announced_before_anything_is_sent(self, hub: Hub, variant: Path) -> None:
        seen: list[tuple[object, list[str]]] = []
        done = push(variant, NAME, announce=lambda plan: seen.append((plan, _writes(hub))))
        assert seen == [(done.plan, [])] and done.plan.nbytes("upload") and _writes(hub)

    def test_again_is_nothing_to_do(self, hub: Hub, variant: Path) -> None:
        first = _push(variant)
        before = len(_writes(hub))
        assert set(_how(variant).values()) == {"same"} and _push(variant).commit == first.commit
        assert len(_writes(hub)) == before

    def test_only_what_changed_is_sent(self, hub: Hub, variant: Path) -> None:
        _push(variant)
        (variant / "notes.txt").write_text("by hand")
        assert [name for name, how in _how(variant).items() if how != "same"] == ["notes.txt"]
        _push(variant)
        assert hub.files(NAME)["notes.txt"] == b"by hand" and len(hub.repos[NAME].commits) == 3

    def test_hidden_files_stay_here(self, hub: Hub, variant: Path) -> None:
        (variant / ".env").write_text("TOKEN=secret")
        assert ".env" not in _how(variant)

    def test_what_an_earlier_push_left_goes(self, hub: Hub, saved: Saved, variant: Path, tmp_path: Path) -> None:
        """Weights of another sharding would be loaded instead; other files are somebody's."""
        patch(saved("bert"), tmp_path / "other", fold="key")
        verify(tmp_path / "other", saved("bert"))
        _push(tmp_path / "other")
        hub.repos[NAME].commit(
            hub.repos[NAME].at("main")[1] | {"mine.txt": next(iter(hub.repos[BASE].at("main")[1].values()))}
        )  # type: ignore[index]
        assert plan_push(variant, NAME).deleted == ("model.safetensors",)
        _push(variant)
        assert "model.safetensors" not in hub.files(NAME) and "mine.txt" in hub.files(NAME)

    def test_what_an_earlier_push_said_goes_too(self, hub: Hub, variant: Path, tmp_path: Path) -> None:
        """Scores of another variant, and the loader of one whose biases were absent."""
        _push(variant)
        stale = (".eval_results/hf_bias_patch.yaml", "modeling_bias_patch.py")
        for name in stale:
            (tmp_path / "stale" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "stale" / name).write_text("old")
        hub.add(NAME, tmp_path / "stale", keep=True)
        assert plan_push(variant, NAME).deleted == stale


class TestPlaces:
    def test_a_pull_request_comes_from_anybody(self, hub: Hub, variant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_stranger")
        before = hub.repos[BASE].refs["main"]
        done = _push(variant, BASE, create_pr=True)
        assert done.url.endswith("discussions/1") and hub.repos[BASE].refs["main"] == before
        assert "bias_patch/plan.json" in hub.files(BASE, "refs/pr/1")

    def test_a_branch_is_made(self, hub: Hub, variant: Path) -> None:
        _push(variant)
        main = hub.repos[NAME].refs["main"]
        (variant / "notes.txt").write_text("only there")
        _push(variant, revision="second")
        assert hub.repos[NAME].refs["main"] == main and "notes.txt" in hub.files(NAME, "second")
        _push(variant, "owner/new", revision="second")
        assert not hub.files("owner/new") and hub.files("owner/new", "second")

    def test_private_is_private(self, hub: Hub, variant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        _push(variant, private=True)
        assert hub.repos[NAME].private
        _push(variant, private=True)
        _push(variant, "owner/public")
        with _refused(hub, "is public"):
            _push(variant, "owner/public", private=True)

    def test_a_base_is_not_replaced(self, hub: Hub, variant: Path) -> None:
        with _refused(hub, "is the base itself"):
            _push(variant, BASE)

    @pytest.mark.parametrize("name", ["variant", "a/b/c", "/tmp/x", "owner/-", ""])
    def test_a_name_is_two_words(self, variant: Path, name: str) -> None:
        with pytest.raises(ArgumentError, match="no name of a model"):
            plan_push(variant, name)

    def test_the_base_is_what_was_patched(self, hub: Hub, saved: Saved, variant: Path) -> None:
        hub.add("owner/impostor", saved("bert"))
        hub.add("owner/other", saved("gpt2"))
        for name in ("owner/impostor", "owner/other"):
            with _refused(hub, "is not the file that was patched"):
                _push(variant, base_model=name)
        with _refused(hub, "no model of that name"):
            _push(variant, base_model="owner/none")


class TestProof:
    def test_without_a_certificate(self, hub: Hub, variant: Path) -> None:
        (variant / "bias_patch" / "certificate.json").unlink()
        with _refused(hub, "has no certificate"):
            _push(variant)

    def test_with_one_that_fails(self, hub: Hub, variant: Path) -> None:
        path = variant / "bias_patch" / "certificate.json"
        certificate = json.loads(path.read_text())
        certificate["runs"][0]["deployed"][0]["error"] = 0.5
        path.write_text(json.dumps(certificate))
        with _refused(hub, "does not pass"):
            _push(variant)

    def test_with_one_of_other_weights(self, hub: Hub, variant: Path) -> None:
        shard = next(variant.glob("*.safetensors"))
        content = bytearray(shard.read_bytes())
        content[-1] ^= 1
        shard.write_bytes(content)
        with _refused(hub, f"certificate is of another {shard.name}"):
            _push(variant)

    def test_a_lossy_one_says_so_first(self, hub: Hub, saved: Saved, tmp_path: Path) -> None:
        patch(saved("bert"), tmp_path / "lossy", drop="query")
        with _refused(hub, "on purpose"):
            _push(tmp_path / "lossy")
        _push(tmp_path / "lossy", allow_lossy=True)
        lines = hub.files(NAME)["README.md"].decode().split("---\n", 2)[2].splitlines()
        assert next(line for line in lines if line and not line.startswith("<!--")) == f"**{LOSSY}**"
        hbp.card(tmp_path / "lossy")
        card = tmp_path / "lossy" / "README.md"
        card.write_text(card.read_text().replace(LOSSY, "All is well."))
        with _refused(hub, "does not say"):
            _push(tmp_path / "lossy", allow_lossy=True)

    def test_what_somebody_wrote_into_a_card_stays(self, hub: Hub, variant: Path) -> None:
        hbp.card(variant)
        card = variant / "README.md"
        card.write_text(card.read_text() + "\nBy hand.\n")
        _push(variant)
        assert hub.files(NAME)["README.md"] == card.read_bytes()

    def test_a_card_that_facts_overtook_is_made_anew(self, hub: Hub, saved: Saved, tmp_path: Path) -> None:
        """Written before anything was measured, or for a repository without the weights."""
        hub.add(BASE, saved("bert"))
        patch(BASE, tmp_path / "late", fold="key")
        hbp.card(tmp_path / "late")
        verify(tmp_path / "late", BASE)
        _push(tmp_path / "late", patch_only=True)
        assert "It computes what its base computes" in hub.files(NAME)["README.md"].decode()
        pull(NAME, tmp_path / "pulled")
        _push(tmp_path / "pulled", "owner/whole")
        assert "it has no weights" not in hub.files("owner/whole")["README.md"].decode()

    def test_what_is_no_variant(self, hub: Hub, saved: Saved) -> None:
        with _refused(hub, "holds no patched and no fine-tuned model"):
            _push(saved("bert"))


class TestFaults:
    """After each: a message, nothing by half, and a push that succeeds."""

    def _then_it_works(self, hub: Hub, variant: Path) -> None:
        assert hub.faults_left == 0, "the fault did not happen"
        _push(variant)
        shard = next(variant.glob("*.safetensors"))
        assert hub.files(NAME)[shard.name] == shard.read_bytes()

    @pytest.mark.parametrize(
        ("path", "fault", "says"),
        [
            ("repos/create", Fault(status=401), "Log in"),
            ("preupload", Fault(status=403), "may not write"),
            ("preupload", Fault(status=404), "no such revision"),
            ("/commit/", Fault(status=412), "Somebody pushed"),
            ("/commit/", Fault(status=429, headers={"Retry-After": "1"}), "answered 429"),
            ("/commit/", Fault(status=500), "answered 500"),
            ("/commit/", Fault(status=503), "answered 503"),
            ("/commit/", Fault(cut_after=10), "broke"),
            ("objects/batch", Fault(status=418), "answered 418"),
        ],
    )
    def test_what_the_hub_refuses(self, hub: Hub, variant: Path, path: str, fault: Fault, says: str) -> None:
        hub.fail(path, fault)
        with pytest.raises(TargetError, match=says) as caught:
            _push(variant)
        assert "ublished" in str(caught.value) and TOKEN not in str(caught.value)
        assert not hub.repos.get(NAME) or not hub.files(NAME)
        self._then_it_works(hub, variant)

    @pytest.mark.parametrize(
        ("path", "fault"),
        [
            ("PUT", Fault(cut_after=10_000)),
            ("PUT", Fault(status=500)),
            ("preupload", Fault(status=429, headers={"Retry-After": "1"})),
            ("objects/batch", Fault(status=503)),
        ],
    )
    def test_what_passes_is_tried_again(self, hub: Hub, variant: Path, path: str, fault: Fault) -> None:
        hub.fail(path, fault)
        _push(variant)
        assert hub.faults_left == 0 and hub.files(NAME)

    def test_a_connection_that_breaks_again_and_again(self, hub: Hub, variant: Path) -> None:
        """What arrived is not sent again."""
        hub.fail("PUT .*", *[Fault(cut_after=100)] * 60)
        with _refused(hub, "broke"):
            _push(variant)
        arrived = set(hub.repos[NAME].objects)
        hub.mend()
        before = len(hub.requests)
        _push(variant)
        sent_again = {request.path.rpartition("/")[2] for request in hub.requests[before:] if request.method == "PUT"}
        assert hub.files(NAME) and not arrived & sent_again

    def test_somebody_pushes_in_between(self, hub: Hub, saved: Saved, variant: Path) -> None:
        _push(variant)
        (variant / "notes.txt").write_text("ours")
        hub.fail("/commit/", Fault(first=lambda: hub.add(NAME, saved("gpt2"))))
        with pytest.raises(TargetError, match="Somebody pushed"):
            _push(variant)
        assert "notes.txt" not in hub.files(NAME) and json.loads(hub.files(NAME)["config.json"])["model_type"] == "gpt2"
        _push(variant)
        assert hub.files(NAME)["notes.txt"] == b"ours"

    def test_a_commit_of_which_nobody_was_told(self, hub: Hub, variant: Path) -> None:
        hub.fail("/commit/", Fault(unanswered=True))
        with pytest.raises(TargetError, match=r"broke.*All of it was published, or nothing"):
            _push(variant)
        before = len(_writes(hub))
        assert _push(variant).commit == hub.repos[NAME].refs["main"] and len(_writes(hub)) == before

    def test_somebody_makes_the_repository_in_between(self, hub: Hub, saved: Saved, variant: Path) -> None:
        hub.fail("repos/create", Fault(first=lambda: hub.add(NAME, saved("gpt2"))))
        with pytest.raises(TargetError, match="Somebody created"):
            _push(variant)
        assert not any(name.startswith("bias_patch/") for name in hub.files(NAME))

    def test_a_hub_that_does_not_answer_is_no_broken_push(self, hub: Hub, variant: Path) -> None:
        _push(variant)
        hub.fail(f"/api/models/{NAME}", *[Fault(status=500)] * 20)
        with pytest.raises(TargetError, match="cannot be listed; nothing was sent"):
            plan_push(variant, NAME, base_model=None)

    def test_a_stranger_and_nobody(self, hub: Hub, variant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for token, says in (("hf_stranger", "may not write"), ("hf_wrong", "Log in"), (None, "Nobody is logged in")):
            monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN")
            with _refused(hub, says):
                _push(variant)
            assert NAME not in hub.repos

    def test_tokens_are_written_nowhere(self, hub: Hub, variant: Path) -> None:
        _push(variant)
        assert not any(TOKEN.encode() in content for content in hub.files(NAME).values())
        hub.fail("/commit/", Fault(status=500))
        (variant / "notes.txt").write_text("more")
        with pytest.raises(TargetError) as caught:
            _push(variant)
        chain: BaseException | None = caught.value
        while chain is not None:
            assert TOKEN not in str(chain) and not (isinstance(chain, HfHubHTTPError) and TOKEN in repr(chain))
            chain = chain.__cause__


def test_absent_biases_bring_their_loader(hub: Hub, saved: Saved, tmp_path: Path) -> None:
    hub.add(BASE, saved("bert"))
    patch(BASE, tmp_path / "absent", fold="key,value", storage="absent")
    verify(tmp_path / "absent", BASE)
    _push(tmp_path / "absent")
    model = AutoModel.from_pretrained(NAME, trust_remote_code=True).eval()
    assert not any(name.endswith("key.bias") for name, _ in model.named_parameters())
    tokens = torch.arange(5)[None]
    with torch.no_grad():
        assert torch.allclose(AutoModel.from_pretrained(BASE).eval()(tokens)[0], model(tokens)[0], atol=1e-5)
    with pytest.raises(CheckpointError, match="holds no patched and no fine-tuned model"):
        plan_push(tmp_path, NAME)
