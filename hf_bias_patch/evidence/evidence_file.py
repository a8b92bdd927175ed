"""Evidence as JSON in a file: only what was measured is stored, and what follows from it is judged when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hf_bias_patch.errors import CheckpointError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["EvidenceFile", "EvidencePart"]


class EvidencePart(BaseModel):
    """A part of the evidence in a file."""

    # Bounds and errors may be infinite or NaN, for which JSON has no numbers.
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")


class EvidenceFile(EvidencePart):
    """All that a file of evidence holds."""

    WHAT: ClassVar[str]
    REMEDY: ClassVar[str]

    def dumps(self) -> str:
        """The evidence as JSON text."""
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def loads(cls, text: str | bytes, where: str | Path = "") -> Self:
        """The evidence from JSON text.

        Args:
            text: what `dumps` gave.
            where: its file, for the error.

        Raises:
            CheckpointError: it is none, or one of another version of this package.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise CheckpointError(
                f"{where or cls.WHAT} cannot be read as a {cls.WHAT} of this version ({error.error_count()} problems)",
                remedy=cls.REMEDY,
            ) from None
