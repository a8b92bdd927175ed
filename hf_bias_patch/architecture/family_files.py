"""The texts of the family files, drafts of new ones, and names that a file writes once for two layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from typing import Any, TypeVar

__all__ = ["drafted", "from_files", "text_of", "texts", "with_base"]

_F = TypeVar("_F", bound=Callable[..., object])
_made: list[Callable[[], None]] = []


def from_files(function: _F) -> _F:
    """Cache the results of a function that reads family files, until the files change."""
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


def with_base(facts: dict[str, Any]) -> dict[str, Any]:
    """A family's facts without the entry `base`, and every name that begins so once more without.

    Where a class with a head has modules beside its base model (the decoder of ViTMAE), one prefix does not fit all
    names, so that theirs begin with the base model's (`vit.layers.{layer}`). `base = "vit"` says that the base model
    may be saved by itself. Names that begin with it are looked for first.

    Args:
        facts: as a family file has them; not changed.
    """
    base = facts.get("base")
    rest = {key: value for key, value in facts.items() if key != "base"}
    if not base:
        return rest
    return rest | {key: _both(rest[key], f"{base}.") for key in ("stacks", "attention") if key in rest}


def _both(facts: Any, start: str) -> Any:
    if isinstance(facts, dict):
        return {_both(key, start): _both(value, start) for key, value in facts.items()}
    if isinstance(facts, list):
        return [_both(value, start) for value in facts]
    if not isinstance(facts, str):
        return facts
    names = facts.split("|")
    return "|".join([*names, *(name.removeprefix(start) for name in names if name.startswith(start))])
