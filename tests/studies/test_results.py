"""Results are read back as they were written."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hf_bias_patch.errors import SourceError
from hf_bias_patch.studies.results import read_results, write_parquet, write_results
from tests.studies.complete import complete, environment_in


def test_a_study_comes_back_whole(tmp_path: Path) -> None:
    found = complete()
    names = write_results(found, environment_in(tmp_path))
    again = read_results(tmp_path)
    assert again.settings.texts == ("embedded",)
    assert replace(again, settings=found.settings) == found
    tables = ("perturbation", "folds", "steps", "lessons", "drift", "scores", "contrasts")
    assert names == ["results.json", *(f"{name}.csv" for name in tables)]
    assert write_parquet(found, tmp_path) == [f"{name}.parquet" for name in tables]
    assert pq.read_table(tmp_path / "steps.parquet").num_rows == len(found.steps)


def test_a_record_is_flat(tmp_path: Path) -> None:
    write_results(complete(), environment_in(tmp_path))
    with open(tmp_path / "perturbation.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert "figures" not in rows[0] and float(rows[0]["relative"]) == 0.05


@pytest.mark.parametrize("spoil", ["absent", "cut", "another version"])
def test_what_is_no_study(tmp_path: Path, spoil: str) -> None:
    write_results(complete(), environment_in(tmp_path))
    path = tmp_path / "results.json"
    if spoil == "absent":
        path.unlink()
    elif spoil == "cut":
        path.write_text(path.read_text()[:-100])
    else:
        path.write_text(json.dumps({**json.loads(path.read_text()), "rows": [{"cats": 3}]}))
    with pytest.raises(SourceError, match="holds no study" if spoil == "absent" else "another version"):
        read_results(tmp_path)
