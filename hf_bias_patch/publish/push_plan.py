"""Decides what a push will do, file by file; publishes nothing, and writes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from hf_bias_patch.checkpoint.hub_errors import hub_error
from hf_bias_patch.checkpoint.sidecar import EVAL_RESULTS, SIDE_FOLDER
from hf_bias_patch.checkpoint.source import place_name
from hf_bias_patch.errors import ArgumentError, CheckpointError, SourceError, TargetError
from hf_bias_patch.patching.record import LOADER
from hf_bias_patch.publish.base import Base, source_base
from hf_bias_patch.publish.base_check import agreed_base, check_base
from hf_bias_patch.publish.contents import adapter_contents, patch_contents, whole_contents
from hf_bias_patch.publish.facts import Facts, read_facts
from hf_bias_patch.publish.listing import Content, Remote, RemoteFile, look_at

__all__ = ["File", "Push", "plan_push"]

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")


@dataclass(frozen=True)
class File:
    """One file of a push.

    Attributes:
        name: in the repository.
        content: what it will hold.
        how: `upload`; `copy`, on the server, from the base; or `same`, for it is there.
    """

    name: str
    content: Content
    how: Literal["upload", "copy", "same"]


@dataclass(frozen=True)
class Push:
    """What a push will do.

    Attributes:
        name: `owner/name`.
        revision: the branch.
        create_pr: whether it becomes a pull request.
        private: whether a new repository is made private.
        there: what stands there now; None if the repository is to be made.
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
    there: Remote | None
    new_branch: bool
    base: Base
    files: tuple[File, ...]
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
) -> Push:
    """Compare a variant with what the Hub has.

    Args:
        variant: a folder.
        name: `owner/name`.
        private: make a new repository private.
        revision: the branch; main if None.
        create_pr: propose the change as a pull request.
        patch_only: publish what makes the weights of the base's, not the weights.
        allow_lossy: publish a variant that computes something else on purpose.
        base_model: Hub id of the base, `owner/name` or `owner/name@REVISION`, where the variant does not know it. It
            may not be another one than `card --base-model` kept.
        commit_message: instead of one that says what was done.

    Raises:
        ArgumentError: `variant` is no path, or a name no Hub id.
        CheckpointError: it is no variant, is not proven, or the base is not what was patched.
        SourceError: a base that is needed cannot be looked at.
        TargetError: the Hub refuses, or the push would put a variant in the place of its base, weights in the place
            of nothing, or public what should be private.
    """
    folder = Path(place_name(variant))
    if not Base(name).on_hub:
        raise ArgumentError(f"{name!r} is no name of a model on the Hub", remedy="Write owner/name")
    facts = read_facts(folder)
    if patch_only and facts.plan is None:
        raise ArgumentError(
            f"{folder} is a fine-tuned model, and a patch alone cannot make it of its base",
            remedy="Leave --patch-only out",
        )
    if facts.lossy and not allow_lossy:
        raise CheckpointError(
            f"{folder} is not published: it computes something else than its base, on purpose",
            remedy="If that is meant, pass --allow-lossy: the card says so in its first line",
        )
    base, theirs = _base(folder, facts, base_model, patch_only)
    branch = revision or "main"
    _refuse_the_base(name, branch, create_pr, base)
    there, new_branch = _look_at_target(name, branch, create_pr, private)
    facts = replace(facts.of(base), name=name, patch_only=patch_only)
    if patch_only:
        assert theirs is not None, "a base that is needed was found"
        _refuse_over_weights(name, there)
        contents = patch_contents(folder, facts, theirs)
    elif facts.adapter is not None:
        contents = adapter_contents(folder, facts)
    else:
        contents = whole_contents(folder, facts)
    known = there.files if there else {}
    return Push(
        name=name,
        revision=branch,
        create_pr=create_pr,
        private=private,
        there=there,
        new_branch=new_branch,
        base=base,
        files=tuple(_file(path, contents[path], known, theirs) for path in sorted(contents)),
        deleted=tuple(sorted(path for path in known if path not in contents and _contradicts(path))),
        summary=commit_message or f"hf_bias_patch: {_done(facts)}",
        description=facts.certificate.headline if facts.certificate and facts.certificate.passed else "",
    )


def _done(facts: Facts) -> str:
    """What was done, in a line."""
    if facts.plan is None:
        assert facts.training is not None, "a model that is published was patched or fine-tuned"
        return f"fine-tuned on {facts.training.task['name']}"
    return ", ".join(dict.fromkeys(edit.label for edit in facts.plan.edits)) or "nothing"


