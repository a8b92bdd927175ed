"""Checkpoints read where they lie: the real client against a server of the Hub's protocol, every byte counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hf_bias_patch import inspect, patch, plan
from hf_bias_patch.checkpoint.remote import open_anywhere
from hf_bias_patch.errors import CheckpointError, SourceError
from tests.hub.server import Fault, Hub

Saved = Callable[..., Path]

NAME = "owner/name"
WEIGHTS = r"\.safetensors$"


@pytest.mark.parametrize("kind", ["bert", "gpt2", "bart"])
@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_what_is_seen_there_is_what_is_seen_here(hub: Hub, saved: Saved, kind: str, shard: str) -> None:
    folder = saved(kind, shard=shard)
    hub.add(NAME, folder)
    here, there = inspect(folder), inspect(NAME)
    assert replace(there, model=here.model, commit=None, received=0) == here
    assert there.model == NAME and 0 < there.received == hub.sent - _listing(hub)
    assert plan(NAME, fold="key,value").dumps() == plan(folder, fold="key,value").dumps()


def test_weights_are_not_moved(hub: Hub, saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only headers, and the biases by ranges that do not reach across a matrix."""
    monkeypatch.setattr("hf_bias_patch.checkpoint.remote._FIRST", 64)
    monkeypatch.setattr("hf_bias_patch.checkpoint.remote._GAP", 0)
    folder = saved("bert")
    hub.add(NAME, folder)
    found = inspect(NAME)
    header = len(open_anywhere(folder).checkpoint.files["model.safetensors"].raw)
    config = (folder / "config.json").stat().st_size
    assert found.received == config + header + found.bias_nbytes
    assert all(request.status == 206 for request in hub.requests if ".safetensors" in request.path)


def test_rows_of_a_matrix_come_alone(hub: Hub, saved: Saved) -> None:
    folder = saved("gpt2")
    hub.add(NAME, folder)
    here, there = open_anywhere(folder).checkpoint, open_anywhere(NAME).checkpoint
    name = next(name for name, info in here.tensors.items() if len(info.shape) == 2)
    before = hub.sent
    assert (there.rows(name, 3, 5) == here.rows(name, 3, 5)).all()
    assert hub.sent - before == here.rows(name, 3, 5).nbytes
    assert (there.read(name) == here.read(name)).all()


def test_later_reads_are_of_the_same_commit(hub: Hub, saved: Saved) -> None:
    first, second = saved("bert"), saved("gpt2")
    commit = hub.add(NAME, first)
    there = open_anywhere(NAME).checkpoint
    hub.add(NAME, second)
    name = next(iter(there.tensors))
    assert (there.read(name) == open_anywhere(first).checkpoint.read(name)).all()
    assert inspect(NAME).model_type == "gpt2"
    assert inspect(NAME, revision=commit).model_type == inspect(f"{NAME}@{commit}").model_type == "bert"


def test_private_needs_a_token(hub: Hub, saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, saved("bert"), private=True)
    for token in (None, "hf_wrong"):
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(SourceError, match="no public model") as caught:
            inspect(NAME)
        assert "log in" in caught.value.remedy and "hf_wrong" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert inspect(NAME).model == NAME


