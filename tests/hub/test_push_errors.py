"""What a user is told when the Hub refuses a push: its whole reason, and what stays there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import hf_bias_patch as hbp
from hf_bias_patch import patch, verify
from hf_bias_patch.errors import TargetError
from hf_bias_patch.publish.push import push
from tests.hub.server import Fault, Hub

BASE, NAME = "owner/base", "owner/variant"
LICENCES = ", ".join(f"licence-{number}.0" for number in range(100))


@pytest.fixture
def variant(hub: Hub, login: None, saved: Callable[..., Path], tmp_path: Path) -> Path:
    hub.add(BASE, saved("bert"))
    patch(BASE, tmp_path / "variant", fold="key")
    verify(tmp_path / "variant", BASE)
    return tmp_path / "variant"


def _said(variant: Path, name: str = NAME, **asked: object) -> str:
    with pytest.raises(TargetError) as caught:
        push(variant, name, **asked)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "hf_right" not in text and all(len(line) <= 76 for line in text.splitlines() if line.startswith("  "))
    return text


class TestReasons:
    def test_refused_metadata_is_told_whole_and_before_anything_is_made(self, hub: Hub, variant: Path) -> None:
        hub.complaints = [f'"license" must be one of [{LICENCES}]', '"language[0]" must only contain characters']
        said = _said(variant)
        words = " ".join(said.split())
        assert "refuses the metadata" in words and all(" ".join(reason.split()) in words for reason in hub.complaints)
        assert NAME not in hub.repos and "was made" not in said
        hub.complaints = []
        push(variant, NAME)

    def test_only_a_card_that_is_sent_is_checked(self, hub: Hub, variant: Path) -> None:
        push(variant, NAME)
        hub.complaints = ["no good"]
        (variant / "notes.txt").write_text("more")
        push(variant, NAME)
        assert hub.files(NAME)["notes.txt"] == b"more"

    def test_metadata_is_checked_as_it_stands(self, hub: Hub, variant: Path) -> None:
        """A client that reads it and writes it anew makes `false` of Norwegian."""
        (variant / "README.md").write_text("---\nlicense: mit\nlanguage: no\n---\n")
        hbp.card(variant)
        card = variant / "README.md"
        card.write_text(card.read_text().replace("language: 'no'", "language: no") + "By hand.\n")
        push(variant, NAME)
        assert set(hub.cards) == {card.read_text()} and "language: no\n" in hub.cards[0]

    def test_a_reason_in_several_lines(self, hub: Hub, variant: Path) -> None:
        hub.fail("/commit/", Fault(status=400, body={"error": "First.\nSecond.", "errors": [{"message": "Third."}]}))
        said = _said(variant)
        assert "answered 400" in said and said.index("First.") < said.index("Second.") < said.index("Third.")

    def test_a_reason_without_an_end_is_cut_and_that_is_said(self, hub: Hub, variant: Path) -> None:
        hub.fail("/commit/", Fault(status=400, body={"error": "\n".join(f"reason {n}" for n in range(500))}))
        said = _said(variant)
        assert "reason 39" in said and "reason 40" not in said and "(and 460 more lines)" in said

    def test_a_page_is_no_reason(self, hub: Hub, variant: Path) -> None:
        page = f"<!doctype html><html><body>{'<p>Sorry</p>' * 500}</body></html>"
        hub.fail("/commit/", Fault(status=500, body=page), Fault(status=500, body={"error": f"Oh.\n{page}"}))
        assert "Sorry" not in _said(variant)
        said = _said(variant)
        assert "Oh." in said and "Sorry" not in said and "<" not in said

    def test_a_token_is_in_no_reason(self, hub: Hub, variant: Path) -> None:
        other = "hf_" + "a1B2" * 8
        hub.fail("/commit/", Fault(status=400, body={"error": f"hf_right and {other} of hf_bias_patch_no_token"}))
        said = _said(variant)
        assert other not in said and "(a token) and (a token) of hf_bias_patch_no_token" in said

    @pytest.mark.parametrize(
        ("status", "says"),
        [(413, "too large for the Hub"), (409, "Somebody pushed"), (403, "may not write"), (507, "answered 507")],
    )
    def test_each_says_what_the_hub_said(self, hub: Hub, variant: Path, status: int, says: str) -> None:
        hub.fail("/commit/", Fault(status=status, body={"error": "Storage limit of this account is reached"}))
        said = _said(variant)
        assert says in said and "Storage limit of this account is reached" in said and "Nothing was published" in said


class TestWhatStays:
    @pytest.mark.parametrize("status", [500, 403, 413])
    def test_a_new_repository(self, hub: Hub, variant: Path, status: int) -> None:
        hub.fail("/commit/", Fault(status=status))
        said = _said(variant)
        assert f"The repository {NAME} was made for it and is there, empty" in said
        assert f"`hf repos delete {NAME}`" in said and not hub.files(NAME)
        push(variant, NAME)
        assert "config.json" in hub.files(NAME)

    def test_one_that_was_there_is_not_to_be_deleted(self, hub: Hub, variant: Path) -> None:
        push(variant, NAME)
        (variant / "notes.txt").write_text("more")
        hub.fail("/commit/", Fault(status=500))
        assert "delete" not in _said(variant)

    def test_a_new_branch(self, hub: Hub, variant: Path) -> None:
        push(variant, NAME)
        (variant / "notes.txt").write_text("more")
        hub.fail("/commit/", Fault(status=500))
        said = _said(variant, revision="second")
        assert f"The branch second of {NAME} was made" in said and f"`hf repos branch delete {NAME} second`" in said
        assert "hf repos delete" not in said and "second" in hub.repos[NAME].refs

    def test_a_branch_of_a_new_repository_goes_with_it(self, hub: Hub, variant: Path) -> None:
        hub.fail("/commit/", Fault(status=500))
        said = _said(variant, revision="second")
        assert f"`hf repos delete {NAME}`" in said and "hf repos branch" not in said

    def test_a_repository_of_which_nobody_was_told(self, hub: Hub, variant: Path) -> None:
        hub.fail("repos/create", *[Fault(status=500)] * 5)
        said = _said(variant)
        assert f"Whether the repository {NAME} was made is not known" in said and f"`hf repos delete {NAME}`" in said

    @pytest.mark.parametrize("status", [401, 403, 409])
    def test_nothing_where_making_it_is_refused(self, hub: Hub, variant: Path, status: int) -> None:
        hub.fail("repos/create", Fault(status=status))
        assert "delete" not in _said(variant) and NAME not in hub.repos

    @pytest.mark.parametrize("fault", [Fault(unanswered=True), Fault(status=504)])
    def test_all_or_nothing_where_the_answer_is_lost(self, hub: Hub, variant: Path, fault: Fault) -> None:
        hub.fail("/commit/", fault)
        said = _said(variant)
        assert "All of it was published, or nothing" in said and "with all of the push or empty" in said

    def test_a_pull_request_of_which_nobody_was_told(self, hub: Hub, variant: Path) -> None:
        hub.fail("/commit/", Fault(unanswered=True))
        assert "another push opens another one" in _said(variant, BASE, create_pr=True)

    @pytest.mark.parametrize("command", [("repos", "delete"), ("repos", "branch", "delete")])
    def test_the_commands_named_are_the_clients(
        self, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
    ) -> None:
        from huggingface_hub.cli.hf import app

        app.main([*command, "--help"], prog_name="hf", standalone_mode=False)
        assert f"hf {' '.join(command)}" in capsys.readouterr().out
