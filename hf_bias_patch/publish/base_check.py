"""Whether a base is what a variant was made from: its files on the Hub against what the variant tells of its source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hf_bias_patch.checkpoint.hub_files import HubFiles, open_hub_files
from hf_bias_patch.checkpoint.index import parse_object
from hf_bias_patch.errors import CheckpointError, SourceError, UnreachableError
from hf_bias_patch.evidence.ancestors import ancestor_files
from hf_bias_patch.evidence.training import read_training
from hf_bias_patch.patching.base_card import CARD, front_matter, is_as_made, is_own_card
from hf_bias_patch.patching.record import PLAN, UNDO
from hf_bias_patch.publish.base import Base, kept_base, parse_base, source_base

__all__ = ["Named", "agreed_base", "check_base", "name_base"]


@dataclass(frozen=True)
class Named:
    """A base that a user named.

    Attributes:
        base: with the commit that was looked at; as it was typed where the Hub could not be asked.
        unchecked: why it could not be checked; empty if it was.
    """

    base: Base
    unchecked: str = ""


def name_base(folder: Path, typed: str) -> Named:
    """Check a base that a user names, if the Hub can be reached.

    Args:
        folder: of a variant.
        typed: `owner/name` or `owner/name@REVISION`.

    Raises:
        ArgumentError: it is no Hub id.
        SourceError: the Hub has no such model or revision.
        CheckpointError: the variant was made from something else.
    """
    base = parse_base(typed)
    try:
        return Named(check_base(folder, base))
    except UnreachableError as error:
        kept = kept_base(folder)
        known = kept is not None and kept.name == base.name and base.revision in (None, kept.revision)
        config = parse_object(folder / "config.json", (folder / "config.json").read_bytes())
        unchecked = replace(base, trained=source_base(folder, config).trained)
        return Named(kept if kept and known else unchecked, " ".join(error.why.split()).rstrip("."))


def check_base(folder: Path, base: Base) -> Base:
    """Whether a model on the Hub is what a variant was made from, or an ancestor of that.

    Args:
        folder: of a variant.
        base: a Hub id.

    Returns:
        The base with the commit that its revision stands for, and the number of patches in between.

    Raises:
        SourceError: the Hub has no such model or revision, or does not let this user see it.
        UnreachableError: the Hub does not answer now.
        CheckpointError: the variant was made from something else, or nothing tells what it was made from.
    """
    there = _there(base)
    made_from: list[Mapping[str, str]] = []
    trained = False
    for files, patches, trained in _ancestors(folder):
        made_from.append(files)
        if files and _difference(there, files) is None:
            card = there.small(CARD) if CARD in there.sizes else b""
            return Base(base.name, there.commit, patches, trained, front_matter(card))
    if not made_from:
        raise CheckpointError(
            f"Nothing tells what {folder} was made from, so {base.typed} is not taken as its base",
            why=f"It was edited in place, and {UNDO} is not beside it",
            remedy="Put that file back, or patch the base into a folder of its own",
        )
    name, found, known = _difference(there, made_from[0]) or ("", "", "")
    done = "fine-tuned" if trained else "patched"
    has = f"its sha256 is {found}" if found else "there is no such file"
    earlier = f"; nor is it one of the {len(made_from) - 1} before that" if made_from[1:] else ""
    raise CheckpointError(
        f"{base.name} at {there.commit[:12]} is not the base: {name} is not what was {done}",
        why=f"On the Hub {has}; the checkpoint that was {done} has {known}{earlier}",
        remedy="Name the base, and its commit if it changed since, with --base-model owner/name@COMMIT",
    )


def _ancestors(folder: Path) -> Iterator[tuple[Mapping[str, str], int, bool]]:
    """The weight files of what a model was made from, the nearest first; how many patches, and whether a training, lie
    between."""
    training = read_training(folder)
    if training is None or (folder / PLAN).is_file():
        yield from ((files, patches, False) for patches, files in enumerate(ancestor_files(folder), 1))
    while training is not None:
        yield from ((party.sha256, 1, True) for party in (training.source, training.base))
        training = training.earlier


def _difference(there: HubFiles, files: Mapping[str, str]) -> tuple[str, str | None, str] | None:
    """The first of some files that the Hub has not: its name, its sha256 there, and the one looked for."""
    for name, sha256 in files.items():
        if (found := there.sha256_of(name)) != sha256:
            return name, found, sha256
    return None


def agreed_base(folder: Path, typed: str) -> Base:
    """The base that a user names for a push; what is kept beside the variant must not say another one.

    Raises:
        ArgumentError: it is no Hub id.
        CheckpointError: another base is kept, or this is not the base.
        SourceError: the Hub has no such model or revision, or cannot be asked.
    """
    base, kept = parse_base(typed), kept_base(folder)
    if kept is not None and kept.name == base.name and base.revision is None:
        base = kept
    checked = check_base(folder, base)
    said = kept.typed if kept else "no base"
    if kept is None:
        # A card that somebody wrote into is published as it is.
        agrees = not is_own_card(folder) or is_as_made(folder) or base.name in (folder / CARD).read_text("utf-8")
    else:
        agrees = kept.name == base.name and kept.revision in (None, base.revision, checked.revision)
    if not agrees:
        raise CheckpointError(
            f"--base-model names {base.typed}, and the card of {folder} names {said}",
            why="What is published would contradict what lies here",
            remedy=f"Change it with `hf-bias-patch card {folder} --base-model {base.typed}`, or leave --base-model out",
        )
    return checked


def _there(base: Base) -> HubFiles:
    try:
        return open_hub_files(base.name, base.revision)
    except UnreachableError as error:
        raise UnreachableError(
            f"The base {base.typed} cannot be checked: the Hub does not answer",
            error.why,
            "Try again where there is a network, and without HF_HUB_OFFLINE",
        ) from error
    except SourceError as error:
        raise SourceError(
            f"{base.typed} cannot be the base: the Hub has none of that name that you may see",
            error.why,
            "Check the name and the revision; if it is private or gated, log in with `hf auth login`",
        ) from error
