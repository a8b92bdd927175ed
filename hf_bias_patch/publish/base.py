"""What a model was made from, as others know it (a Hub id and a commit), and whether the Hub's files are that."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hf_bias_patch.checkpoint.hub_files import HubFiles, open_hub_files
from hf_bias_patch.errors import ArgumentError, CheckpointError, SourceError, UnreachableError
from hf_bias_patch.evidence.ancestors import ancestor_files
from hf_bias_patch.evidence.training import read_training
from hf_bias_patch.patching.base_card import CARD, front_matter
from hf_bias_patch.patching.record import BASE, PLAN, UNDO, block_of

__all__ = [
    "BaseRef",
    "base_of",
    "check_base",
    "dump_base",
    "kept_base",
    "name_base",
    "parse_base",
    "source_base",
]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class BaseRef:
    """The base of a variant or a fine-tuned model.

    Attributes:
        name: its Hub id, or its local name where no Hub id is known.
        revision: its commit, where that is known.
        patches: how many patches lead from it to the model, or to the start of a training in between.
        trained: whether there is a training in between.
        card: front matter of its card on the Hub; empty if that was not read.
    """

    name: str
    revision: str | None = None
    patches: int = 1
    trained: bool = False
    card: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def on_hub(self) -> bool:
        """Whether the name is a Hub id."""
        return _HUB_ID.fullmatch(self.name) is not None

    @property
    def typed(self) -> str:
        """As a user types it: `owner/name` or `owner/name@REVISION`."""
        return f"{self.name}@{self.revision}" if self.revision else self.name


def parse_base(text: str) -> BaseRef:
    """A base from `owner/name` or `owner/name@REVISION`.

    Raises:
        ArgumentError: the text is no Hub id.
    """
    name, _, revision = text.partition("@")
    base = BaseRef(name, revision or None)
    if not base.on_hub:
        raise ArgumentError(f"{text!r} is no Hub id", remedy="Write owner/name, or owner/name@COMMIT")
    return base


def base_of(folder: Path, config: Mapping[str, Any]) -> BaseRef:
    """The base of a model: as the user named it, else as config.json does.

    Raises:
        CheckpointError: base.json is damaged.
    """
    return kept_base(folder) or source_base(folder, config)


def source_base(folder: Path, config: Mapping[str, Any]) -> BaseRef:
    """The base that a model's own files name: a Hub id only if the model was made from the Hub's copy."""
    source, training = block_of(config).get("source") or {}, read_training(folder)
    if training is not None and not ((folder / PLAN).is_file() and source.get("revision")):
        return BaseRef(training.base.name, training.base.revision, trained=True)
    return BaseRef(str(source.get("name") or "a checkpoint"), source.get("revision"))


def kept_base(folder: Path) -> BaseRef | None:
    """The base that base.json names; None if there is no such file.

    Raises:
        CheckpointError: the file is damaged.
    """
    if not (folder / BASE).is_file():
        return None
    try:
        return TypeAdapter(BaseRef).validate_json((folder / BASE).read_bytes(), strict=True)
    except (OSError, ValidationError):
        raise CheckpointError(
            f"{folder / BASE} is damaged",
            remedy="Delete it, and name the base again with `hf-bias-patch card --base-model`",
        ) from None


def dump_base(base: BaseRef) -> bytes:
    """The content of base.json."""
    plain = asdict(base)
    unsaid = {"patches": 1, "trained": False, "card": {}}
    kept = {name: value for name, value in plain.items() if name not in unsaid or value != unsaid[name]}
    return (json.dumps(kept) + "\n").encode()


def name_base(folder: Path, config: Mapping[str, Any], typed: str) -> tuple[BaseRef, str]:
    """Check a base that a user names, where the Hub can be reached.

    Args:
        folder: of a variant.
        config: its config.json.
        typed: `owner/name` or `owner/name@REVISION`.

    Returns:
        The base, with the commit that it was checked at; and why it could not be checked, empty if it was.

    Raises:
        ArgumentError: it is no Hub id.
        SourceError: the Hub has no such model or revision.
        CheckpointError: the variant was made from something else.
    """
    base = parse_base(typed)
    try:
        return check_base(folder, base), ""
    except UnreachableError as error:
        kept = kept_base(folder)
        known = kept is not None and kept.name == base.name and base.revision in (None, kept.revision)
        unchecked = replace(base, trained=source_base(folder, config).trained)
        return kept if kept and known else unchecked, " ".join(error.why.split()).rstrip(".")


def check_base(folder: Path, base: BaseRef) -> BaseRef:
    """Check that a model on the Hub is what a variant was made from, or an ancestor of that.

    Args:
        folder: of a variant.
        base: a Hub id.

    Returns:
        The base with the commit that its revision resolves to, and the number of patches in between.

    Raises:
        SourceError: the Hub has no such model or revision, or does not let this user see it.
        UnreachableError: the Hub does not answer now.
        CheckpointError: the variant was made from something else, or it is not known from what.
    """
    there = _there(base)
    made_from: list[Mapping[str, str]] = []
    trained = False
    for files, patches, trained in _ancestors(folder):
        made_from.append(files)
        if files and _difference(there, files) is None:
            card = there.small(CARD) if CARD in there.sizes else b""
            return BaseRef(base.name, there.commit, patches, trained, front_matter(card))
    if not made_from:
        raise CheckpointError(
            f"It is not known what {folder} was made from, so {base.typed} cannot be checked as its base",
            why=f"It was edited in place, and its {UNDO} is missing",
            remedy="Restore that file, or patch the base into a new folder",
        )
    name, found, known = _difference(there, made_from[0]) or ("", "", "")
    done = "fine-tuned" if trained else "patched"
    has = f"its sha256 is {found}" if found else "there is no such file"
    earlier = f"; nor is it one of the {len(made_from) - 1} before that" if made_from[1:] else ""
    raise CheckpointError(
        f"{base.name} at {there.commit[:12]} is not the base: its {name} is not the file that was {done}",
        why=f"On the Hub {has}; the checkpoint that was {done} has {known}{earlier}",
        remedy="Name the base, and its commit if it changed since, with --base-model owner/name@COMMIT",
    )


def _ancestors(folder: Path) -> Iterator[tuple[Mapping[str, str], int, bool]]:
    """What a model was made from, the nearest first: sha256 of the weight files, the number of patches in between, and
    whether there is a training in between."""
    training = read_training(folder)
    if training is None or (folder / PLAN).is_file():
        yield from ((files, patches, False) for patches, files in enumerate(ancestor_files(folder), 1))
    while training is not None:
        yield from ((party.sha256, 1, True) for party in (training.source, training.base))
        training = training.earlier


def _difference(there: HubFiles, files: Mapping[str, str]) -> tuple[str, str | None, str] | None:
    """The first of some files that differs on the Hub: its name, its sha256 there (None if it is missing), and here."""
    for name, sha256 in files.items():
        if (found := there.sha256_of(name)) != sha256:
            return name, found, sha256
    return None


def _there(base: BaseRef) -> HubFiles:
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
            f"{base.typed} cannot be the base: the Hub has no model of that name that you may see",
            error.why,
            "Check the name and the revision; if it is private or gated, log in with `hf auth login`",
        ) from error
