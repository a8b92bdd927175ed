"""The table of verdicts: what is known of each kind of bias, beside what was measured of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hf_bias_patch.studies.biases.arms import STUDIED
from hf_bias_patch.studies.records import Study
from hf_bias_patch.studies.report.tables import Column, Table, table_of

__all__ = ["verdicts"]

_COLUMNS = {
    "place": Column("attention"),
    "projection": Column("bias"),
    "verdict": Column("verdict"),
    "numbers": Column("numbers", "count", "of that bias, in all layers"),
    "relative": Column("change", "number", "of the last states over their norm, with that bias at zero"),
    "floors": Column("× noise floor", "number", "how many times the noise floor that is"),
    "loss_change": Column("loss change", "signed", "nats a token; below 0 is better"),
}


def verdicts(found: Study) -> Table:
    """A row for each place and projection; where its layers have several verdicts, how many have which."""
    zeros = {(row.place, row.projection): row for row in found.rows if (row.stage, row.fill) == ("whole", "zeros")}
    whole = {(row.place, row.projection): row for row in reversed(found.rows) if row.stage == "whole"}
    floor = found.floor["relative"]
    records = []
    for place in dict.fromkeys(row.place for row in found.rows if row.stage == "whole"):
        for projection in STUDIED:
            if (place, projection) not in whole:
                continue
            row, measured = whole[place, projection], zeros.get((place, projection))
            verdict = row.verdict or _mixed(found, place, projection)
            record: dict[str, Any] = {"place": place, "projection": projection, "verdict": verdict}
            record |= {"numbers": row.numbers, "relative": None, "floors": None, "reason": row.reason}
            if measured is not None:
                change = measured.figures["relative"]
                record |= {"relative": change, "floors": change / floor if floor else None}
                if "loss_change" in measured.figures:
                    record["loss_change"] = measured.figures["loss_change"]
            records.append(record)
    return table_of(records, "Kinds of bias, and what setting them to zero does", _COLUMNS)


def _mixed(found: Study, place: str, projection: str) -> str:
    layers = [row for row in found.rows if (row.stage, row.place, row.projection) == ("layer", place, projection)]
    counts = Counter(row.verdict for row in layers if row.verdict)
    return ", ".join(f"{verdict} ({count})" for verdict, count in counts.items()) or "differs by layer"
