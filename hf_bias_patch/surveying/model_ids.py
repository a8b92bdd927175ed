"""Which models a survey looks at: those a file lists, or those a search of the Hub finds."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from hf_bias_patch.checkpoint.hub_errors import hub_error
from hf_bias_patch.errors import SourceError

__all__ = ["find_models", "read_ids"]


def read_ids(path: Path) -> list[str]:
    """The Hub ids in a text file, one a line. Empty lines, and what follows a `#`, are skipped.

    Raises:
        SourceError: the file cannot be read, or lists no id.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read", why=str(error)) from error
    ids = [name for line in lines if (name := line.partition("#")[0].strip())]
    if not ids:
        raise SourceError(f"{path} lists no models", remedy="Write one Hub id a line")
    return ids


def find_models(author: str | None, search: str | None, limit: int) -> list[str]:
    """The most downloaded models on the Hub that have safetensors files.

    Args:
        author: only models of this user or organisation.
        search: only models with this text in their name.
        limit: how many at most.

    Raises:
        SourceError: the Hub cannot be reached, or has no such models.
    """
    import huggingface_hub as hub

    try:
        found = hub.HfApi().list_models(
            author=author, search=search, filter="safetensors", sort="downloads", limit=limit
        )
        ids = [model.id for model in islice(found, limit)]
    except Exception as error:
        raise hub_error(author or search or "", None, error) from error
    if not ids:
        raise SourceError("The Hub has no such models with safetensors files", remedy="Ask for others")
    return ids
