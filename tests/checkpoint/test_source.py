"""From what the user typed to a place on disk; the Hub is a small server in this process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_bias_patch.checkpoint.checkpoint import open_checkpoint
from hf_bias_patch.checkpoint.guards import ASSETS
from hf_bias_patch.checkpoint.source import resolve
from hf_bias_patch.errors import SourceError, UnreachableError
from tests.hub.server import Hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
EXTRAS = {
    "README.md": "#",
    "tokenizer.json": "{}",
    "onnx/model.onnx": "large",
    "pytorch_model.bin": "large",
    "tf_model.h5": "large",
}


def test_local_places(make_scene: Any, make_folder: Callable[..., Path]) -> None:
    folder = make_folder()
    found = resolve(folder)
    assert (found.path, found.name, found.revision, found.known_sha256) == (folder, str(folder), None, {})
    assert resolve(str(folder / "model.safetensors")).path == folder / "model.safetensors"


def test_embedded_checkpoints() -> None:
    found = resolve("embedded:bert")
    assert (found.path, found.name) == (ASSETS / "bert", "embedded:bert") and (found.path / "config.json").is_file()
    for wrong in ("embedded:t5", "embedded:", "embedded:../bert", "embedded:."):
        with pytest.raises(SourceError, match="embedded:bart, embedded:bert, embedded:gpt2"):
            resolve(wrong)


@pytest.mark.parametrize("name", ["./gone", "/gone", "a/b/c", "gone.safetensors", "../x/y", "", "a\nb", "-x", "~/gone"])
def test_what_can_be_no_hub_id_asks_no_hub(name: str) -> None:
    """Here the Hub cannot be reached, so that asking it would end in another error."""
    with pytest.raises(SourceError, match="does not exist, and is not a Hub id either") as caught:
        resolve(name)
    assert "local folder" in caught.value.remedy
    with pytest.raises(SourceError, match="does not exist, and is not a Hub id either"):
        resolve(Path("bert-base-uncased"))


def test_a_revision_is_of_a_hub_id(make_folder: Callable[..., Path]) -> None:
    with pytest.raises(SourceError, match="no revisions"):
        resolve(make_folder(), revision="main")


def test_a_revision_inside_the_name_is_split_off() -> None:
    """Here the Hub cannot be reached, and the error says what it would have been asked for."""
    for name in ("owner/name@main", "bert@v1.0-rc_1", "owner/name@refs/pr/1", f"owner/name@{COMMIT}", "owner/name"):
        hub_id, _, revision = name.partition("@")
        model = f"model at revision {revision}" if revision else "model"
        with pytest.raises(UnreachableError) as caught:
            resolve(name)
        assert caught.value.what == f"There is no folder {hub_id!r}, and the Hub cannot be reached for the {model}"
    with pytest.raises(SourceError, match="names the revision main, and the revision v2 was given too"):
        resolve("owner/name@main", revision="v2")
    for wrong in ("owner/name@", "owner/name@a@b", "owner/name@a b", "owner/name@/x", "@main", "a/b/c@main"):
        with pytest.raises(SourceError, match="not a Hub id either"):
            resolve(wrong)


def test_a_local_path_with_an_at_sign_comes_first(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder("owner/name@main")
    monkeypatch.chdir(folder.parent.parent)
    assert resolve("owner/name@main").path == Path("owner/name@main")


def test_a_snapshot_of_the_cache_tells_commit_and_hashes(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    sha256, sha1 = "ab" * 32, "cd" * 20
    for blob, name in ((sha256, "model.safetensors"), (sha1, "config.json")):
        (blobs / blob).write_text("x")
        (snapshot / name).symlink_to(Path("../../blobs", blob))
    (snapshot / "lies.txt").symlink_to(tmp_path / "elsewhere" / ("ef" * 32))
    for path in (snapshot, snapshot / "model.safetensors"):
        found = resolve(path)
        assert found.revision == COMMIT
        assert found.known_sha256 == {"model.safetensors": sha256}


# --- the Hub ------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(make_folder: Callable[..., Path]) -> Iterator[Hub]:
    hub = Hub()
    for name, folder in (("whole", make_folder("whole")), ("parts", make_folder("parts", shards=2))):
        _add_extras(folder)
        hub.add(f"owner/{name}", folder)
    pickled = make_folder("pickled")
    (pickled / "model.safetensors").unlink()
    _add_extras(pickled)
    hub.add("owner/pickled", pickled)
    hub.add("owner/gated", pickled, gated=True)
    yield hub
    hub.stop()


def _add_extras(folder: Path) -> None:
    (folder / "onnx").mkdir()
    for name, content in EXTRAS.items():
        (folder / name).write_text(content)


CHILD = """
import json, time
from hf_bias_patch.checkpoint.guards import ASSETS
from hf_bias_patch.checkpoint.source import resolve
for name, revision in json.loads(sys.argv[1]):
    start = time.monotonic()
    try:
        found = resolve(name, revision=revision)
        files = sorted(p.relative_to(found.path).as_posix() for p in found.path.rglob("*") if p.is_file())
        answer = [str(found.path), found.revision, found.known_sha256, files]
    except Exception as error:
        answer = [type(error).__name__, str(error)]
    print(json.dumps([answer, time.monotonic() - start]))
