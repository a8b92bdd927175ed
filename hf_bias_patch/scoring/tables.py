"""Tables as text: what separates their fields, whether quotes are quotes, and which columns they have.

A file does not say any of this. The columns that are wanted decide the delimiter. Whether quotes are letters (GLUE's
files) or hold a field together (Quora's) is decided by which of the two gives every line as many fields as the first.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from hf_bias_patch.errors import DataError
from hf_bias_patch.scoring.bad_rows import BadRows, RowError

__all__ = ["Columns", "Row", "is_table", "table_rows"]

Row = Mapping[str, Any]
"""From column to value."""

_DELIMITERS = {"csv": ",;\t|", "tsv": "\t,;|", "txt": "\t,;|"}  # the likeliest first
_LOOK = 20  # lines that tell the delimiter of a file none of whose columns is known
_NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}


@dataclass(frozen=True)
class Columns:
    """The columns that a file should have.

    Attributes:
        wanted: column → all the names that it may have in a file.
        headerless: the columns of a file without a header line; none is accepted if empty.
        reader: what wants them, in an error.
    """

    wanted: Mapping[str, frozenset[str]] = field(default_factory=dict)
    headerless: tuple[str, ...] = ()
    reader: str = "This command"

    def found(self, header: Sequence[str]) -> int:
        """How many of those that are wanted a header line has."""
        return sum(not names.isdisjoint(header) for names in self.wanted.values())


@dataclass(frozen=True)
class _Dialect:
    delimiter: str
    quoted: bool

    def reader(self, lines: Any) -> Any:
        if self.quoted:
            return csv.reader(lines, strict=True, delimiter=self.delimiter)
        return csv.reader(lines, strict=True, delimiter=self.delimiter, quoting=csv.QUOTE_NONE)

    def split(self, line: str) -> list[str]:
        """One line's fields; names of columns have no blanks around them, and none is nothing."""
        fields: list[str]
        try:
            fields = next(self.reader([line]), [])
        except csv.Error:
            fields = line.rstrip("\r\n").split(self.delimiter)
        return [name.strip() for name in fields]


def is_table(path: Path, columns: Columns) -> bool:
    """Whether the first line of a text file names the columns that are wanted, so that the file is not running text.

    One may be missing, which is then refused as a wrong table. A running text's own column is `text`.
    """
    if set(columns.wanted) <= {"text"}:
        return False
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
    splits = (_Dialect(each, True).split(first) for each in _DELIMITERS["txt"])
    least = max(len(columns.wanted) - 1, 1)
    return any(len(names) > 1 and columns.found(names) >= least for names in splits)


def table_rows(path: Path, kind: str, columns: Columns, bad: BadRows) -> Iterator[tuple[str, Row]]:
    """The rows of a table, each with its place; every value is a string.

    Args:
        path: a UTF-8 file.
        kind: csv, tsv or txt: what its name says.
        columns: that it should have.
        bad: what becomes of rows with too few or too many fields.

    Raises:
        DataError: a column is missing or there twice, or a quote is opened and never closed.
    """
    delimiter = _delimiter(path, kind, columns)
    dialect = _Dialect(delimiter, _quoted(path, delimiter, preferred=kind == "csv" or delimiter != "\t"))
    with path.open(encoding="utf-8-sig", newline="") as file:
        records = _records(dialect, file, path, bad)
        first = next(records, None)
        if first is None:
            return
        names = [name.strip() for name in first[1]]
        if columns.headerless and len(first[1]) == len(columns.headerless) and not columns.found(names):
            names = list(columns.headerless)
            yield first[0], dict(zip(names, first[1], strict=True))
        elif names[-1] == "":  # a delimiter at the end of each line
            names.pop()
        _check(names, columns, path, delimiter)
        for place, fields in records:
            if len(fields) == len(names) + 1 and fields[-1] == "":
                fields.pop()
            if len(fields) == len(names):
                yield place, dict(zip(names, fields, strict=True))
                continue
            bad.meet(str(path), place, _miscounted(len(fields), len(names), dialect))


def _miscounted(fields: int, columns: int, dialect: _Dialect) -> RowError:
    return RowError(
        f"{fields} fields between {_NAMES[dialect.delimiter]}, where the first line has {columns}",
        "Quote texts that hold the delimiter (csv), or take it out of them (tsv)",
    )


class _Lines:
    """The lines of a file; those of a record that could not be read are given out again."""

    def __init__(self, file: Iterable[str]) -> None:
        self._file, self._again = iter(file), deque[str]()
        self._taken: list[str] = []
        self.number = 1

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._file)
        self._taken.append(line)
        return line

    def accept(self) -> None:
        """The lines since the last call made a record."""
        self.number += len(self._taken)
        self._taken.clear()

    def leave_out_first(self) -> None:
        """The first of the lines since then cannot be read; the others may be records of their own."""
        self._again.extendleft(reversed(self._taken[1:]))
        self._taken.clear()
        self.number += 1


