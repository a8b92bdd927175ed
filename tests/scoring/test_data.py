"""Splits in canonical columns, and data that is not what the task says."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hf_bias_patch.errors import DataError
from hf_bias_patch.scoring.data import load_split
from hf_bias_patch.scoring.tasks import Task, load_task


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


Write = Callable[[str, str], Path]


def test_classification(write: Write) -> None:
    path = write("a.tsv", "sentence\tlabel\nfine\t1\nnull\t0\n")
    found = load_split(load_task("sst2"), "validation", path)
    assert found.column_names == ["text", "label"]
    assert found[:] == {"text": ["fine", "null"], "label": [1, 0]}


def test_pairs_by_the_names_of_the_original_files(write: Write) -> None:
    path = write("a.tsv", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tone\ttwo\n")
    assert load_split(load_task("mrpc"), "train", path)[:] == {"text": ["one"], "text_pair": ["two"], "label": [1]}


def test_regression_without_a_header_line(write: Write) -> None:
    path = write("a.csv", 'A man.,"A man, again.",4.75\nB.,C.,0\n')
    found = load_split(load_task("stsb"), "train", path)
    assert found["label"][:] == [4.75, 0.0] and found["text_pair"][0] == "A man, again."


@pytest.mark.parametrize("label", ["2", "2.0", "contradiction", " Contradiction ", "CONTRADICTION"])
def test_labels_by_number_or_name(label: str, write: Write) -> None:
    path = write("a.csv", f"premise,hypothesis,label\na,b,{label}\n")
    assert load_split(load_task("mnli"), "validation_matched", path)["label"][:] == [2]


def test_a_name_that_looks_like_a_number_is_a_name(made: Callable[..., Task], write: Write) -> None:
    task = made("classification", labels=("1", "2", "3"))
    assert load_split(task, "train", write("a.csv", "text,label\na,1\nb,3\n"))["label"][:] == [0, 2]
    assert load_split(task, "train", write("b.jsonl", '{"text": "a", "label": 2}\n'))["label"][:] == [1]


@pytest.mark.parametrize("label", ["2", "0.5", "maybe", "", "inf", "-2"])
def test_an_unknown_label_is_named_with_its_row(label: str, write: Write) -> None:
    path = write("a.tsv", f"sentence\tlabel\nfine\t1\nbad\t{label}\n")
    with pytest.raises(DataError, match=r"line 3: column 'label' holds .* not a label of sst2.*0 \(negative\), 1"):
        load_split(load_task("sst2"), "train", path)


def test_hidden_labels_are_told_from_wrong_ones(write: Write) -> None:
    path = write("a.jsonl", '{"sentence": "a", "label": -1}\n{"sentence": "b", "label": -1}\n')
    with pytest.raises(DataError, match="hidden label"):
        load_split(load_task("sst2"), "test", path)
    assert load_split(load_task("sst2"), "test", path, labels=False)[:] == {"text": ["a", "b"]}


def test_a_missing_column_names_those_there_are(write: Write) -> None:
    path = write("a.csv", "text,label\na,1\n")
    with pytest.raises(DataError, match=r"no column 'sentence'; it has 'text', 'label'.*sst2 reads sentence, label"):
        load_split(load_task("sst2"), "train", path)
    with pytest.raises(DataError, match="no column 'label'"):
        load_split(load_task("sst2"), "train", write("b.csv", "sentence\na\n"))


def test_a_text_that_is_none_is_named(write: Write) -> None:
    path = write("a.jsonl", '{"sentence": null, "label": 1}\n')
    with pytest.raises(DataError, match="line 1: column 'sentence' holds None"):
        load_split(load_task("sst2"), "train", path)


def test_a_score_that_is_no_number_is_named(write: Write) -> None:
    path = write("a.csv", "sentence1,sentence2,label\na,b,nan\n")
    with pytest.raises(DataError, match="line 2: column 'label' holds 'nan', which is not a finite number"):
        load_split(load_task("stsb"), "train", path)


@pytest.mark.parametrize("text", ["", "sentence\tlabel\n"])
def test_an_empty_split_is_refused(text: str, write: Write) -> None:
    with pytest.raises(DataError, match="has no rows"):
        load_split(load_task("sst2"), "train", write("a.tsv", text))


def test_references_of_one_source_make_one_question(write: Write) -> None:
    path = write("a.csv", "mr,ref\nx,one\ny,two\nx,three\nx,one\n")
    found = load_split(load_task("e2e_nlg"), "test", path)
    assert found[:] == {"source": ["x", "y"], "references": [["one", "three"], ["two"]]}
    assert len(load_split(load_task("e2e_nlg"), "test", path, limit=1)) == 1


@pytest.mark.parametrize(
    "annotations", ['[{"text": "A."}, {"text": "B."}]', '{"source": ["s", "s"], "text": ["A.", "B."]}']
)
def test_triples_as_json_and_as_parquet_have_them(annotations: str, write: Write) -> None:
    path = write("a.jsonl", f'{{"tripleset": [["a", "b", "c"], ["d", "e", "f"]], "annotations": {annotations}}}\n')
    found = load_split(load_task("dart"), "test", path)
    assert found[:] == {"source": ["a | b | c ; d | e | f"], "references": [["A.", "B."]]}


def test_a_running_text_and_documents(write: Write) -> None:
    path = write("a.txt", " \n = A = \nlast")
    assert load_split(load_task("wikitext-2"), "test", path)["text"][:] == [" \n", " = A = \n", "last\n"]
    assert load_split(load_task("embedded:letters"), "test", path)["text"][:] == ["= A =", "last"]


def test_the_first_rows(write: Write) -> None:
    path = write("a.tsv", "sentence\tlabel\n" + "".join(f"s{i}\t1\n" for i in range(9)) + "bad\tbad\n")
    assert load_split(load_task("sst2"), "train", path, limit=3)["text"][:] == ["s0", "s1", "s2"]
    with pytest.raises(DataError, match="limit of rows is 0"):
        load_split(load_task("sst2"), "train", path, limit=0)


def test_files_by_split(write: Write) -> None:
    files = {"train": write("a.tsv", "sentence\tlabel\na\t1\n")}
    assert len(load_split(load_task("sst2"), "train", files)) == 1
    with pytest.raises(DataError, match=r"no file of the split 'test'.*train"):
        load_split(load_task("sst2"), "test", files)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(DataError, match=r"mnli has no split 'dev'.*validation_matched"):
        load_split(load_task("mnli"), "dev")
    with pytest.raises(DataError, match="no split 'dev'"):
        load_split(load_task("embedded:opinion"), "dev")


def test_without_a_hub_the_local_way_is_named_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(DataError, match=r"nyu-mll/glue \(sst2\).*--files, or for tune .*; columns: sentence and label"):
        load_split(load_task("sst2"), "validation")
    assert time.monotonic() - started < 10


def test_a_hub_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    asked = []

    def silent(*_: object, timeout: float, **__: object) -> None:
        asked.append(timeout)
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", silent)
    started = time.monotonic()
    with pytest.raises(DataError, match="The Hub cannot be reached"):
        load_split(load_task("rte"), "validation")
    assert asked and asked[0] <= 5 and time.monotonic() - started < 10
    assert not datasets.config.HF_HUB_OFFLINE, "what was switched off for the while is on again"


def test_rows_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    calls = []

    def load_dataset(*args: object, **options: object) -> object:
        calls.append((args, options))
        return datasets.Dataset.from_dict({"premise": ["a"], "hypothesis": ["b"], "label": [1], "idx": [0]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = load_split(load_task("mnli"), "validation_mismatched")
    assert found[:] == {"text": ["a"], "text_pair": ["b"], "label": [1]}
    assert calls == [(("nyu-mll/glue", "mnli"), {"revision": None, "split": "validation_mismatched"})]
