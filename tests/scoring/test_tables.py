"""Tables as people have them: delimiters, quotes, ends of lines, encodings, headers, and rows that are broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_bias_patch.errors import DataError
from hf_bias_patch.scoring.bad_rows import BadRows
from hf_bias_patch.scoring.custom import custom_task
from hf_bias_patch.scoring.data import load_split, read_split
from hf_bias_patch.scoring.rows import find_file, read_rows
from hf_bias_patch.scoring.tasks import load_task

Write = Callable[[str, str], Path]

MRPC = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_bytes(text.encode("utf-8"))
        return tmp_path / name

    return write


def sst2(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = load_split(load_task("sst2"), "train", path)[:]
    return found


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "A.TSV", "a.txt"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_columns_tell_the_delimiter(delimiter: str, name: str, end: str, write: Write) -> None:
    rows = ("sentence", "label"), ("so, so; a tale", "1"), ("it is fine", "0")
    quoted = [[f'"{field}"' if delimiter in field else field for field in row] for row in rows]
    path = write(name, "".join(delimiter.join(row) + end for row in quoted))
    assert sst2(path) == {"text": ["so, so; a tale", "it is fine"], "label": [1, 0]}


def test_mrpc_as_it_was_published(write: Write) -> None:
    text = f'\ufeff{MRPC}\r\n1\t7\t8\tHe said "no\tHe said " no " .\r\n0\t9\t10\t"One\tTwo"\r\n'
    found = load_split(load_task("mrpc"), "train", write("msr_paraphrase_train.txt", text))
    assert found["text"][:] == ['He said "no', '"One'] and found["text_pair"][:] == ['He said " no " .', 'Two"']
    assert found["label"][:] == [1, 0]


def test_a_running_text_is_no_table(write: Write) -> None:
    text = "text, they said\r\nand\tmore\r\n"
    path = write("a.TXT", text)
    assert load_split(load_task("wikitext-2"), "test", path)["text"][:] == ["text, they said\n", "and\tmore\n"]
    assert custom_task({"train": path}, kind="language_modelling").joined


def test_own_columns_in_a_text_file(write: Write) -> None:
    path = write("moods.txt", "nr\tcomment\tmood\n1\tfine, it is\tglad\n2\tso; so\tsad\n")
    task = custom_task({"train": path}, text=["comment"], label="mood")
    assert load_split(task, "train")[:] == {"text": ["fine, it is", "so; so"], "label": [0, 1]}
    task = custom_task({"train": path}, kind="language_modelling", text=["comment"])
    assert not task.joined and load_split(task, "train")["text"][:] == ["fine, it is", "so; so"]


def test_unknown_columns_are_split_evenly(write: Write) -> None:
    """Nothing is known of the columns but that each line has all of them."""
    text = 'comment;label\n"well, it is";glad\n"no, no";sad\nso so;sad\n'
    task = custom_task({"train": write("a.csv", text)})
    assert load_split(task, "train")["text"][:] == ["well, it is", "no, no", "so so"]
    assert custom_task({"train": write("b.csv", "comment;label\na;x\nb;y\n")}).text == ("comment",)


def test_what_is_wrong_with_the_columns_is_said(write: Write) -> None:
    said = r"no column 'sentence'; it has 'review', 'label'.*sst2 reads sentence, label; .* split at semicolons.*Rename"
    with pytest.raises(DataError, match=said):
        sst2(write("a.csv", "review;label\nfine;1\n"))
    with pytest.raises(DataError, match=r"it has 'sentence:label'.*split at commas.*Separate fields by tabs, commas"):
        sst2(write("b.csv", "sentence:label\nfine:1\n"))
    with pytest.raises(DataError, match="Begin the file with a line that names its columns: sentence, label"):
        sst2(write("d.csv", "fine,1,0\nbad,0,1\n"))
    with pytest.raises(DataError, match="the column 'sentence' twice"):
        sst2(write("c.csv", "sentence,sentence,label\na,b,1\n"))


@pytest.mark.parametrize(
    "text",
    [
        "sentence,label,\na,1\nb,0\n",
        "sentence,label,\na,1,\nb,0,\n",
        "sentence,label\na,1,\nb,0\n",
        " sentence , label\na,1\nb,0\n",
    ],
)
def test_delimiters_at_the_end_and_blanks_in_the_header(text: str, write: Write) -> None:
    assert sst2(write("a.csv", text)) == {"text": ["a", "b"], "label": [1, 0]}


def test_row_numbers_of_pandas_are_no_text(write: Write) -> None:
    assert custom_task({"train": write("a.csv", ",text,label\n0,a,x\n1,b,y\n")}).text == ("text",)


@pytest.mark.parametrize("header", ['"id"\t"sentence"\t"label"', "id\tsentence\tlabel"])
def test_quotes_that_hold_fields_together(header: str, write: Write) -> None:
    """As Quora's own file has them: over several lines, and doubled inside."""
    path = write("a.tsv", f'{header}\n0\t"He said ""no""\nand left"\t1\n1\tplain\t0\n')
    assert sst2(path)["text"] == ['He said "no"\nand left', "plain"]
    assert sst2(write("b.tsv", f'{header}\n0\t"He said ""no"""\t1\n1\tplain\t0\n'))["text"] == ['He said "no"', "plain"]


def test_quotes_that_are_letters(write: Write) -> None:
    """As in GLUE's files, also where some line is broken, and in a csv file in which no text is quoted."""
    text = 'sentence\tlabel\n"Yes," he said\t1\n"quoted"\t0\nnot " closed\t1\n'
    wanted = ['"Yes," he said', '"quoted"', 'not " closed']
    assert sst2(write("a.tsv", text))["text"] == wanted
    broken = write("b.tsv", text + "half a row\n")
    assert read_split(load_task("sst2"), "train", broken, skip_bad_rows=True).dataset["text"][:] == wanted
    assert sst2(write("c.csv", 'sentence,label\n"no" he said,1\nfine,0\n'))["text"] == ['"no" he said', "fine"]


