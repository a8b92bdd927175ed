"""Raw rows from local files, as mappings from column to value, one at a time and without any guessing of types."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hf_bias_patch.errors import DataError
from hf_bias_patch.scoring.bad_rows import BadRows, RowError
from hf_bias_patch.scoring.extra import need
from hf_bias_patch.scoring.tables import Columns, Row, is_table, table_rows

__all__ = ["FORMATS", "SPLIT_NAMES", "Row", "find_file", "read_rows"]

FORMATS = ("jsonl", "json", "csv", "tsv", "parquet", "txt", "xml")
SPLIT_NAMES = {"validation": ("validation", "valid", "val", "dev"), "train": ("train",), "test": ("test",)}
"""Split → what files of it are called."""


def find_file(place: str | Path, split: str, *also: str) -> Path:
    """The file of a split: `place` itself, or in a folder the one named after the split (`dev.tsv`, `train.jsonl`).

    Args:
        place: a file or folder.
        split: what the file is of.
        also: other names of the split.

    Raises:
        DataError: there is no such file, or more than one.
    """
    place = Path(place)
    if place.is_file():
        return place
    if not place.is_dir():
        raise DataError(f"There is no file or folder {place}", remedy=f"Files may be {', '.join(FORMATS)}")
    names = [name for each in (*also, split) for name in _names_of(each)]
    found = sorted(path for path in place.iterdir() if path.stem.lower() in names and _kind(path) in FORMATS)
    if len(found) != 1:
        there = ", ".join(path.name for path in found) or "none"
        raise DataError(
            f"{place} should hold one file of the split {split}: {names[-1]}.{'|'.join(FORMATS)}; there is {there}",
            remedy="Give the file itself",
        )
    return found[0]


def _names_of(split: str) -> list[str]:
    """`validation` may be `dev`, and `validation_matched` may be `dev_matched`."""
    part, underscore, rest = split.partition("_")
    return [f"{name}{underscore}{rest}" for name in SPLIT_NAMES.get(part, (part,))]


def read_rows(path: Path, columns: Columns | None = None, bad: BadRows | None = None) -> Iterator[tuple[str, Row]]:
    """The rows of a file, in order, each with its place in it: `line 3`, or `row 3` where rows are not lines.

    In csv and tsv files every value is a string, and so it is in a txt file whose first line names the columns; any
    other txt file is a running text.

    Args:
        path: a jsonl, json, csv, tsv, parquet, txt or xml file; UTF-8.
        columns: that it should have; any if None.
        bad: what becomes of rows that cannot be read; refused if None.

    Raises:
        DataError: the file cannot be read as what its name says, a column is missing in a table, or a row is wrong.
    """
    kind, columns, bad = _kind(path), columns or Columns(), bad or BadRows()
    if kind not in FORMATS:
        raise DataError(f"{path} has an unsupported format", remedy=f"Files may be {', '.join(FORMATS)}")
    try:
        if kind in _TEXTS:
            _refuse_utf16(path)
        if kind in ("csv", "tsv") or (kind == "txt" and is_table(path, columns)):
            yield from table_rows(path, kind, columns, bad)
        else:
            yield from _READERS[kind](path, bad)
    except UnicodeDecodeError:
        raise _not_utf8(path, *_first_wrong_line(path)) from None
    except (OSError, csv.Error, json.JSONDecodeError, ElementTree.ParseError) as error:
        raise DataError(f"{path} cannot be read as {kind}", why=f"{type(error).__name__}: {error}") from None


def _kind(path: Path) -> str:
    return path.suffix[1:].lower()


def _refuse_utf16(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(1024)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in start:
        raise _not_utf8(path, "It looks like UTF-16", "UTF-16")


def _first_wrong_line(path: Path) -> tuple[str, str]:
    """What is wrong with a file that is not UTF-8, and what it most likely is."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start : error.start + 1]
                letter = byte.decode("cp1252", "replace")
                why = f"Line {number} has the byte 0x{byte.hex()}, which is {letter!r} in Windows-1252 and Latin-1"
                return why, "WINDOWS-1252"
    return "The file changed while it was read", "UTF-8"


def _not_utf8(path: Path, why: str, encoding: str) -> DataError:
    return DataError(
        f"{path} cannot be read as {_kind(path)}: it is not UTF-8",
        why=why,
        remedy=f"Convert it: iconv -f {encoding} -t UTF-8 {path.name} > new.{_kind(path)}",
    )


def _jsonl(path: Path, bad: BadRows) -> Iterator[tuple[str, Row]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield f"line {number}", _mapping(json.loads(line))
            except json.JSONDecodeError as error:
                bad.meet(str(path), f"line {number}", RowError(f"it cannot be read as jsonl ({error})"))
            except RowError as row:
                bad.meet(str(path), f"line {number}", row)


def _json(path: Path, bad: BadRows) -> Iterator[tuple[str, Row]]:
    content = json.loads(path.read_text("utf-8-sig"))
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    if not isinstance(content, list):
        raise DataError(f"{path} is not a list of rows", remedy='Write [{"column": value, …}, …], or one row a line')
    for number, row in enumerate(content, 1):
        try:
            yield f"row {number}", _mapping(row)
        except RowError as wrong:
            bad.meet(str(path), f"row {number}", wrong)


def _mapping(row: Any) -> Row:
    if not isinstance(row, dict):
        raise RowError("it is not a mapping from column to value", 'Write {"column": value, …}')
    return row


def _parquet(path: Path, bad: BadRows) -> Iterator[tuple[str, Row]]:
    pyarrow, parquet = need("pyarrow"), need("pyarrow.parquet")
    try:
        file = parquet.ParquetFile(path)
        rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
        yield from ((f"row {number}", row) for number, row in enumerate(rows, 1))
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} cannot be read as parquet", why=str(error)) from None


def _txt(path: Path, bad: BadRows) -> Iterator[tuple[str, Row]]:
    """Lines with their newline, so that they joined are the file; Windows' ends of lines are newlines."""
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, 1):
            yield f"line {number}", {"text": f"{line[:-2]}\n" if line.endswith("\r\n") else line}


def _xml(path: Path, bad: BadRows) -> Iterator[tuple[str, Row]]:
    """WebNLG's form, in which DART has its test set: entries of triples, with texts that say them."""
    for number, entry in enumerate(ElementTree.parse(path).getroot().iter("entry"), 1):
        triples = [[part.strip() for part in (item.text or "").split(" | ")] for item in entry.iter("mtriple")]
        texts = [{"source": lex.get("comment", ""), "text": (lex.text or "").strip()} for lex in entry.iter("lex")]
        yield f"entry {number}", {"tripleset": triples, "annotations": texts}


_TEXTS = ("jsonl", "json", "csv", "tsv", "txt")
_READERS: dict[str, Callable[[Path, BadRows], Iterator[tuple[str, Row]]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "parquet": _parquet,
    "txt": _txt,
    "xml": _xml,
}
