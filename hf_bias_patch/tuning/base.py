"""What an adapter is loaded on: a model that stock libraries find again, by a Hub id and a commit or a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass

from hf_bias_patch.checkpoint.paths import hub_repo
from hf_bias_patch.checkpoint.sidecar import is_patch_only
from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.evidence.models import folder_of

__all__ = ["Base", "base_of"]


@dataclass(frozen=True)
class Base:
    """What adapter_config.json calls the base.

    Attributes:
        name: a Hub id, or the absolute path of a folder.
        revision: the commit, of a Hub id.
    """

    name: str
    revision: str | None


def base_of(source: Source) -> Base | None:
    """How others find a source again; None for a patch without its weights, which no stock library can load."""
    folder = folder_of(source)
    if is_patch_only(folder):
        return None
    if (found := hub_repo(folder)) is not None:
        repository, commit = found
        return Base("/".join(repository.name.split("--")[1:]), commit)
    return Base(os.path.abspath(folder), None)
