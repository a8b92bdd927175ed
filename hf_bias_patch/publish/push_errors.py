"""What the Hub's refusals of a push mean to a user, and what stays on the Hub after one. No message holds a token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hf_bias_patch.checkpoint.hub_errors import chain, hub_words
from hf_bias_patch.errors import TargetError

__all__ = ["NewPlaces", "a_branch", "a_repository", "metadata_error", "push_error"]

_LATER = (408, 429, 500, 502, 503, 504)
_UNSAID = (None, 502, 504)
"""No answer, or one of a machine on the way to the Hub: what was asked for may have been done."""
_NOTHING = "Nothing was published: all files come with one commit, or none"
_FORBIDDEN = "Use a token that may write, push under your own name, or propose the change with --create-pr"
_TOO_LARGE = "Remove large files that the model does not need, or save the source in smaller shards"
_AGAIN = "Push again: what arrived is kept, and what is there is not sent twice"


@dataclass(frozen=True)
class NewPlace:
    """A repository or branch that a push creates before it sends anything.

    Attributes:
        what: which it is, by name.
        holds: what it holds before the commit.
        delete: the command that deletes it.
    """

    what: str
    holds: str
    delete: str


@dataclass
class NewPlaces:
    """What a push created on the Hub, and what stays there if it breaks off.

    Attributes:
        name: of the repository.
        create_pr: whether a pull request is to be opened.
        making: what was asked for and not answered yet.
        made: what was made, in this order.
    """

    name: str
    create_pr: bool = False
    making: NewPlace | None = None
    made: list[NewPlace] = field(default_factory=list)

    @contextmanager
    def makes(self, place: NewPlace) -> Iterator[None]:
        """Around the request that makes something."""
        self.making = place
        yield
        self.making = None
        self.made.append(place)

    def told(self, *, broke: bool, cut: bool) -> str:
        """What is there now, and how to delete it; empty if nothing is.

        Args:
            broke: whether the Hub failed, rather than refused.
            cut: whether it did not say that either, so that what was asked for may have been done.
        """
        if self.made:
            place = self.made[0]  # a branch goes with its repository
            holds = f"with all of the push or {place.holds}" if cut and not self.making else place.holds
            is_there = f"The {place.what} was made for it and is there, {holds}: the next push fills it, or"
        elif self.making and broke:
            place = self.making
            is_there = f"Whether the {place.what} was made is not known: if it is there, {place.holds},"
        else:
            return ""
        return f"{is_there} `{place.delete}` deletes it"


def a_repository(name: str) -> NewPlace:
    """The repository of a push."""
    return NewPlace(f"repository {name}", "empty", f"hf repos delete {name}")


def a_branch(name: str, branch: str) -> NewPlace:
    """The branch of a push."""
    return NewPlace(f"branch {branch} of {name}", "as main is", f"hf repos branch delete {name} {branch}")


def push_error(error: Exception, new: NewPlaces) -> TargetError:
    """The error to raise for one of huggingface_hub's: what happened and what to do in our words, why in the Hub's.

    Args:
        error: raised by the client while it pushed.
        new: what the push created before.
    """
    status = next((code for code in map(_status, chain(error)) if code is not None), None)
    what, remedy = _meaning(new, error, status)
    cut = status in _UNSAID and not _is_clients_own(error)
    broke = cut or (status or 0) >= 500
    published = "All of it was published, or nothing: all files come with one commit" if cut else _NOTHING
    if cut and new.create_pr:
        remedy = f"Check whether the pull request is there, for another push opens another one. {remedy}"
    advice = ". ".join(part for part in (new.told(broke=broke, cut=cut), remedy) if part)
    return TargetError(what, f"{published}. {hub_words(error)}", advice)


def metadata_error(error: Exception) -> TargetError:
    """The Hub refuses the front matter of a card. It was asked before anything was created."""
    return TargetError(
        "The Hub refuses the metadata at the top of README.md",
        f"{_NOTHING}. {hub_words(error)}",
        "See it with `hf-bias-patch card VARIANT --print`; write README.md with `hf-bias-patch card VARIANT`, correct "
        "it by hand, and push again: a card that you edited is pushed as it is",
    )


def _meaning(new: NewPlaces, error: Exception, status: int | None) -> tuple[str, str]:
    """What happened, and what to do."""
    name = new.name
    if status == 409 and new.making:
        return f"Somebody created {name} at this moment", "Look at what it is, and push again"
    if status in (409, 412):
        return f"Somebody pushed to {name} at this moment", "Look at what they changed, and push again"
    if status in _LATER:
        return f"The Hub answered {status} for {name}", "Push again later; what arrived is kept"
    known = {
        401: (f"The Hub does not know who pushes to {name}", "Log in with `hf auth login`"),
        403: (f"You may not write to {name}", _FORBIDDEN),
        404: (f"{name} does not exist, or has no such revision", "Check the names"),
        413: (f"What is pushed to {name} is too large for the Hub", _TOO_LARGE),
    }
    if status in known:
        return known[status]
    if _is_clients_own(error):
        return f"The Hub's client refuses to push to {name}", ""
    if status is not None:
        return f"The Hub answered {status} for {name}", ""
    return f"The connection to the Hub broke while pushing to {name}", _AGAIN


def _is_clients_own(error: Exception) -> bool:
    """Whether the client library refused before it sent anything. Errors of a connection or an answer are OSErrors."""
    return isinstance(error, ValueError) and not isinstance(error, OSError)


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
