"""The base that a push names: checked on the Hub, and its files listed, since those it shares are copied."""

from __future__ import annotations

from pathlib import Path

from hf_bias_patch.errors import CheckpointError, SourceError
from hf_bias_patch.patching.base_card import CARD, is_as_made, is_own_card
from hf_bias_patch.publish.base import BaseRef, check_base, kept_base, parse_base, source_base
from hf_bias_patch.publish.facts import Facts
from hf_bias_patch.publish.hub_listing import HubListing, list_hub

__all__ = ["base_to_push"]


def base_to_push(folder: Path, facts: Facts, typed: str | None, patch_only: bool) -> tuple[BaseRef, HubListing | None]:
    """The base of a model to be published, checked, and its files on the Hub where it has any.

    A base that the user `typed` must be on the Hub. One that config.json names was there when it was patched, and may
    be gone.

    Raises:
        ArgumentError: `typed` is no Hub id.
        CheckpointError: it is not the base; or base.json names another one; or a patch alone is not enough to make the
            model of it; or the certificate is not against it.
        SourceError: the base is needed, and is not known or cannot be read on the Hub.
    """
    if typed is None and not facts.base.on_hub:
        if not patch_only and facts.adapter is None:
            return facts.base, None
        what = "a patch alone applies it" if facts.adapter is None else "an adapter adds it"
        raise SourceError(
            f"The Hub id of the base is not known ({facts.base.name})",
            why=f"Whoever fetches {what} to its base",
            remedy="Push the base first, if the Hub does not have it, and name it with --base-model owner/name",
        )
    try:
        base = _agreed_base(folder, typed) if typed else check_base(folder, facts.base)
        theirs = list_hub(base.name, base.revision)
    except SourceError:
        if typed or patch_only or facts.base != source_base(folder, facts.config):
            raise
        return facts.base, None
    if patch_only and base.trained:
        raise CheckpointError(
            f"{folder} cannot be published as a patch alone: {base.name} was fine-tuned before it was patched",
            why="A patch alone is applied to what was patched",
            remedy="Push the fine-tuned model, and name it with --base-model; or push the whole variant",
        )
    if base.patches > 1:
        _refuse_far_base(folder, facts, base, theirs, patch_only)
    return base, theirs


def _refuse_far_base(folder: Path, facts: Facts, base: BaseRef, theirs: HubListing, patch_only: bool) -> None:
    """Of several patches, each has a plan and may have a certificate of its own; what is published is their sum."""
    if patch_only:
        raise CheckpointError(
            f"{folder} cannot be published as a patch alone: it was made from {base.name} by {base.patches} patches",
            why="A patch alone holds the last of them",
            remedy="Push the whole variant, or make one of the base by a single recipe",
        )
    measured = facts.certificate.source if facts.certificate else None
    known = {name: file.lfs.sha256 for name, file in theirs.files.items() if file.lfs}
    if measured and any(known.get(name) != sha256 for name, sha256 in measured.sha256.items()):
        raise CheckpointError(
            f"{folder} is not published: its certificate is against {measured.name}, and not against {base.name}",
            why=f"It was made from {base.name} by {base.patches} patches, and the certificate is of fewer",
            remedy=f"Measure them together: `hf-bias-patch verify {folder} --against {base.typed}`",
        )


def _agreed_base(folder: Path, typed: str) -> BaseRef:
    """The base that a user names for a push; base.json must not name another one."""
    base, kept = parse_base(typed), kept_base(folder)
    if kept is not None and kept.name == base.name and base.revision is None:
        base = kept
    checked = check_base(folder, base)
    said = kept.typed if kept else "no base"
    if kept is None:
        # A card that somebody edited is published as it is.
        agrees = not is_own_card(folder) or is_as_made(folder) or base.name in (folder / CARD).read_text("utf-8")
    else:
        agrees = kept.name == base.name and kept.revision in (None, base.revision, checked.revision)
    if not agrees:
        raise CheckpointError(
            f"--base-model names {base.typed}, and the card of {folder} names {said}",
            why="What is published would contradict the files here",
            remedy=f"Change it with `hf-bias-patch card {folder} --base-model {base.typed}`, or leave --base-model out",
        )
    return checked
