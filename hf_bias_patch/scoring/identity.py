"""Which data a score is of: a split of a data set on the Hub at a commit, a file by its sha256, or generated rows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

__all__ = ["DataIdentity"]

_Name = Annotated[str, Field(pattern=r"^[^\r\n]*[^\s][^\r\n]*$")]
_Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class DataIdentity:
    """The data that a score was measured on.

    Attributes:
        origin: where it came from.
        name: id of the data set on the Hub; name of the file, without its folder; name of the generator.
        split: its name where it came from; of a file, what it was taken for.
        rows: that were taken (of generation: questions when scored, pairs when trained on).
        config: of the data set on the Hub.
        revision: commit of the data set on the Hub; None if it cannot be known.
        sha256: of the file.
        limited: whether they are only some of the rows.
        skipped: rows that could not be read and were left out.
    """

    origin: Literal["hub", "file", "generated"]
    name: _Name
    split: _Name
    rows: _Count
    config: _Name | None = None
    revision: Annotated[str, Field(pattern="^[0-9a-f]{40}$")] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    limited: bool = False
    skipped: _Count = 0

    @property
    def is_public(self) -> bool:
        """Whether anybody can have the very same rows, all of them: a whole split on the Hub, at a known commit."""
        return self.origin == "hub" and self.revision is not None and not self.limited and not self.skipped

    def __str__(self) -> str:
        found = f"{self._where}, {self.rows:,} rows"
        if self.limited:
            found = f"only {self.rows:,} rows of {self._where}"
        return f"{found}, {self.skipped:,} more left out" if self.skipped else found

    @property
    def _where(self) -> str:
        if self.origin == "file":
            return f"file {self.name}, sha256 {(self.sha256 or 'unknown')[:12]}"
        if self.origin == "generated":
            return f"generator {self.name}, {self.split}"
        data = f"{self.name} {self.config}" if self.config else self.name
        return f"{data}, {self.split}, commit {self.revision[:12] if self.revision else 'unknown'}"

    def plain(self) -> dict[str, Any]:
        """As JSON values, without what does not apply."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def of_plain(cls, plain: Any) -> DataIdentity:
        """What `plain` gave.

        Raises:
            ValueError: it is not what `plain` gives.
        """
        return _CHECKED.validate_json(json.dumps(plain), strict=True)


_CHECKED = TypeAdapter(DataIdentity)
