"""What the Hub says when it refuses, in its own words: all of them, within bounds, and no token."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

__all__ = ["chain", "hub_words"]

_LINES = 40
"""One reason that lists all licences of the Hub, or all its tasks, has about 15 to 20."""

_WIDTH = 76
_FIRST = 400
"""Characters of the first line: an address may be long."""

_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}\b")
_PAGE = re.compile(r"<!doctype html|<html", re.IGNORECASE)


def hub_words(error: BaseException) -> str:
    """The reason that an error of huggingface_hub has: its kind, then what the Hub and the client say.

    Returns:
        One line; or several, wrapped and indented below the first one, with a line end behind the last.
    """
    lines = [f"{type(error).__name__}: {_sound(_own_lines(error)[0])}"[:_FIRST]]
    for line in [*_own_lines(error)[1:], *_said_by_the_server(error)]:
        if line and not any(line in known for known in lines):
            lines.append(_sound(line))
    if len(lines) == 1:
        return lines[0]
    wrapped = [part for line in lines[1:] for part in _wrapped(line)]
    left = len(wrapped) - _LINES
    more = [f"  (and {left} more lines)"] if left > 0 else []
    return "\n".join([lines[0], *wrapped[:_LINES], *more]) + "\n"


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it: the client wraps those of its threads."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _own_lines(error: BaseException) -> list[str]:
    """Of what the Hub answered, the client's first line names status and address; advice of the client follows."""
    lines = [line.strip() for line in _PAGE.split(str(error))[0].splitlines() if line.strip()] or [""]
    return lines[:1] if getattr(error, "response", None) is not None else lines


def _said_by_the_server(error: BaseException) -> list[str]:
    said = next((text for cause in chain(error) if (text := getattr(cause, "server_message", None))), "")
    return [line.strip() for line in _PAGE.split(said)[0].splitlines()]


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, _WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def _sound(text: str) -> str:
    """Without tokens, which a Hub that repeats what it was sent may name."""
    from huggingface_hub import get_token

    known = get_token()
    return _TOKEN.sub("(a token)", text.replace(known, "(a token)") if known else text)
