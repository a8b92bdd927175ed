"""What the Hub's refusals mean to a user, and its own words: all of them, within bounds, and no token."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from hf_bias_patch.errors import SourceError, UnreachableError

__all__ = ["GIVE_A_FOLDER", "chain", "hub_error", "hub_words"]

GIVE_A_FOLDER = "Give the path of a local folder, or try `embedded:bert`"
_LATER = (408, 429, 500, 502, 503, 504)
_LINES = 40
"""One reason that lists all licences of the Hub, or all its tasks, has about 15 to 20."""

_WIDTH = 76
_FIRST = 400
"""Characters of the first line: an address may be long."""

_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}\b")
_PAGE = re.compile(r"<!doctype html|<html", re.IGNORECASE)


def hub_error(name: str, revision: str | None, error: Exception) -> SourceError:
    """An error of huggingface_hub: what and what to do in our words, why in the Hub's. It holds no token."""
    from huggingface_hub import errors

    at = f" at revision {revision}" if revision else ""
    why = hub_words(error)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return SourceError(f"{name} is gated", why, "Accept its terms on the Hub and log in with `hf auth login`")
    if isinstance(error, errors.RepositoryNotFoundError):
        remedy = f"Check the name; log in with `hf auth login` if it is private. {GIVE_A_FOLDER}"
        return SourceError(f"There is no folder and no public model {name!r}", why, remedy)
    if isinstance(error, errors.RevisionNotFoundError):
        return SourceError(f"{name} has no revision {revision!r}", why, "Check its branches, tags and commits")
    if isinstance(error, errors.HFValidationError):
        return SourceError(f"{name!r} does not exist, and is not a Hub id either", why, GIVE_A_FOLDER)
    if status in (401, 403):
        return SourceError(
            f"The Hub refuses {name}{at}", why, "Log in with `hf auth login`, as somebody who may read it"
        )
    if status in _LATER:
        return UnreachableError(f"The Hub answered {status} for {name}{at}", why, "Try again later")
    if status is not None:
        return SourceError(f"The Hub answered {status} for {name}{at}", why, GIVE_A_FOLDER)
    return UnreachableError(
        f"There is no folder {name!r}, and the Hub cannot be reached for the model{at}",
        why,
        f"Download it where there is a network (`hf download {name}`). {GIVE_A_FOLDER}",
    )


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
    """The text without access tokens: an answer of the Hub may repeat the one that was sent."""
    from huggingface_hub import get_token

    known = get_token()
    return _TOKEN.sub("(a token)", text.replace(known, "(a token)") if known else text)
