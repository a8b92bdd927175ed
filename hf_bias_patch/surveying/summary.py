"""A survey summed up: the biases counted by family, a row for each as parquet, and the key biases as a figure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hf_bias_patch.errors import ExtraError, TargetError
from hf_bias_patch.surveying.record import SurveyedModel

__all__ = ["FamilyCount", "by_family", "draw", "require_parquet", "write_parquet"]


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


_MOST = 30
"""Families drawn, those with most removable parameters first."""

_COLOURS = {"redundant": "tab:green", "needed": "tab:orange", "unknown": "tab:red"}


def draw(models: Sequence[SurveyedModel], path: Path) -> bool:
    """Write the figure: a line for each family, and on it for each of its models the median norm of its key biases.

    Returns:
        False if no model has a key bias, and nothing was drawn.

    Raises:
        TargetError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    families = [count.family for count in by_family(models) if count.with_key][:_MOST]
    if not families:
        return False
    figure = Figure(figsize=(8, 1.6 + 0.3 * len(families)), layout="constrained")
    axes = figure.subplots()
    for verdict, colour in _COLOURS.items():
        points = [
            (norm, families.index(model.family))
            for model in models
            if model.family in families and (norm := _median(model, verdict)) is not None
        ]
        if points:
            norms, lines = zip(*points, strict=True)
            axes.scatter(norms, lines, color=colour, alpha=0.7, s=24, label=verdict, clip_on=False, zorder=3)
    axes.set_yticks(range(len(families)), families)
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=1e-3)
    axes.set_xlim(left=0)
    axes.set_xlabel("median norm of a model's key biases (a point a model)")
    axes.set_title("Key biases on the Hub, by family")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(title="verdict", loc="best")
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise TargetError(f"{path} cannot be written", why=error.strerror or str(error)) from error
    return True


def _median(model: SurveyedModel, verdict: str) -> float | None:
    norms = [
        bias["norm"]
        for bias in model.biases
        if bias["projection"] == "key" and bias["verdict"] == verdict and bias["norm"] is not None
    ]
    return statistics.median(norms) if norms else None
