"""`hf-bias-patch evaluate`: what it prints, writes and refuses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_bias_patch.assets import folder
from hf_bias_patch.models.load import quiet

Run = Callable[..., tuple[int, str, str]]
SST2 = "sentence\tlabel\nfine\t1\nAnna has red boots .\t0\n" + f"{'boots ' * 200}\t1\n"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The embedded BERT saved with a head, as if tuned."""
    made: dict[int, Path] = {}

    def make(outputs: int) -> Path:
        import torch
        import transformers

        if outputs not in made:
            torch.manual_seed(0)
            made[outputs] = tmp_path_factory.mktemp("classifier")
            with quiet():
                auto = transformers.AutoModelForSequenceClassification
                auto.from_pretrained(folder("bert"), num_labels=outputs).save_pretrained(made[outputs])
                transformers.AutoTokenizer.from_pretrained(folder("bert")).save_pretrained(made[outputs])
        return made[outputs]

    return make


def test_scores_as_table_and_as_json(run: Run, classifier: Any, tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_text(SST2)
    command = ("evaluate", classifier(2), "--task", "sst2", "--files", tmp_path)
    code, out, err = run(*command)
    assert code == 0 and "accuracy" in out and "sst2 (version 1), validation: 3 rows" in out
    assert "log-likelihood of the right label" in out and "of a token" not in out
    assert "1 texts are longer than 128 tokens (up to 202) and were cut" in err
    code, out, _ = run(*command, "--json")
    found = json.loads(out)
    assert code == 0 and found["split"] == "validation" and found["rows"] == 3 and found["truncated"] == 1
    assert found["data"] == {
        "origin": "file",
        "name": "dev.tsv",
        "split": "validation",
        "rows": 3,
        "sha256": hashlib.sha256(SST2.encode()).hexdigest(),
        "limited": False,
        "skipped": 0,
    }
    assert found["metrics"]["accuracy"] in (0, pytest.approx(100 / 3), pytest.approx(200 / 3), 100)


def test_files_for_the_glue_server(run: Run, classifier: Any, tmp_path: Path) -> None:
    for name in ("matched", "mismatched"):
        rows = [{"premise": f"{name} {i}", "hypothesis": "b", "label": -1} for i in range(3)]
        (tmp_path / f"test_{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out_folder = tmp_path / "out"
    code, out, _ = run("evaluate", classifier(3), "--task", "mnli", "--files", tmp_path, "--predict", out_folder)
    assert code == 0 and out.count("Labels are hidden or missing") == 2
    for name in ("MNLI-m.tsv", "MNLI-mm.tsv"):
        header, *lines = (out_folder / name).read_text().splitlines()
        assert header == "index\tprediction" and [line.split("\t")[0] for line in lines] == ["0", "1", "2"]
        assert {line.split("\t")[1] for line in lines} <= {"entailment", "neutral", "contradiction"}


@pytest.mark.parametrize(
    ("name", "given", "written"),
    [
        ("test.jsonl", (), "MNLI-m.tsv"),
        ("test_mismatched.jsonl", (), "MNLI-mm.tsv"),
        ("mine.jsonl", ("--split", "test_matched"), "MNLI-m.tsv"),
        ("mine.jsonl", (), "mnli.validation.jsonl"),
    ],
)
def test_a_file_is_the_split_it_is_called_after(
    name: str, given: tuple[str, ...], written: str, run: Run, classifier: Any, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(json.dumps({"premise": "a", "hypothesis": "b", "label": -1}) + "\n")
    command = ("evaluate", classifier(3), "--task", "mnli", "--files", tmp_path / name)
    code, out, _ = run(*command, "--predict", tmp_path / "out", *given)
    assert code == 0 and "Labels are hidden or missing, so there are predictions and no scores" in out
    assert [path.name for path in (tmp_path / "out").iterdir()] == [written]


def test_predictions_of_a_file_with_labels_have_scores(run: Run, classifier: Any, tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_text(SST2)
    command = (
        "evaluate",
        classifier(2),
        "--task",
        "sst2",
        "--files",
        tmp_path / "dev.tsv",
        "--predict",
        tmp_path / "p",
    )
    code, out, _ = run(*command)
    assert code == 0 and "validation: 3 rows" in out and "accuracy" in out and "Data: file dev.tsv, sha256" in out
    lines = (tmp_path / "p" / "sst2.validation.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [0, 1, 2]
    (tmp_path / "dev.tsv").write_text("index\tsentence\n0\tfine\n1\tbad\n")
    code, out, _ = run(*command, "--json")
    found = json.loads(out)
    assert code == 0 and "metrics" not in found and found["notes"][0].startswith("Labels are hidden or missing")
    assert found["data"]["rows"] == 2 and found["split"] == "validation"


def test_rows_that_cannot_be_read_are_left_out_where_asked(run: Run, classifier: Any, tmp_path: Path) -> None:
    broken = "".join(f"half a row {number}\n" for number in range(11))
    (tmp_path / "dev.tsv").write_text(f"sentence\tlabel\nfine\t1\nwrong\tmaybe\n{broken}bad\t0\n")
    command = ("evaluate", classifier(2), "--task", "sst2", "--files", tmp_path / "dev.tsv")
    code, _, err = run(*command)
    assert code == 2 and "line 3: column 'label' holds 'maybe'" in " ".join(err.split())
    assert "--skip-bad-rows" in " ".join(err.split())
    code, out, _ = run(*command, "--skip-bad-rows", "--json")
    found = json.loads(out)
    assert code == 0 and found["rows"] == 2 and found["data"]["skipped"] == 12 and not found["data"]["limited"]
    assert "12 rows that cannot be read were left out" in found["notes"][0] and len(found["notes"]) == 12
    assert "line 4: 1 fields between tabs, where the first line has 2" in found["notes"][2]
    assert found["notes"][-1].strip() == "and 2 more"
    code, out, _ = run(*command, "--skip-bad-rows")
    assert code == 0 and "12 rows that cannot be read were left out" in out and "line 12: 1 fields" in out
    command = (*command, "--skip-bad-rows", "--predict", tmp_path / "out", "--split", "test")
    code, _, err = run(*command)
    assert code == 2 and "one of every row" in " ".join(err.split()) and not (tmp_path / "out").exists()


def test_hidden_labels_cannot_be_scored(run: Run, classifier: Any, tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text("sentence\tlabel\nfine\t-1\n")
    code, _, err = run("evaluate", classifier(2), "--task", "sst2", "--split", "test", "--files", tmp_path)
    assert code == 2 and "hidden label" in err.replace("\n", " ")


def test_language_modelling_and_generation(run: Run) -> None:
    command = ("evaluate", "embedded:gpt2", "--task", "embedded:letters", "--max-eval-samples", 5, "--json")
    code, out, _ = run(*command, "--max-length", 32, "--stride", 8)
    assert code == 0 and json.loads(out)["metrics"].keys() == {"loss", "perplexity", "word_perplexity"}
    command = (
        "evaluate",
        "embedded:bart",
        "--task",
        "embedded:summary",
        "--max-eval-samples",
        2,
        "--json",
        "--num_beams",
        1,
    )
    code, out, _ = run(*command, "--max-new-tokens", 5, "--num-beams", 2, "--early_stopping", "never")
    assert code == 0 and json.loads(out)["main_metric"] == "rouge2"
    decode = json.loads(out)["decode"]
    assert (decode["max_new_tokens"], decode["num_beams"], decode["early_stopping"]) == (5, 2, "never")
    assert "early_stopping never (asked for)" in json.loads(out)["notes"][0]


def test_a_masked_model_has_no_perplexity(run: Run) -> None:
    command = ("evaluate", "embedded:bert", "--task", "embedded:letters", "--max-eval-samples", 2, "--json")
    _, out, _ = run(*command)
    assert json.loads(out)["metrics"].keys() == {"masked_loss", "masked_perplexity"}
    _, out, _ = run(*command, "--masked", "each")
    assert json.loads(out)["metrics"].keys() == {"masked_loss", "pseudo_perplexity"}
    code, _, err = run(*command, "--masked", "all")
    assert code == 2 and "masked: all is not a share of the tokens" in err


REFUSED = {
    "no head": (("embedded:bert", "--task", "embedded:opinion"), "tune glue"),
    "another head": (("embedded:bart", "--task", "embedded:letters"), "needs one for CausalLM or MaskedLM"),
    "no task": (("embedded:bert", "--task", "opinion"), "There is no task 'opinion'. Tasks are: ax, cnn_dailymail"),
    "no split": (("embedded:bert", "--task", "embedded:opinion", "--split", "dev"), "Its splits are: train"),
    "no Hub": (("embedded:bert", "--task", "sst2"), "local file of sst2"),
    "no model": (("embedded:bertt", "--task", "embedded:opinion"), "embedded:bert"),
    "no predictions": (
        ("embedded:gpt2", "--task", "embedded:letters", "--predict", "nowhere"),
        "has no predictions to write",
    ),
    "no stopping": (("embedded:bart", "--task", "embedded:summary", "--early-stopping", "soon"), "'never'"),
    "no length": (
        ("embedded:bart", "--task", "embedded:summary", "--max-new-tokens", "3", "--min-new-tokens", "5"),
        "min_new_tokens 5 is above max_new_tokens 3",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str, run: Run) -> None:
    arguments, complaint = REFUSED[case]
    code, out, err = run("evaluate", *arguments)
    assert code == 2 and not out and complaint in " ".join(err.split())


def test_a_head_of_another_size(run: Run, classifier: Any) -> None:
    code, _, err = run("evaluate", classifier(3), "--task", "embedded:opinion", "--max-eval-samples", 2)
    assert code == 2 and "has 3 outputs, and embedded:opinion needs 2" in " ".join(err.split())


def test_values_that_are_missing_are_not_drawn_at_random(run: Run, classifier: Any, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    broken = tmp_path / "broken"
    broken.mkdir()
    for path in classifier(2).iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    tensors = load_file(broken / "model.safetensors")
    del tensors["classifier.weight"]
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    code, _, err = run("evaluate", broken, "--task", "embedded:opinion", "--max-eval-samples", 2)
    assert code == 2 and "lacks 1 parameters, such as classifier.weight" in " ".join(err.split())


def test_variants_score_what_their_source_scores(run: Run, tmp_path: Path) -> None:
    """Folded biases change no score; the absent form loads too, and a dropped one shows."""
    for name, recipe in {"fold": ("--fold", "key,value", "--storage", "absent"), "drop": ("--drop", "value")}.items():
        code, _, err = run("patch", "embedded:bert", tmp_path / name, *recipe, "--no-verify")
        assert code == 0, err
    losses = []
    for model in ("embedded:bert", tmp_path / "fold", tmp_path / "drop"):
        code, out, err = run("evaluate", model, "--task", "embedded:letters", "--max-eval-samples", 5, "--json")
        assert code == 0, err
        losses.append(json.loads(out)["metrics"]["masked_loss"])
    source, folded, dropped = losses
    # The fold moves the mean in float32 by 2e-10 of it, the drop by 9e-3.
    assert folded == pytest.approx(source, rel=1e-6) and dropped != pytest.approx(source, rel=1e-3)
