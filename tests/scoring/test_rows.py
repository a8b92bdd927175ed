"""Local files, value for value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hf_bias_patch.errors import DataError
from hf_bias_patch.scoring.rows import find_file, read_rows
from hf_bias_patch.scoring.tables import Columns


def rows(path: Path, text: str, **options: object) -> list[dict[str, object]]:
    path.write_text(text, encoding="utf-8")
    return [dict(row) for _, row in read_rows(path, **options)]  # type: ignore[arg-type]


def test_tsv_keeps_quotes_and_words_that_look_like_nothing(tmp_path: Path) -> None:
    found = rows(tmp_path / "a.tsv", 'sentence\tlabel\nhe said "no\t1\nnull\t0\nNA\t1\n"quoted"\t0\n')
    assert [row["sentence"] for row in found] == ['he said "no', "null", "NA", '"quoted"']
    assert [row["label"] for row in found] == ["1", "0", "1", "0"]


def test_csv_takes_quotes_for_quotes(tmp_path: Path) -> None:
    found = rows(tmp_path / "a.csv", 'text,label\n"a, b ""c""\nd",1\nnull,0\n')
    assert found == [{"text": 'a, b "c"\nd', "label": "1"}, {"text": "null", "label": "0"}]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftext,label\nx,1\n")
    assert list(read_rows(tmp_path / "a.csv")) == [("line 2", {"text": "x", "label": "1"})]


def test_files_without_a_header_line(tmp_path: Path) -> None:
    columns = ("source", "label", "mark", "sentence")
    text = "gj04\t1\t\tThe sailors rode.\ncj99\t0\t*\tAs you eat.\n"
    wanted = Columns({name: frozenset({name}) for name in ("sentence", "label")}, columns)
    found = rows(tmp_path / "a.tsv", text, columns=wanted)
    assert [row["sentence"] for row in found] == ["The sailors rode.", "As you eat."]
    assert found[1]["mark"] == "*"
    with_header = rows(tmp_path / "b.tsv", "\t".join(columns) + "\n" + text, columns=wanted)
    assert with_header == found


def test_lines_with_too_many_fields_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv, line 3: 3 fields between commas, where the first line has 2"):
        rows(tmp_path / "a.csv", "text,label\nx,1\na, b,0\n")


def test_json_in_both_forms(tmp_path: Path) -> None:
    content = [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
    lines = "\n\n".join(map(json.dumps, content)) + "\n"
    assert rows(tmp_path / "a.jsonl", lines) == content
    assert rows(tmp_path / "a.json", json.dumps(content)) == content
    assert rows(tmp_path / "b.json", json.dumps({"data": content})) == content
    with pytest.raises(DataError, match="line 1: it is not a mapping"):
        rows(tmp_path / "c.jsonl", "[1, 2]\n")
    with pytest.raises(DataError, match=r"line 1: it cannot be read as jsonl"):
        rows(tmp_path / "d.jsonl", "{broken\n")
    with pytest.raises(DataError, match="not a list of rows"):
        rows(tmp_path / "e.json", '"text"')


def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": ["a", "b"], "label": [1, 0]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert list(read_rows(tmp_path / "a.parquet")) == [
        ("row 1", {"text": "a", "label": 1}),
        ("row 2", {"text": "b", "label": 0}),
    ]
    (tmp_path / "b.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        list(read_rows(tmp_path / "b.parquet"))


def test_lines_of_text_joined_are_the_file(tmp_path: Path) -> None:
    text = " \n = Title = \n \n One line\n Last without newline"
    found = rows(tmp_path / "a.txt", text)
    assert "".join(str(row["text"]) for row in found) == text and len(found) == 5


def test_webnlg_xml(tmp_path: Path) -> None:
    entry = "<mtriple>A | is | B</mtriple><mtriple>B | has | C</mtriple>"
    text = f"<b><entry><modifiedtripleset>{entry}</modifiedtripleset><lex>A is B.</lex><lex>B.</lex></entry></b>"
    (found,) = rows(tmp_path / "a.xml", text)
    assert found["tripleset"] == [["A", "is", "B"], ["B", "has", "C"]]
    assert [item["text"] for item in found["annotations"]] == ["A is B.", "B."]  # type: ignore[attr-defined]


def test_a_folder_has_one_file_of_a_split(tmp_path: Path) -> None:
    for name in ("train.tsv", "dev.tsv", "test.jsonl", "README"):
        (tmp_path / name).write_text("")
    assert find_file(tmp_path, "validation").name == "dev.tsv"
    assert find_file(tmp_path, "test").name == "test.jsonl"
    assert find_file(tmp_path / "train.tsv", "validation").name == "train.tsv"
    (tmp_path / "validation.csv").write_text("")
    with pytest.raises(DataError, match=r"there is dev\.tsv, validation\.csv"):
        find_file(tmp_path, "validation")
    with pytest.raises(DataError, match="there is none"):
        find_file(tmp_path, "validation_matched")
    with pytest.raises(DataError, match="no file or folder"):
        find_file(tmp_path / "nowhere", "train")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="an unsupported format"):
        rows(tmp_path / "a.xlsx", "")
    (tmp_path / "a.csv").write_bytes(b"text,label\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="cannot be read as csv"):
        list(read_rows(tmp_path / "a.csv"))
