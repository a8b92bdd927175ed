"""A survey as tables: the biases counted by family, and a row for each bias as parquet."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hf_bias_patch.errors import ExtraError, TargetError
from hf_bias_patch.surveying.record import SurveyedModel

__all__ = ["FamilyCount", "by_family", "require_parquet", "write_parquet"]


@dataclass(frozen=True)
class FamilyCount:
    """The models of one family.

    Attributes:
        family: its name.
        models: how many.
        with_key: how many have key biases.
        redundant: how many have redundant key biases.
        removable: parameters of redundant key biases.
        norm: median over these models of the largest norm of a redundant key bias; None without.
    """

    family: str
    models: int
    with_key: int
    redundant: int
    removable: int
    norm: float | None


def by_family(models: Sequence[SurveyedModel]) -> list[FamilyCount]:
    """A line for each family, those with most removable parameters first."""
    names = sorted({model.family for model in models if not model.problem})
    made = [_family(name, [model for model in models if model.family == name]) for name in names]
    return sorted(made, key=lambda count: (-count.removable, count.family))


def require_parquet() -> None:
    """Refuse where parquet cannot be written.

    Raises:
        ExtraError: pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        raise ExtraError("A survey needs pyarrow", remedy="pip install 'hf_bias_patch[hub]'")


def write_parquet(models: Sequence[SurveyedModel], path: Path) -> None:
    """A row for each bias: model, commit, model_type, family, and the fields of `SurveyedModel.biases`.

    Raises:
        TargetError: the file cannot be written.
    """
    import pyarrow as arrow
    from pyarrow import parquet

    text, number = arrow.string(), arrow.int64()
    schema = arrow.schema(
        [(name, text) for name in ("model", "commit", "model_type", "family", "site", "projection", "verdict")]
        + [("reason", text), ("dtype", text), ("parameters", number), ("norm", arrow.float64())]
    )
    rows = [
        {"model": model.model, "commit": model.commit, "model_type": model.model_type, "family": model.family} | bias
        for model in models
        for bias in model.biases
    ]
    try:
        parquet.write_table(arrow.Table.from_pylist(rows, schema), path)
    except OSError as error:
        raise TargetError(f"{path} cannot be written", why=error.strerror or str(error)) from error


def _family(name: str, models: Sequence[SurveyedModel]) -> FamilyCount:
    keys = [[bias for bias in model.biases if bias["projection"] == "key"] for model in models]
    redundant = [[bias for bias in biases if bias["verdict"] == "redundant"] for biases in keys]
    largest = [max(norms) for biases in redundant if (norms := [b["norm"] for b in biases if b["norm"] is not None])]
    return FamilyCount(
        family=name,
        models=len(models),
        with_key=sum(map(bool, keys)),
        redundant=sum(map(bool, redundant)),
        removable=sum(bias["parameters"] for biases in redundant for bias in biases),
        norm=statistics.median(largest) if largest else None,
    )
