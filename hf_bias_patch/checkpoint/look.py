"""Opens a checkpoint of which little will be read: what is not on this machine is read on the Hub, not fetched."""

from __future__ import annotations

import os
from typing import NamedTuple

from hf_bias_patch.checkpoint.checkpoint import Checkpoint
from hf_bias_patch.checkpoint.pickled import open_any_model
from hf_bias_patch.checkpoint.remote import open_remote
from hf_bias_patch.checkpoint.source import Source, locate

__all__ = ["Found", "look"]


class Found(NamedTuple):
    """A checkpoint that was looked up.

    Attributes:
        name: what the user called it; of a Hub id without its revision.
        commit: of a model on the Hub, or in its cache; None for any other place.
        checkpoint: opened.
    """

    name: str
    commit: str | None
    checkpoint: Checkpoint


def look(model: str | os.PathLike[str], *, revision: str | None = None) -> Found:
    """Find and open a checkpoint whose architecture must be known.

    Args:
        model, revision: as for `source.locate`.

    Raises:
        ArgumentError, SourceError: as for `source.resolve`.
        CheckpointError: as for `open_any_model`.
    """
    found = locate(model, revision=revision)
    if isinstance(found, Source):
        return Found(found.name, found.revision, open_any_model(found.path))
    remote = open_remote(found.name, found.revision)
    return Found(found.name, remote.hub.commit, remote)
