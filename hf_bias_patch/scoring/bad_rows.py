"""Rows that cannot be read: refused at once, or left out, counted and listed."""

from __future__ import annotations

from hf_bias_patch.errors import DataError

__all__ = ["BadRows", "RowError"]

_LISTED = 10


class RowError(Exception):
    """What is wrong with one row; `BadRows.meet` turns it into an error for users, or into a count.

    Args:
        reason: what is wrong.
        remedy: what the user can do, besides leaving the row out.
    """

    def __init__(self, reason: str, remedy: str = "Correct it") -> None:
        self.reason, self.remedy = reason, remedy
        super().__init__(reason)


class BadRows:
    """Rows that cannot be read: each is refused, or left out and counted.

    Attributes:
        count: rows left out so far.
    """

    def __init__(self, skip: bool = False) -> None:
        self._skip, self._listed = skip, list[str]()
        self.count = 0

    def meet(self, where: str, place: str, row: RowError) -> None:
        """Refuse a row, or leave it out.

        Args:
            where: the file or split.
            place: the row in it, such as `line 3`.
            row: what is wrong with it.

        Raises:
            DataError: rows are not to be left out.
        """
        if not self._skip:
            raise DataError(
                f"{where}, {place}: {row.reason}", remedy=f"{row.remedy}, or leave such rows out: --skip-bad-rows"
            ) from None
        self.count += 1
        if self.count <= _LISTED:
            self._listed.append(f"{place}: {row.reason}")

    @property
    def notes(self) -> tuple[str, ...]:
        """How many were left out, then the first ten; empty if there were none."""
        if not self.count:
            return ()
        more = self.count - len(self._listed)
        shown = [*self._listed, *([f"and {more:,} more"] if more else [])]
        return (f"{self.count:,} rows that cannot be read were left out", *(f"  {line}" for line in shown))
