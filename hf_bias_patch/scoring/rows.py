"""Raw rows from local files, as mappings from column to value, one at a time and without any guessing of types."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hf_bias_patch.errors import DataError
from hf_bias_patch.scoring.extra import need

__all__ = ["FORMATS", "Row", "find_file", "read_rows"]

Row = Mapping[str, Any]

FORMATS = ("jsonl", "json", "csv", "tsv", "parquet", "txt", "xml")
_ALIASES = {"validation": ("validation", "valid", "val", "dev"), "train": ("train",), "test": ("test",)}


def find_file(place: str | Path, split: str) -> Path:
    """The file of a split: `place` itself, or in a folder the one named after the split (`dev.tsv`, `train.jsonl`).

    Raises:
        DataError: there is no such file, or more than one.
    """
    place = Path(place)
    if place.is_file():
        return place
    if not place.is_dir():
        raise DataError(f"There is no file or folder {place}", remedy=f"Files may be {', '.join(FORMATS)}")
    names = _ALIASES.get(split, (split,))
    found = sorted(path for path in place.iterdir() if path.stem in names and path.suffix[1:] in FORMATS)
    if len(found) != 1:
        there = ", ".join(path.name for path in found) or "none"
        raise DataError(
            f"{place} should hold one file of the split {split}: {names[-1]}.{'|'.join(FORMATS)}; there is {there}",
            remedy="Give the file itself",
        )
    return found[0]


def read_rows(path: Path, wanted: Iterable[str] = (), headerless: tuple[str, ...] = ()) -> Iterator[Row]:
    """The rows of a file, in order.

    In csv and tsv files every value is a string. In tsv files quotes are letters like any other, as in GLUE's.

    Args:
        path: a jsonl, json, csv, tsv, parquet, txt or xml file; UTF-8.
        wanted: columns that a header line must have, else the file is taken for one without.
        headerless: the columns of such a file; none is accepted if empty.

    Raises:
        DataError: the file cannot be read as what its name says, or a line of it has too few or too many fields.
    """
    kind = path.suffix[1:].lower()
    if kind not in FORMATS:
        raise DataError(f"{path} is of no kind that is read here", remedy=f"Files may be {', '.join(FORMATS)}")
    try:
        if kind in ("csv", "tsv"):
            yield from _table(path, kind, set(wanted), headerless)
        else:
            yield from _READERS[kind](path)
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError, ElementTree.ParseError) as error:
        raise DataError(f"{path} cannot be read as {kind}", why=f"{type(error).__name__}: {error}") from None


def _table(path: Path, kind: str, wanted: set[str], headerless: tuple[str, ...]) -> Iterator[Row]:
    dialect: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if kind == "tsv" else {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True, **dialect)
        first = next(lines, None)
        if first is None:
            return
        columns = first
        if headerless and len(first) == len(headerless) and not wanted & set(first):
            columns = list(headerless)
            yield dict(zip(columns, first, strict=True))
        for fields in lines:
            if not fields:
                continue
            if len(fields) != len(columns):
                raise DataError(
                    f"{path}, line {lines.line_num}: {len(fields)} fields, where the first line has {len(columns)}",
                    remedy="Quote texts that hold the delimiter (csv), or take it out of them (tsv)",
                )
            yield dict(zip(columns, fields, strict=True))


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _mapping(json.loads(line), f"{path}, line {number}")


def _json(path: Path) -> Iterator[Row]:
    content = json.loads(path.read_text("utf-8"))
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    if not isinstance(content, list):
        raise DataError(f"{path} holds no list of rows", remedy='Write [{"column": value, …}, …], or one row a line')
    for number, row in enumerate(content, 1):
        yield _mapping(row, f"{path}, row {number}")


def _mapping(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{where} is no mapping from column to value")
    return row


def _parquet(path: Path) -> Iterator[Row]:
    pyarrow, parquet = need("pyarrow"), need("pyarrow.parquet")
    try:
        file = parquet.ParquetFile(path)
        for batch in file.iter_batches():
            yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} cannot be read as parquet", why=str(error)) from None


def _txt(path: Path) -> Iterator[Row]:
    """Lines with their newline, so that they joined are the file."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            yield {"text": line}


def _xml(path: Path) -> Iterator[Row]:
    """WebNLG's form, in which DART has its test set: entries of triples, with texts that say them."""
    for entry in ElementTree.parse(path).getroot().iter("entry"):
        triples = [[part.strip() for part in (item.text or "").split(" | ")] for item in entry.iter("mtriple")]
        texts = [{"source": lex.get("comment", ""), "text": (lex.text or "").strip()} for lex in entry.iter("lex")]
        yield {"tripleset": triples, "annotations": texts}


_READERS = {"jsonl": _jsonl, "json": _json, "parquet": _parquet, "txt": _txt, "xml": _xml}
