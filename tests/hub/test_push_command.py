"""`push` and `pull` as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hf_bias_patch import patch, verify
from hf_bias_patch.cli import app
from tests.hub.server import Fault, Hub

BASE, NAME = "owner/base", "owner/variant"


@pytest.fixture
def variant(hub: Hub, login: None, saved: Callable[..., Path], tmp_path: Path) -> Path:
    hub.add(BASE, saved("bert"))
    patch(BASE, tmp_path / "variant", fold="key")
    verify(tmp_path / "variant", BASE)
    return tmp_path / "variant"


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_dry_run_lists_every_file(hub: Hub, variant: Path) -> None:
    shown = _run("push", variant, NAME, "--dry-run", "--private")
    assert shown.exit_code == 0 and "a new private repository" in shown.output and "dry run" in shown.output
    listed = {
        line.split()[0] for line in shown.output.splitlines() if line.strip().startswith(("bias_patch/", "config"))
    }
    assert {"config.json", "bias_patch/plan.json", "bias_patch/certificate.json", "bias_patch/norms.png"} <= listed
    assert NAME not in hub.repos
    plain = json.loads(_run("push", variant, NAME, "--dry-run", "--json").stdout)
    assert plain["new"] and {file["how"] for file in plain["files"]} <= {"upload", "copy"} and "commit" not in plain


def test_it_goes_there_and_back(hub: Hub, variant: Path, tmp_path: Path) -> None:
    done = _run("push", variant, NAME)
    commit = hub.repos[NAME].refs["main"]
    assert done.exit_code == 0 and f"Published: {hub.url}/{NAME}/commit/{commit}" in done.output
    assert "All of it is there already" in _run("push", variant, NAME).output
    assert json.loads(_run("push", variant, NAME, "--json").stdout)["commit"] == commit
    fetched = _run("pull", NAME, tmp_path / "made")
    assert fetched.exit_code == 0 and f"Written: {tmp_path / 'made'}" in fetched.output
    assert (tmp_path / "made/model.safetensors").read_bytes() == (variant / "model.safetensors").read_bytes()


def test_what_the_hub_does_not_copy_is_said(
    hub: Hub, saved: Callable[..., Path], variant: Path, tmp_path: Path
) -> None:
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "vocabulary.bin").write_bytes(bytes(5000))
    hub.add(BASE, tmp_path / "extra", keep=True)
    patch(BASE, tmp_path / "second", fold="key")
    verify(tmp_path / "second", BASE)
    hub.fail("duplicate", Fault(status=400))
    assert "those files were uploaded too" in _run("push", tmp_path / "second", NAME).output


def test_a_card_takes_a_base_by_name_and_commit(hub: Hub, saved: Callable[..., Path], variant: Path) -> None:
    commit = hub.add("owner/other", saved("bert"))
    hub.add("owner/other", saved("gpt2"))
    assert _run("card", variant, "--base-model", f"owner/other@{commit}").exit_code == 0
    assert f"[owner/other](https://hf.co/owner/other) at commit `{commit[:12]}`" in (variant / "README.md").read_text()
    assert _run("card", variant, "--base-model", "no id").exit_code != 0


def test_a_pull_request_is_a_new_one_each_time_unless_it_is_named(hub: Hub, variant: Path) -> None:
    first = _run("push", variant, BASE, "--create-pr")
    assert first.exit_code == 0 and f"Proposed: {hub.url}/{BASE}/discussions/1" in first.output
    assert "as a new pull request" in first.output and "push with --revision refs/pr/1" in first.output
    assert "discussions/2" in _run("push", variant, BASE, "--create-pr").output
    (variant / "notes.txt").write_text("more")
    again = _run("push", variant, BASE, "--revision", "refs/pr/1")
    assert again.exit_code == 0 and "Published" in again.output
    assert hub.files(BASE, "refs/pr/1")["notes.txt"] == b"more" and "refs/pr/3" not in hub.repos[BASE].refs
