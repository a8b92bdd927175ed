"""What the Hub's refusals mean to a user."""

from __future__ import annotations

from hf_bias_patch.checkpoint.hub_words import hub_words
from hf_bias_patch.errors import SourceError, UnreachableError

__all__ = ["GIVE_A_FOLDER", "hub_error"]

GIVE_A_FOLDER = "Give the path of a local folder, or try `embedded:bert`"
_LATER = (408, 429, 500, 502, 503, 504)


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
        return SourceError(f"{name!r} does not exist, and is no Hub id either", why, GIVE_A_FOLDER)
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
