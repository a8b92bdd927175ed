"""Publishes a variant: all of it by one commit, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hf_bias_patch.errors import TargetError
from hf_bias_patch.publish.push_errors import push_error
from hf_bias_patch.publish.push_plan import File, Push

__all__ = ["Pushed", "push"]


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        commit: hash of the commit that holds it all; one that was there, where nothing was to be done.
        url: to look at it: of the pull request, or of the commit.
        copied: whether files were copied on the server as planned; where the Hub refuses that, they are uploaded.
    """

    commit: str
    url: str
    copied: bool = True


def push(planned: Push) -> Pushed:
    """Do what was planned. Safe to repeat: what arrived is kept, and what is there is not sent again.

    Args:
        planned: by `plan_push`.

    Raises:
        TargetError: nobody is logged in, the Hub refuses or breaks off, or somebody pushed since it was planned.
            Nothing is published then, unless it was only the Hub's last answer that did not arrive; a repository or
            branch that was made for it may be there, empty.
    """
    from huggingface_hub import HfApi, get_token

    api = HfApi()
    if planned.there is not None and not planned.changes and not planned.new_branch:
        return Pushed(planned.there.commit, f"{api.endpoint}/{planned.name}/commit/{planned.there.commit}")
    if get_token() is None:
        raise TargetError("Nobody is logged in", remedy="Log in with `hf auth login`, or set HF_TOKEN")
    try:
        parent = _prepare(api, planned)
        try:
            return _commit(api, planned, parent, copied=True)
        except Exception as error:
            if not _is_refused_copy(error):
                raise
            return _commit(api, planned, parent, copied=False)
    except Exception as error:  # each version of the client has its own transport, with its own errors
        raise push_error(planned.name, error) from error


def _prepare(api: Any, planned: Push) -> str | None:
    """Make repository and branch where they are not there; returns the commit to build on."""
    parent = planned.there.commit if planned.there else None
    if planned.there is None:
        api.create_repo(planned.name, private=planned.private)
        parent = str(api.model_info(planned.name).sha)
    if planned.new_branch:
        api.create_branch(planned.name, branch=planned.revision, exist_ok=True)
    return parent


def _commit(api: Any, planned: Push, parent: str | None, *, copied: bool) -> Pushed:
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
    return Pushed(done.oid, done.pr_url or str(done.commit_url), copied)


def _operation(file: File, planned: Push, copied: bool) -> Any:
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