def _records(dialect: _Dialect, file: Any, path: Path, bad: BadRows) -> Iterator[tuple[str, list[str]]]:
    """Fields with the line where they begin; empty lines are left out.

    A record whose quotes do not fit may have run on over good lines: only the line where it begins is bad.
    """
    lines = _Lines(file)
    reader = dialect.reader(lines)
    while True:
        place = f"line {lines.number}"
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            bad.meet(str(path), place, _unquoted(str(error)))
            lines.leave_out_first()
            reader = dialect.reader(lines)
            continue
        lines.accept()
        if fields:
            yield place, fields


def _unquoted(error: str) -> RowError:
    if "unexpected end" in error:
        return RowError(
            "a quote is opened and never closed, so that all that follows would be one field",
            'Close it; a quote that is part of a quoted text is written twice: ""',
        )
    return RowError(f"it cannot be split into fields ({error})", "Correct its quotes")


def _delimiter(path: Path, kind: str, columns: Columns) -> str:
    """The one that gives the most of the wanted columns; else that which gives the first lines as many fields."""
    choices = _DELIMITERS[kind]
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = list(islice(file, _LOOK))
    if not lines:
        return choices[0]
    headers = {each: _Dialect(each, True).split(lines[0]) for each in choices}
    if most := max(columns.found(names) for names in headers.values()):
        return next(each for each in choices if columns.found(headers[each]) == most)
    for each in choices:
        if len(headers[each]) == len(columns.headerless) > 1:
            return each
    return next((each for each in choices if _even(lines, each)), choices[0])


def _even(lines: Sequence[str], delimiter: str) -> bool:
    """Whether all lines have as many fields, and more than one; the last record may be cut off."""
    counts, reader = set(), _Dialect(delimiter, True).reader(iter(lines))
    try:
        counts = {len(fields) for fields in reader if fields}
    except csv.Error:
        counts = {len(line.split(delimiter)) for line in lines}
    return len(counts) == 1 and counts.pop() > 1


def _quoted(path: Path, delimiter: str, *, preferred: bool) -> bool:
    """Whether quotes hold fields together. What the name of the file says, unless only the other fits all its lines."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline().strip()
        if '"' not in header and not any('"' in line for line in file):
            return preferred
    if header.startswith('"') and header.endswith('"') and len(_Dialect(delimiter, True).split(header)) > 1:
        return True
    faults = {quoted: _faults(path, _Dialect(delimiter, quoted)) for quoted in (True, False)}
    here, there = faults[preferred], faults[not preferred]
    if here is None:
        return preferred if there != 0 else not preferred
    if here and there is not None and there < here:
        return not preferred
    return preferred or (here == 0 == there and _doubled(path, delimiter))


def _faults(path: Path, dialect: _Dialect) -> int | None:
    """Records that have not as many fields as the first; None where quotes do not fit."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = dialect.reader(file)
        try:
            wanted = len(next(reader, []))
            return sum(len(fields) != wanted for fields in reader if fields)
        except csv.Error:
            return None


def _doubled(path: Path, delimiter: str) -> bool:
    """Whether a field that begins with a quote holds a doubled one, as only writers that quote make it."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        fields = (each for line in file for each in line.rstrip("\r\n").split(delimiter))
        return any(len(each) > 4 and each[0] == each[-1] == '"' and '""' in each[1:-1] for each in fields)


def _remedy(names: Sequence[str], missing: str, columns: Columns) -> str:
    if len(names) == 1:
        return f"Separate fields by {', '.join(_NAMES.values())}"
    if not columns.found(names):
        return f"Begin the file with a line that names its columns: {', '.join(columns.wanted)}"
    return f"Rename the column that holds it to {missing!r}, or add it"


def _check(names: Sequence[str], columns: Columns, path: Path, delimiter: str) -> None:
    split = f"the first line was split at {_NAMES[delimiter]}"
    if missing := [name for name, known in columns.wanted.items() if known.isdisjoint(names)]:
        raise DataError(
            f"{path}: there is no column {missing[0]!r}; it has {', '.join(map(repr, names))}",
            why=f"{columns.reader} reads {', '.join(columns.wanted)}; {split}",
            remedy=_remedy(names, missing[0], columns),
        )
    known = frozenset[str]().union(*columns.wanted.values())
    if twice := [name for name in names if names.count(name) > 1 and name in known]:
        raise DataError(f"{path} has the column {twice[0]!r} twice; {split}", remedy="Rename or remove one of them")
