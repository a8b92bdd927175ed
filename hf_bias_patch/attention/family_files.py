"""The texts of the family files, and drafts beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from typing import TypeVar

__all__ = ["drafted", "from_files", "text_of", "texts"]

_F = TypeVar("_F", bound=Callable[..., object])
_made: list[Callable[[], None]] = []


def from_files(function: _F) -> _F:
    """A function whose results come from the files and are kept until those change."""
    kept = cache(function)
    _made.append(kept.cache_clear)
    return kept  # type: ignore[return-value]


@cache
def texts() -> dict[str, str]:
    """The family files: name → content."""
    files = sorted(resources.files(__package__).joinpath("families").iterdir(), key=lambda file: file.name)
    return {file.name.removesuffix(".toml"): file.read_text("utf-8") for file in files if file.name.endswith(".toml")}


def text_of(name: str) -> str:
    """The text of a family's file; empty if there is none of that name."""
    return texts().get(name, "")


@contextmanager
def drafted(name: str, text: str) -> Iterator[None]:
    """A block in which one more family file is there, or an existing one says something else.

    Args:
        name: of the file.
        text: its content.
    """
    old = texts().get(name)
    _put(name, text)
    try:
        yield
    finally:
        _put(name, old)


def _put(name: str, text: str | None) -> None:
    if text is None:
        texts().pop(name)
    else:
        texts()[name] = text
    for forget in _made:
        forget()
