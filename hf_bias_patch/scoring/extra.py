"""The libraries that scoring needs and that no other part of the package does."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from hf_bias_patch.errors import ExtraError

__all__ = ["need"]


def need(module: str) -> Any:
    """Import a module of the extra `tune`.

    Raises:
        ExtraError: it is not installed; the message names the extra.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ExtraError(
            f"The library {(error.name or module).partition('.')[0]!r} is not installed",
            why="Only tuning and scoring need it",
            remedy="pip install 'hf_bias_patch[models,tune]'",
        ) from error