def _file(name: str, content: Content, known: Mapping[str, RemoteFile], base: Remote | None) -> File:
    there = known.get(name)
    if there is not None and content.is_same(there):
        return File(name, content, "same")
    theirs = base.files.get(name) if base else None
    if theirs is not None and theirs.copyable and content.is_same(theirs):
        return File(name, content, "copy")
    return File(name, content, "upload")


def _contradicts(path: str) -> bool:
    """Whether a file left there would be loaded instead of, or told beside, what is pushed."""
    return (
        path in (EVAL_RESULTS, LOADER)
        or path.startswith(f"{SIDE_FOLDER}/")
        or any(fnmatch(path, pattern) for pattern in _WEIGHTS)
    )


def _refuse_the_base(name: str, branch: str, create_pr: bool, base: Base) -> None:
    if name.lower() == base.name.lower() and branch == "main" and not create_pr:
        raise TargetError(
            f"{name} is the base itself", why="Its users would get another model", remedy="Propose it with --create-pr"
        )


def _refuse_over_weights(name: str, there: Remote | None) -> None:
    weights = [path for path in (there.files if there else ()) if any(fnmatch(path, pattern) for pattern in _WEIGHTS)]
    if weights:
        raise TargetError(
            f"{name} holds weights ({weights[0]}), and a patch alone would stand beside them",
            remedy="Push to another repository, or the whole variant to this one",
        )


def _base(folder: Path, facts: Facts, typed: str | None, patch_only: bool) -> tuple[Base, Remote | None]:
    """The base, checked, and its files on the Hub, where copies can come from.

    A base that somebody named is checked. One that config.json names was, when it was patched, and may have gone since.
    """
    if typed is None and not facts.base.on_hub:
        if not patch_only and facts.adapter is None:
            return facts.base, None
        what = "A patch alone is applied to it" if facts.adapter is None else "An adapter is loaded on it"
        raise SourceError(
            f"The Hub id of the base is not known ({facts.base.name})",
            why=f"{what}, by whoever fetches it",
            remedy="Push the base first, if it is not there, and name it with --base-model owner/name",
        )
    try:
        base = agreed_base(folder, typed) if typed else check_base(folder, facts.base)
        theirs = _listed(base)
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


def _refuse_far_base(folder: Path, facts: Facts, base: Base, theirs: Remote, patch_only: bool) -> None:
    """Of several patches, each has a plan and may have a certificate of its own; what is published is their sum."""
    if patch_only:
        raise CheckpointError(
            f"{folder} cannot be published as a patch alone: it was made from {base.name} by {base.patches} patches",
            why="A patch alone holds the last of them",
            remedy="Push the whole variant, or make one of the base by a single recipe",
        )
    measured = facts.certificate.source if facts.certificate else None
    known = {name: file.sha256 for name, file in theirs.files.items()}
    if measured and any(known.get(name) != sha256 for name, sha256 in measured.sha256.items()):
        raise CheckpointError(
            f"{folder} is not published: its certificate is against {measured.name}, and not against {base.name}",
            why=f"It was made from {base.name} by {base.patches} patches, and the certificate is of fewer",
            remedy=f"Measure them together: `hf-bias-patch verify {folder} --against {base.typed}`",
        )


def _listed(base: Base) -> Remote:
    try:
        return look_at(base.name, base.revision)
    except Exception as error:
        raise hub_error(base.name, base.revision, error) from error


def _look_at_target(name: str, branch: str, create_pr: bool, private: bool) -> tuple[Remote | None, bool]:
    """What stands there, and whether the branch is to be made; refuses what is public, where that is not meant."""
    there, new_branch = _seen(name, branch, create_pr)
    if private and there is not None and not there.private:
        raise TargetError(
            f"{name} exists and is public, and --private was asked for", remedy="Make it private on the Hub first"
        )
    return there, new_branch


def _seen(name: str, branch: str, create_pr: bool) -> tuple[Remote | None, bool]:
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        return look_at(name, branch), False
    except RepositoryNotFoundError:
        return None, branch != "main"
    except RevisionNotFoundError as error:
        if create_pr:
            raise _unseen(name, error) from error
    except Exception as error:
        raise _unseen(name, error) from error
    try:
        return look_at(name, "main"), True
    except Exception as error:
        raise _unseen(name, error) from error


def _unseen(name: str, error: Exception) -> TargetError:
    return TargetError(
        f"What stands at {name} on the Hub cannot be seen; nothing was sent",
        why=hub_error(name, None, error).why,
        remedy="Check the network, the name and the revision, and that you are logged in (`hf auth whoami`)",
    )
