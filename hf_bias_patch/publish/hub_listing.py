"""The files of a model on the Hub: what lies where a push goes to, and what can be copied from its base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_bias_patch.checkpoint.hub_errors import hub_error
from hf_bias_patch.errors import TargetError

if TYPE_CHECKING:
    from huggingface_hub import RepoFile

__all__ = ["HubListing", "list_hub", "list_target"]


@dataclass(frozen=True)
class HubListing:
    """One commit of a model on the Hub.

    Attributes:
        commit: its full hash.
        private: whether only some may see it.
        files: by name.
    """

    commit: str
    private: bool
    files: Mapping[str, RepoFile]


def list_hub(model: str, revision: str | None) -> HubListing:
    """List one commit of a model, by two requests.

    Raises:
        SourceError: the Hub has no such model or revision, or cannot be reached.
    """
    try:
        return _list(model, revision)
    except Exception as error:
        raise hub_error(model, revision, error) from error


def _list(model: str, revision: str | None) -> HubListing:
    from huggingface_hub import HfApi, RepoFile

    api = HfApi()
    info = api.model_info(model, revision=revision)
    entries = api.list_repo_tree(model, recursive=True, revision=info.sha)
    files = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
    return HubListing(str(info.sha), bool(info.private), files)


def list_target(name: str, branch: str, create_pr: bool) -> tuple[HubListing | None, bool]:
    """What lies where a push goes to, and whether its branch is to be made; None if the repository is.

    Raises:
        TargetError: it cannot be listed, for another reason than that it does not exist yet.
    """
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        try:
            return _list(name, branch), False
        except RevisionNotFoundError:
            if create_pr:
                raise
            return _list(name, "main"), True
    except RepositoryNotFoundError:
        return None, branch != "main"
    except Exception as error:
        raise TargetError(
            f"The files of {name} on the Hub cannot be listed; nothing was sent",
            why=hub_error(name, None, error).why,
            remedy="Check the network, the name and the revision, and that you are logged in (`hf auth whoami`)",
        ) from error
