"""Every error this package raises on purpose.

    BiasPatchError
    ├── ArgumentError    (TypeError)           a function was given a thing of another kind than it takes
    ├── SourceError      (FileNotFoundError)   the MODEL argument leads nowhere
    │   └── UnreachableError                   the Hub does not answer now, and may later
    ├── CheckpointError  (ValueError)          a file is damaged, lying or of a kind we do not edit
    │   └── ValuesError                        a tensor's values cannot be computed with
    ├── FamilyError      (LookupError)         the architecture, or a config value of it, is not known
    ├── RecipeError      (ValueError)          the request is malformed or selects nothing
    ├── PlanError        (ValueError)          the request is clear, and refused for this checkpoint
    ├── TargetError      (OSError)             the place to write to cannot be used
    ├── VerifyError      (RuntimeError)        evidence could not be collected (a failed certificate is not an error)
    ├── TaskError        (ValueError)          a task is unknown, malformed, or does not fit the model
    ├── DataError        (ValueError)          a task's data cannot be had, or is not what the task says
    ├── TuneError        (RuntimeError)        training cannot begin, or cannot go on
    └── ExtraError       (ImportError)         a part of the package that is installed by name only is missing

Each refines the built-in beside it, so that callers who know nothing of this package still catch it.
Each message says what (which tensor, file or field), why, and what to do.
"""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "BiasPatchError",
    "CheckpointError",
    "DataError",
    "ExtraError",
    "FamilyError",
    "PlanError",
    "RecipeError",
    "SourceError",
    "TargetError",
    "TaskError",
    "TuneError",
    "UnreachableError",
    "ValuesError",
    "VerifyError",
]


class BiasPatchError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        what: the tensor, file or field, and what is wrong with it.
        why: the consequence or cause, where `what` does not say it already.
        remedy: what the user can do.
    """

    def __init__(self, what: str, why: str = "", remedy: str = "") -> None:
        self.what, self.why, self.remedy = what, why, remedy
        super().__init__(what, why, remedy)

    def __str__(self) -> str:
        parts = (self.what, self.why, self.remedy)
        ended = [part if part.endswith((".", ":", "\n")) else f"{part}." for part in parts if part]
        return "".join(part if part.endswith("\n") else f"{part} " for part in ended).rstrip()


class ArgumentError(BiasPatchError, TypeError):
    """A function was given a thing of another kind than it takes."""


class SourceError(BiasPatchError, FileNotFoundError):
    """The MODEL argument leads to no checkpoint."""


class UnreachableError(SourceError):
    """The Hub does not answer, or not now: the same request may do later."""


class CheckpointError(BiasPatchError, ValueError):
    """A checkpoint file is damaged, inconsistent, or of a kind that cannot be edited."""


class ValuesError(CheckpointError):
    """A tensor is not floating point, or holds NaN or infinite values."""


class FamilyError(BiasPatchError, LookupError):
    """The architecture, or a config value of it, is not known."""


class RecipeError(BiasPatchError, ValueError):
    """The request is malformed, or a selector of it matches nothing."""


class PlanError(BiasPatchError, ValueError):
    """The request is well formed and refused for this checkpoint."""


class TargetError(BiasPatchError, OSError):
    """The place to write to cannot be used."""


class VerifyError(BiasPatchError, RuntimeError):
    """Evidence could not be collected."""


class TaskError(BiasPatchError, ValueError):
    """A task is unknown, malformed, or does not fit the model."""


class DataError(BiasPatchError, ValueError):
    """A task's data cannot be had, or is not what the task says."""


class TuneError(BiasPatchError, RuntimeError):
    """Training cannot begin as it was asked for, or cannot go on."""


class ExtraError(BiasPatchError, ImportError):
    """A part of the package that is installed by name only, such as `hf_bias_patch[tune]`, is missing."""