"""


@pytest.fixture
def ask(tmp_path: Path, run_python: Callable[..., list[str]]) -> Callable[..., list[Any]]:
    """Resolve names in a child: huggingface_hub reads where its Hub and its cache are when it is imported."""

    def ask(url: str, *names: str | tuple[str, str], offline: bool = False) -> list[Any]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE"))}
        environment |= {
            "HF_ENDPOINT": url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": str(int(offline)),
        }
        pairs = [(name, None) if isinstance(name, str) else name for name in names]
        command = run_python(CHILD, json.dumps(pairs))
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    return ask


COMPANIONS = ["README.md", "config.json", "tokenizer.json"]


def test_a_hub_id_is_downloaded_once_and_without_the_rest(hub: Hub, ask: Callable[..., list[Any]]) -> None:
    (whole, _), (parts, _), (pickled, _) = ask(hub.url, "owner/whole", "owner/parts@main", "owner/pickled")
    assert whole[1] == hub.repos["owner/whole"].refs["main"] and parts[1] == hub.repos["owner/parts"].refs["main"]
    assert whole[3] == [*COMPANIONS[:2], "model.safetensors", COMPANIONS[2]]
    assert [file for file in parts[3] if "safetensors" in file] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    assert pickled[3] == [COMPANIONS[0], COMPANIONS[1], "pytorch_model.bin", COMPANIONS[2]]
    assert not any("onnx" in request.path or request.path.endswith(".h5") for request in hub.requests)
    # The cache is enough from now on: not one more request, and no network needed.
    count = len(hub.requests)
    for offline in (False, True):
        again = ask(hub.url, "owner/whole", "owner/parts", "owner/pickled", offline=offline)
        assert [answer[3] for answer, _ in again] == [whole[3], parts[3], pickled[3]]
    assert len(hub.requests) == count
    opened = open_checkpoint(whole[0])
    assert opened.tensors
    assert whole[2] == {"model.safetensors": hub.repos["owner/whole"].at("main")[1]["model.safetensors"].sha256}


def test_half_a_model_in_the_cache_is_completed(hub: Hub, ask: Callable[..., list[Any]], tmp_path: Path) -> None:
    """As AutoModel leaves it: without the tokenizer, which a variant needs. Without a network, it has to do."""
    ((whole, _),) = ask(hub.url, "owner/whole")
    Path(whole[0], "tokenizer.json").unlink()
    for listing in tmp_path.rglob("trees/*.json"):
        listing.unlink()
    ((answer, _),) = ask(hub.url, "owner/whole", offline=True)
    assert "tokenizer.json" not in answer[3] and "model.safetensors" in answer[3]
    ((answer, _),) = ask(hub.url, "owner/whole")
    assert answer[3] == whole[3]


def test_each_refusal_of_the_hub_has_its_remedy(hub: Hub, ask: Callable[..., list[Any]]) -> None:
    answers = ask(hub.url, "owner/gone", "owner/gated", ("owner/whole", "v9"))
    for (answer, seconds), expected in zip(
        answers, ("Check the name", "hf auth login", "no revision 'v9'"), strict=True
    ):
        assert answer[0] == "SourceError" and expected in answer[1] and seconds < 10


def test_no_hub_is_an_error_within_seconds(ask: Callable[..., list[Any]]) -> None:
    """Nobody listens; somebody listens and never answers; offline by request."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        ((hanging, seconds),) = ask(url, "owner/whole")
        assert hanging[0] == "UnreachableError" and "cannot be reached" in hanging[1] and seconds < 20
        ((offline, _),) = ask(url, "owner/whole", offline=True)
    started = time.monotonic()
    ((closed, seconds),) = ask(url, "owner/whole")
    assert time.monotonic() - started < 60
    for answer in (closed, offline):
        assert answer[0] == "UnreachableError" and "embedded:bert" in answer[1] and "local folder" in answer[1]
