"""A census summed up: a row for each bias as parquet, and what the families come to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hf_bias_patch.errors import TargetError
from hf_bias_patch.surveying.survey import Entry

__all__ = ["FamilyCount", "by_family", "require_parquet", "write_parquet"]


@dataclass(frozen=True)
class FamilyCount:
    """The models of one family.

    Attributes:
        family: its name.
        models: how many.
        with_key: how many have key biases.
        redundant: how many have redundant key biases.
        removable: numbers in redundant key biases.
        norm: median over these models of the largest norm of a redundant key bias; None without.
    """

    family: str
    models: int
    with_key: int
    redundant: int
    removable: int
    norm: float | None


def by_family(entries: Sequence[Entry]) -> list[FamilyCount]:
    """A line for each family, those with most removable numbers first."""
    names = sorted({entry.family for entry in entries if not entry.problem})
    made = [_family(name, [entry for entry in entries if entry.family == name]) for name in names]
    return sorted(made, key=lambda count: (-count.removable, count.family))


def require_parquet() -> None:
    """Whether parquet can be written at all.

    Raises:
        TargetError: pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        raise TargetError("A census is written with pyarrow", remedy="pip install 'hf_bias_patch[hub]'")


def write_parquet(entries: Sequence[Entry], path: Path) -> None:
    """A row for each bias: model, commit, model_type, family, and the fields of `Entry.biases`.

    Raises:
        TargetError: pyarrow is not installed, or the file cannot be written.
    """
    require_parquet()
    import pyarrow as arrow
    from pyarrow import parquet

    text, number = arrow.string(), arrow.int64()
    schema = arrow.schema(
        [(name, text) for name in ("model", "commit", "model_type", "family", "site", "projection", "verdict")]
        + [("reason", text), ("dtype", text), ("parameters", number), ("norm", arrow.float64())]
    )
    rows = [
        {"model": entry.model, "commit": entry.commit, "model_type": entry.model_type, "family": entry.family} | bias
        for entry in entries
        for bias in entry.biases
    ]
    try:
        parquet.write_table(arrow.Table.from_pylist(rows, schema), path)
    except OSError as error:
        raise TargetError(f"{path} cannot be written", why=error.strerror or str(error)) from error


def _family(name: str, entries: Sequence[Entry]) -> FamilyCount:
    keys = [[bias for bias in entry.biases if bias["projection"] == "key"] for entry in entries]
    redundant = [[bias for bias in biases if bias["verdict"] == "redundant"] for biases in keys]
    largest = [max(norms) for biases in redundant if (norms := [b["norm"] for b in biases if b["norm"] is not None])]
    return FamilyCount(
        family=name,
        models=len(entries),
        with_key=sum(map(bool, keys)),
        redundant=sum(map(bool, redundant)),
        removable=sum(bias["parameters"] for biases in redundant for bias in biases),
        norm=statistics.median(largest) if largest else None,
    )
