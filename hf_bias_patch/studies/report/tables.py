"""Records as tables for people: headings, rounded values, and the exact values behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from hf_bias_patch.studies.number_formats import fine, number, percent, signed

__all__ = ["Column", "Table", "TableCell", "cell", "table_of"]

ColumnKind = Literal["text", "count", "number", "fine", "signed", "percent"]


class Column(NamedTuple):
    """A column's heading.

    Attributes:
        label: text of the heading.
        kind: how its values read; all but `text` are numbers, and align on the right.
        about: what it is, with its unit; shown when one points at the heading.
    """

    label: str
    kind: ColumnKind = "text"
    about: str = ""


class TableCell(NamedTuple):
    """A value as text, and exactly. `exact` is empty where there is none; such cells sort last."""

    text: str
    exact: str


@dataclass(frozen=True)
class Table:
    """A table whose values are texts.

    Attributes:
        caption: says what a row is.
        columns: the headings.
        rows: cells, as many in each as there are columns.
        folded: whether the page shows it only when asked to.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[TableCell, ...], ...]
    folded: bool = False


_LOSS = "nats a token"
_COLUMNS: Mapping[str, Column] = {
    "layer": Column("layer", "count", "from 0; of all layers where empty"),
    "head": Column("head", "count", "from 0; all heads where empty"),
    "numbers": Column("parameters", "count", "how many bias parameters were changed"),
    "largest": Column("largest", "number", "largest change of an entry of the last hidden states"),
    "distance": Column("distance", "number", "mean Euclidean change of a token's last hidden states"),
    "root_square": Column("rms", "number", "root of the mean square of that change"),
    "relative": Column("relative", "number", "norm of the change of the last hidden states over their norm"),
    "cosine": Column("cosine", "fine", "between changed and unchanged last hidden states, mean over tokens"),
    "kl": Column("KL", "number", "mean divergence of the changed from the unchanged distribution, nats"),
    "agreement": Column("agreement", "percent", "share of tokens with the same most likely token (top-1)"),
    "loss": Column("loss", "fine", _LOSS),
    "fitted": Column("training loss", "fine", f"on the texts that it trains on, {_LOSS}"),
    "loss_change": Column("loss change", "signed", f"{_LOSS}; below 0 is better"),
    "perplexity": Column("perplexity", "fine", "with the change"),
    "gradient": Column("gradient", "number", f"norm of the gradient of the loss, {_LOSS}"),
    "change": Column("change", "number", "of a token's last hidden states (rms), per unit of learning rate"),
    "learning_rate": Column("learning rate", "number", "of AdamW"),
    "weight_decay": Column("weight decay", "number", "of AdamW"),
    "step": Column("step", "count", "steps done"),
    "steps": Column("steps", "count", "of the training"),
    "moved": Column("moved", "number", "norm of the move of the biases"),
    "start": Column("start", "number", "norm of the biases before"),
    "decay": Column("decay", "number", "norm of the move that weight decay alone would have made"),
    "straight": Column("straight", "number", "distance over length of the path: 1 is a straight line"),
    "seed": Column("seed", "count", "of the training run; empty where nothing was trained"),
    "value": Column("value", "fine", "of the metric"),
    "refused": Column("refused because"),
    "greater_is_better": Column("greater is better"),
    "fill": Column("in its place"),
    "went": Column("removed now", "text", "attention, bias and layer of those removed in addition"),
    "place": Column("attention"),
}
_LEFT_OUT = {"name"}  # says what the other columns say
_LAST = {"greater_is_better", "reason", "refused", "seeds", "went"}  # elsewhere they would push figures out of sight
_FOLD_FROM = 24


_READS: Mapping[ColumnKind, Callable[[Any], str]] = {
    "count": lambda value: f"{value:,}",
    "number": number,
    "fine": fine,
    "signed": signed,
    "percent": percent,
    "text": str,
}


def cell(value: Any, kind: ColumnKind) -> TableCell:
    """One value as a cell."""
    if value is None or value == "":
        return TableCell("", "")
    if isinstance(value, bool):
        value = "yes" if value else "no"
    if kind == "text" or isinstance(value, str):
        return TableCell(str(value), str(value))
    exact = "" if isinstance(value, float) and math.isnan(value) else repr(value).replace("inf", "Infinity")
    return TableCell(_READS[kind](value), exact)


def table_of(records: Iterable[Mapping[str, Any]], caption: str, columns: Mapping[str, Column] | None = None) -> Table:
    """A table with a row for each record, and the columns that have a value in any of them; long ones are collapsed.

    Args:
        records: flat, by column name.
        caption: says what a row is.
        columns: in place of what is known of columns.
    """
    records, known = list(records), _COLUMNS if columns is None else columns
    filled = (key for record in records for key in record if key not in _LEFT_OUT and record[key] not in (None, ""))
    there = set(filled)
    names = [name for name in dict.fromkeys(key for record in records for key in record) if name in there]
    names.sort(key=lambda name: name in _LAST)
    heads = [known.get(name) or _guess(name, [record.get(name) for record in records]) for name in names]
    rows = tuple(
        tuple(cell(record.get(name), head.kind) for name, head in zip(names, heads, strict=True)) for record in records
    )
    return Table(caption, tuple(heads), rows, len(rows) > _FOLD_FROM)


def _guess(name: str, values: Sequence[Any]) -> Column:
    there = [value for value in values if value is not None]
    label = name.replace("_", " ")
    if there and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in there):
        return Column(label, "count" if all(isinstance(value, int) for value in there) else "number")
    return Column(label)
