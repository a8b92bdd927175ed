"""A study's results as files: JSON with all of its provenance, CSV, and parquet."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path

from hf_bias_patch.errors import ExtraError
from hf_bias_patch.study.run import Study

__all__ = ["write_results"]


def write_results(found: Study, folder: Path) -> list[str]:
    """Write them; returns the names of the files.

    Raises:
        ExtraError: pyarrow is missing, for parquet; the other files are there then.
    """
    records = [row.plain() for row in found.rows]
    columns = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(records)
    (folder / "results.csv").write_text(text.getvalue(), "utf-8", newline="")
    environment = json.loads((folder / "environment.json").read_text("utf-8"))
    settings = {**asdict(found.settings), **found.settings.identity()}  # texts by their hash
    whole = {**asdict(found), "settings": settings, "environment": environment}
    (folder / "results.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", "utf-8")
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ExtraError("results.parquet needs pyarrow", remedy="pip install 'hf_bias_patch[study]'") from None
    pq.write_table(pa.Table.from_pylist(records), folder / "results.parquet")
    return ["results.json", "results.csv", "results.parquet"]