def test_a_quote_that_is_never_closed(write: Write) -> None:
    path = write("a.csv", 'sentence,label\n"a, b",1\n"never closed,0\nc,1\n')
    with pytest.raises(DataError, match=r"a\.csv, line 3: a quote is opened and never closed"):
        load_split(load_task("sst2"), "train", path)
    found = read_split(load_task("sst2"), "train", path, skip_bad_rows=True)
    assert found.dataset["text"][:] == ["a, b", "c"] and found.identity.skipped == 1


def test_rows_of_every_kind_are_left_out_and_named(write: Write) -> None:
    text = 'sentence,label\n"over\ntwo lines",1\nfine\na,b,c\n"quote" in,1\n"a, b",maybe\n"c, d",\n"e, f",0\n'
    found = read_split(load_task("sst2"), "train", write("a.csv", text), skip_bad_rows=True)
    assert found.dataset["text"][:] == ["over\ntwo lines", "e, f"] and found.identity.skipped == 5
    places = [note.split(":")[0].strip() for note in found.notes[1:]]
    assert places == ["line 4", "line 5", "line 6", "line 7", "line 8"]
    text = '{"sentence": "a", "label": 1}\n{broken\n[1]\n{"sentence": null, "label": 1}\n{"sentence": "b"}\n'
    found = read_split(load_task("sst2"), "train", write("b.jsonl", text), skip_bad_rows=True)
    assert len(found.dataset) == 1 and len(found.notes) == 5 and "line 5: it has no 'label'" in found.notes[4]
    with pytest.raises(DataError, match=r"b\.jsonl, line 2: .*--skip-bad-rows"):
        sst2(tmp := write("b.jsonl", text))
    assert tmp.exists()


def test_what_cannot_be_read_at_all_is_not_left_out(write: Write) -> None:
    with pytest.raises(DataError, match=r"has no rows; 2 rows that cannot be read were left out, the first at line 2"):
        read_split(load_task("sst2"), "train", write("a.tsv", "sentence\tlabel\na\nb\n"), skip_bad_rows=True)
    with pytest.raises(DataError, match="no column 'sentence'"):
        read_split(load_task("sst2"), "train", write("b.tsv", "text\tlabel\na\t1\n"), skip_bad_rows=True)


def test_the_limit_counts_rows_that_can_be_read(write: Write) -> None:
    path = write("a.tsv", "sentence\tlabel\nbad\na\t1\nb\t0\nbad\n")
    found = read_split(load_task("sst2"), "train", path, limit=1, skip_bad_rows=True)
    assert found.dataset["text"][:] == ["a"] and found.identity.limited and found.identity.skipped == 1
    found = read_split(load_task("sst2"), "train", path, limit=2, skip_bad_rows=True)
    assert len(found.dataset) == 2 and not found.identity.limited


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-16", r"It looks like UTF-16.*iconv -f UTF-16 -t UTF-8 a\.csv > new\.csv"),
        ("utf-16-le", "It looks like UTF-16"),
        ("latin-1", r"Line 3 has the byte 0xe9, which is 'é' in Windows-1252 and Latin-1.*iconv -f WINDOWS-1252"),
    ],
)
def test_other_encodings_are_named(encoding: str, said: str, tmp_path: Path) -> None:
    for kind in ("csv", "jsonl", "txt"):
        path = tmp_path / f"a.{kind}"
        path.write_bytes("sentence,label\nfine,1\ncafé,0\n".encode(encoding))
        with pytest.raises(DataError, match=said.replace("csv", kind) + "|line 1: it cannot be read as jsonl"):
            list(read_rows(path))


def test_byte_order_marks_are_no_part_of_the_data(tmp_path: Path) -> None:
    for kind, text in {"jsonl": '{"text": "x"}', "json": '[{"text": "x"}]', "txt": "x"}.items():
        (tmp_path / f"a.{kind}").write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert [row for _, row in read_rows(tmp_path / f"a.{kind}")] == [{"text": "x"}]


def test_a_header_alone_is_an_empty_table(write: Write) -> None:
    with pytest.raises(DataError, match="has no rows"):
        sst2(write("a.csv", "sentence;label\n"))
    assert list(read_rows(write("b.csv", ""), None, BadRows())) == []


def test_original_names_of_files_in_a_folder(tmp_path: Path) -> None:
    for name in ("Train.TSV", "dev_matched.tsv", "dev_mismatched.tsv"):
        (tmp_path / name).write_text("sentence1\tsentence2\tgold_label\na\tb\tneutral\n")
    assert find_file(tmp_path, "train").name == "Train.TSV"
    assert find_file(tmp_path, "validation_mismatched").name == "dev_mismatched.tsv"
    found = read_split(load_task("mnli"), "validation", tmp_path)
    assert found.identity.name == "dev_matched.tsv" and found.dataset["label"][:] == [1]


def test_an_open_quote_takes_no_good_rows_with_it(tmp_path: Path) -> None:
    """It would run on to the next quoted text, far below; only the line where it begins is bad."""
    lines = ["sentence,label"] + [f"text {number},1" for number in range(2, 40)]
    lines[9], lines[30] = '"open,0', '"quoted, well",1'
    file = tmp_path / "dev.csv"
    file.write_text("\n".join(lines) + "\n")
    split = read_split(load_task("sst2"), "validation", file, skip_bad_rows=True)
    assert (len(split.dataset), split.identity.skipped) == (37, 1)
    assert "quoted, well" in split.dataset["text"][:] and "line 10" in " ".join(split.notes)
