"""Publishes a variant or a fine-tuned model: all of it by one commit, or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hf_bias_patch.errors import TargetError
from hf_bias_patch.patching.base_card import CARD
from hf_bias_patch.publish.push_errors import NewPlaces, a_branch, a_repository, metadata_error, push_error
from hf_bias_patch.publish.push_plan import PlannedFile, PushPlan, plan_push

__all__ = ["Pushed", "push"]


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        plan: what it was to do.
        commit: hash of the commit that holds all files; an older one where there was nothing to do.
        url: of the pull request, or of the commit.
        copied: whether files were copied on the server as planned; where the Hub refuses that, they are uploaded.
        pull: the ref of the pull request that was opened, such as `refs/pr/1`, to push to it again; empty if none was.
    """

    plan: PushPlan
    commit: str
    url: str
    copied: bool = True
    pull: str = ""


def push(
    variant: str | os.PathLike[str],
    name: str,
    *,
    announce: Callable[[PushPlan], None] | None = None,
    **options: Any,
) -> Pushed:
    """Publish a variant or a fine-tuned model that is proven, by one commit.

    Safe to repeat: what arrived is kept, and what is there is not sent again.

    Args:
        variant: a folder.
        name: `owner/name`; the repository is made if it is missing.
        announce: called with the plan before anything is sent.
        options: those of `plan_push`, such as `private=True`.

    Raises:
        ArgumentError, CheckpointError, SourceError, ExtraError: as for `plan_push`.
        TargetError: also where nobody is logged in, the Hub refuses or breaks off, or somebody pushed since the plan
            was made. Nothing is published then, unless only the Hub's last answer was lost. If a repository or branch
            was made for the push and stays, empty, the message says so.
    """
    plan = plan_push(variant, name, **options)
    if announce is not None:
        announce(plan)
    return _publish(plan)


def _publish(planned: PushPlan) -> Pushed:
    from huggingface_hub import HfApi, get_token

    api = HfApi()
    if planned.there is not None and not planned.changes and not planned.new_branch:
        return Pushed(planned, planned.there.commit, f"{api.endpoint}/{planned.name}/commit/{planned.there.commit}")
    if get_token() is None:
        raise TargetError("Nobody is logged in", remedy="Log in with `hf auth login`, or set HF_TOKEN")
    new = NewPlaces(planned.name, planned.create_pr)
    try:
        _check_metadata(planned)
        parent = _prepare(api, planned, new)
        try:
            return _commit(api, planned, parent, copied=True)
        except Exception as error:
            if not _is_refused_copy(error):
                raise
            return _commit(api, planned, parent, copied=False)
    except TargetError:
        raise
    except Exception as error:  # each version of the client has its own transport, with its own errors
        raise push_error(error, new) from error


def _check_metadata(planned: PushPlan) -> None:
    """Let the Hub check the card before anything is made for it. The client does so too, but later.

    Its `RepoCard.validate` reads and writes the front matter anew, by which Norwegian (`no`) becomes `false`.

    Raises:
        TargetError: the Hub refuses it.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import BadRequestError
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    card = next((file.content for file in planned.files if file.name == CARD and file.how != "same"), None)
    if card is None:
        return
    text = (card.source if isinstance(card.source, bytes) else card.source.read_bytes()).decode("utf-8", "replace")
    asked = {"content": text, "repoType": "model"}
    address = f"{constants.ENDPOINT}/api/validate-yaml"
    try:
        hf_raise_for_status(get_session().post(address, json=asked, headers=build_hf_headers()))
    except BadRequestError as error:
        raise metadata_error(error) from error


def _prepare(api: Any, planned: PushPlan, new: NewPlaces) -> str | None:
    """Make repository and branch where they are not there; returns the commit to build on."""
    parent = planned.there.commit if planned.there else None
    if planned.there is None:
        with new.makes(a_repository(planned.name)):
            api.create_repo(planned.name, private=planned.private)
        parent = str(api.model_info(planned.name).sha)
    if planned.new_branch:
        with new.makes(a_branch(planned.name, planned.revision)):
            api.create_branch(planned.name, branch=planned.revision, exist_ok=True)
    return parent


def _commit(api: Any, planned: PushPlan, parent: str | None, *, copied: bool) -> Pushed:
    from huggingface_hub import CommitOperationDelete

    operations = [_operation(file, planned, copied) for file in planned.files if file.how != "same"]
    operations += [CommitOperationDelete(name) for name in planned.deleted]
    done = api.create_commit(
        planned.name,
        operations,
        commit_message=planned.summary,
        commit_description=planned.description,
        revision=planned.revision,
        create_pr=planned.create_pr,
        parent_commit=parent,
    )
    return Pushed(planned, done.oid, done.pr_url or str(done.commit_url), copied, done.pr_revision or "")


def _operation(file: PlannedFile, planned: PushPlan, copied: bool) -> Any:
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy

    if file.how == "copy" and copied:
        return CommitOperationCopy(
            file.name,
            file.name,
            src_revision=planned.base.revision,
            src_repo_id=planned.base.name,
            src_repo_type="model",
        )
    return CommitOperationAdd(file.name, file.content.source)


def _is_refused_copy(error: Exception) -> bool:
    """Whether the Hub would not copy, as it does not between regions of its storage."""
    response = getattr(error, "response", None)
    return response is not None and str(response.request.url).endswith("/lfs-files/duplicate")
