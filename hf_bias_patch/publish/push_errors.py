"""What the Hub's refusals of an upload mean to a user. No message holds a token: the client names none."""

from __future__ import annotations

from hf_bias_patch.errors import TargetError

__all__ = ["push_error"]

_LATER = (408, 429, 500, 502, 503, 504)
_NOTHING = "Nothing was published: all files come with one commit, or none"


def push_error(name: str, error: Exception) -> TargetError:
    """An error of huggingface_hub in our words: what, why, and what to do."""
    status = next((code for code in map(_status, _chain(error)) if code is not None), None)
    text = str(error).strip()
    said = f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"
    why = f"{_NOTHING}. {said}"
    if status == 401:
        return TargetError(f"The Hub does not know who pushes to {name}", why, "Log in with `hf auth login`")
    if status == 403:
        return TargetError(
            f"You may not write to {name}",
            why,
            "Use a token that may write, push under your own name, or propose the change with --create-pr",
        )
    if status == 404:
        return TargetError(f"There is no {name}, or no such revision of it", why, "Check the names")
    if status == 409:
        return TargetError(f"Somebody made {name} in this moment", why, "Look at what it is, and push again")
    if status == 412:
        return TargetError(
            f"Somebody pushed to {name} in this moment", why, "Look at what they changed, and push again"
        )
    if status in _LATER:
        return TargetError(f"The Hub answered {status} for {name}", why, "Push again later; what arrived is kept")
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return TargetError(f"The Hub's client refuses to push to {name}", why)
    if status is not None:
        return TargetError(f"The Hub answered {status} for {name}", why)
    return TargetError(
        f"The connection to the Hub broke while pushing to {name}",
        f"All of it was published, or nothing: all files come with one commit. {said}",
        "Push again: what arrived is kept, and what is there is not sent twice",
    )


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what caused it: the client wraps those of its threads."""
    found = [error]
    while (cause := found[-1].__cause__ or found[-1].__context__) is not None:
        found.append(cause)
    return found


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