@pytest.mark.parametrize(
    ("path", "faults"),
    [
        (WEIGHTS, [Fault(status=429, headers={"Retry-After": "1"})]),
        (WEIGHTS, [Fault(status=503)]),
        (WEIGHTS, [Fault(cut_after=5)]),
        (WEIGHTS, [Fault(cut_after=5), Fault(cut_after=1), Fault(cut_after=0)]),
        (r"config\.json$", [Fault(cut_after=10)]),
    ],
    ids=["429", "503", "cut", "cut again", "config cut"],
)
def test_what_passes_is_tried_again(hub: Hub, saved: Saved, path: str, faults: list[Fault]) -> None:
    folder = saved("bert")
    hub.add(NAME, folder)
    hub.fail(path, *faults)
    assert replace(inspect(NAME), model=str(folder), commit=None, received=0) == inspect(folder)
    assert hub.faults_left == 0, "the fault did not happen"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(ignore_range=True), "does not send parts"),
        (Fault(status=403), "refuses"),
        (Fault(status=401), "refuses|no public model"),
        (Fault(status=416), "answered 416"),
    ],
    ids=["range ignored", "403", "401", "416"],
)
def test_what_does_not_pass_is_told(hub: Hub, saved: Saved, fault: Fault, says: str) -> None:
    """At once, and then it works."""
    folder = saved("bert")
    hub.add(NAME, folder)
    hub.fail(WEIGHTS, fault)
    with pytest.raises(SourceError, match=says) as caught:
        inspect(NAME)
    assert caught.value.remedy
    assert inspect(NAME).model == NAME


def test_a_server_that_ignores_ranges_sends_little(hub: Hub, tmp_path: Path, saved: Saved) -> None:
    """A body of 64 GB is refused, not read."""
    (tmp_path / "config.json").write_bytes((saved("bert") / "config.json").read_bytes())
    with open(tmp_path / "model.safetensors", "wb") as file:
        file.truncate(64 << 30)
    hub.add(NAME, tmp_path, known_sha256={"model.safetensors": "ab" * 32})
    hub.fail(WEIGHTS, Fault(ignore_range=True))
    with pytest.raises(SourceError, match="does not send parts"):
        inspect(NAME)
    assert hub.sent < 32 << 20  # what the sockets hold


def test_a_connection_that_is_always_cut_is_given_up(hub: Hub, saved: Saved) -> None:
    hub.add(NAME, saved("bert"))
    hub.fail(WEIGHTS, *[Fault(cut_after=0)] * 40)
    with pytest.raises(SourceError, match=r"cannot be reached|ended early") as caught:
        inspect(NAME)
    assert "generator" not in str(caught.value)


def test_a_download_that_arrives_damaged_is_refused_and_forgotten(hub: Hub, saved: Saved, tmp_path: Path) -> None:
    hub.add(NAME, saved("bert"))
    hub.fail(f"GET .*{WEIGHTS}", Fault(flip_at=-1))
    with pytest.raises(CheckpointError, match="damaged"):
        patch(NAME, tmp_path / "out", fold="key")
    assert hub.faults_left == 0 and not (tmp_path / "out").exists()
    patch(NAME, tmp_path / "out", fold="key")


def test_a_name_too_long_for_a_file_is_no_name(hub: Hub) -> None:
    with pytest.raises(SourceError):
        inspect(f"owner/{'x' * 300}")


def test_what_is_no_checkpoint(hub: Hub, tmp_path: Path, saved: Saved) -> None:
    for name, files, says in (
        ("owner/empty", {"README.md": b"#"}, "has no config.json"),
        ("owner/adapter", {"adapter_config.json": b"{}"}, "PEFT adapter"),
        ("owner/pickle", {"config.json": b"{}", "pytorch_model.bin": b"x"}, "PyTorch pickle"),
        ("owner/short", {"config.json": b"{}", "model.safetensors": b"123"}, "too few"),
        ("owner/liar", {"config.json": b"{}", "model.safetensors": b"\xff" * 64}, "claims a header"),
        ("owner/json", {"config.json": b"[", "model.safetensors": b"\xff" * 64}, "not valid JSON"),
        (
            "owner/lost",
            {"config.json": b"{}", "model.safetensors.index.json": b'{"weight_map": {"a": "b.safetensors"}}'},
            "lacks 1 of 1",
        ),
    ):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        hub.add(name, folder)
        with pytest.raises(CheckpointError, match=says) as caught:
            inspect(name)
        assert name in str(caught.value)


def _listing(hub: Hub) -> int:
    return sum(request.sent for request in hub.requests if request.path.startswith("/api/"))
