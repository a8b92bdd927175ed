"""Decides what a push will do, file by file; publishes nothing, and writes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hf_bias_patch.checkpoint.sidecar import EVAL_RESULTS, SIDE_FOLDER
from hf_bias_patch.checkpoint.source import place_name
from hf_bias_patch.errors import ArgumentError, CheckpointError, TargetError
from hf_bias_patch.patching.record import LOADER
from hf_bias_patch.publish.base import BaseRef
from hf_bias_patch.publish.contents import Content, contents_of
from hf_bias_patch.publish.facts import Facts, read_facts
from hf_bias_patch.publish.hub_listing import HubListing, list_target
from hf_bias_patch.publish.push_base import base_to_push

if TYPE_CHECKING:
    from huggingface_hub import RepoFile

__all__ = ["PlannedFile", "PushPlan", "plan_push"]

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")


@dataclass(frozen=True)
class PlannedFile:
    """One file of a push: its name in the repository, what it will hold, and how it gets there.

    `same` is there already; `copy` is copied from the base, on the Hub's server.
    """

    name: str
    content: Content
    how: Literal["upload", "copy", "same"]


@dataclass(frozen=True)
class PushPlan:
    """What a push will do.

    Attributes:
        name, revision, create_pr, private: as asked for.
        there: what lies there now; None if the repository is to be made.
        new_branch: whether the branch is to be made.
        base: where copies come from.
        files: in the order of their names.
        deleted: files of an earlier push that would contradict these.
        summary, description: of the commit.
    """

    name: str
    revision: str
    create_pr: bool
    private: bool
    there: HubListing | None
    new_branch: bool
    base: BaseRef
    files: tuple[PlannedFile, ...]
    deleted: tuple[str, ...]
    summary: str
    description: str

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.deleted) or any(file.how != "same" for file in self.files)

    def nbytes(self, how: str) -> int:
        """Bytes of the files that are, say, to `upload`."""
        return sum(file.content.size for file in self.files if file.how == how)


def plan_push(
    variant: str | os.PathLike[str],
    name: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    patch_only: bool = False,
    allow_lossy: bool = False,
    base_model: str | None = None,
    commit_message: str | None = None,
) -> PushPlan:
    """Decide what a push will do, file by file. Nothing is sent, and nothing written.

    Args:
        variant: a folder.
        name: `owner/name`.
        private: make a new repository private.
        revision: the branch, made if it is missing; main if None.
        create_pr: propose the change as a pull request.
        patch_only: publish the plan, the new bias values and what checks them, and no weights: these are computed from
            the base's by whoever pulls or loads it.
        allow_lossy: publish a variant that computes something else on purpose.
        base_model: Hub id of the base, `owner/name` or `owner/name@REVISION`, where the variant does not know it. It
            may not be another one than its card names.
        commit_message: summary of the commit, in place of one that says what was done.

    Raises:
        ArgumentError: `variant` is no path, or a name no Hub id.
        CheckpointError: the folder holds no variant and no fine-tuned model, or it is not proven, or the base is not
            what it was made from.
        SourceError: a base that is needed cannot be read.
        ExtraError: matplotlib is missing, which draws the card's figure.
        TargetError: the target cannot be listed; or the push would replace the base, put a patch alone beside weights,
            or make public what should be private.
    """
    folder = Path(place_name(variant))
    if not BaseRef(name).on_hub:
        raise ArgumentError(f"{name!r} is no name of a model on the Hub", remedy="Write owner/name")
    facts = read_facts(folder)
    _refuse_folder(folder, facts, patch_only, allow_lossy)
    base, theirs = base_to_push(folder, facts, base_model, patch_only)
    branch = revision or "main"
    _refuse_the_base(name, branch, create_pr, base)
    there, new_branch = list_target(name, branch, create_pr)
    known = there.files if there else {}
    _refuse_target(name, there, private, patch_only)
    facts = replace(facts.of(base), name=name, patch_only=patch_only)
    contents = contents_of(folder, facts, theirs)
    files = tuple(_file(path, contents[path], known, theirs) for path in sorted(contents))
    deleted = tuple(sorted(path for path in known if path not in contents and _contradicts(path)))
    summary = commit_message or f"hf_bias_patch: {_done(facts)}"
    description = facts.certificate.headline if facts.certificate and facts.certificate.passed else ""
    return PushPlan(name, branch, create_pr, private, there, new_branch, base, files, deleted, summary, description)


def _refuse_the_base(name: str, branch: str, create_pr: bool, base: BaseRef) -> None:
    if name.lower() == base.name.lower() and branch == "main" and not create_pr:
        raise TargetError(
            f"{name} is the base itself", why="Its users would get another model", remedy="Propose it with --create-pr"
        )


def _refuse_folder(folder: Path, facts: Facts, patch_only: bool, allow_lossy: bool) -> None:
    if patch_only and facts.plan is None:
        raise ArgumentError(
            f"{folder} is a fine-tuned model, and a patch alone cannot make it of its base",
            remedy="Leave --patch-only out",
        )
    if facts.lossy and not allow_lossy:
        raise CheckpointError(
            f"{folder} is not published: its outputs differ from those of its base, on purpose",
            remedy="If that is meant, pass --allow-lossy: the card says so in its first line",
        )


def _refuse_target(name: str, there: HubListing | None, private: bool, patch_only: bool) -> None:
    if there is not None and private and not there.private:
        raise TargetError(
            f"{name} exists and is public, and --private was asked for", remedy="Make it private on the Hub first"
        )
    weights = [path for path in (there.files if there else ()) if _is_weights(path)]
    if weights and patch_only:
        raise TargetError(
            f"{name} holds weights ({weights[0]}), so a patch without weights cannot be pushed there",
            remedy="Push to another repository, or the whole variant to this one",
        )


def _file(name: str, content: Content, known: Mapping[str, RepoFile], base: HubListing | None) -> PlannedFile:
    there = known.get(name)
    if there is not None and content.is_same(there):
        return PlannedFile(name, content, "same")
    theirs = base.files.get(name) if base else None
    copied = theirs is not None and theirs.lfs and theirs.xet_hash and content.is_same(theirs)
    return PlannedFile(name, content, "copy" if copied else "upload")


def _is_weights(path: str) -> bool:
    return any(fnmatch(path, pattern) for pattern in _WEIGHTS)


def _contradicts(path: str) -> bool:
    """Whether a file that an earlier push left would be loaded in place of, or read beside, what is pushed."""
    return path in (EVAL_RESULTS, LOADER) or path.startswith(f"{SIDE_FOLDER}/") or _is_weights(path)


def _done(facts: Facts) -> str:
    """What was done, in a line."""
    if facts.plan is None:
        assert facts.training is not None, "a model that is published was patched or fine-tuned"
        return f"fine-tuned on {facts.training.task['name']}"
    return ", ".join(dict.fromkeys(edit.label for edit in facts.plan.edits)) or "nothing"
