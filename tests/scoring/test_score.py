"""Scores of models: the same in any batch, order and number of processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from hf_bias_patch.errors import CheckpointError, TaskError
from hf_bias_patch.scoring.collate import Collator
from hf_bias_patch.scoring.encode import encode
from hf_bias_patch.scoring.labels import decide, label_order
from hf_bias_patch.scoring.loading import load_scorable
from hf_bias_patch.scoring.predict import gather, predict_classes
from hf_bias_patch.scoring.score import ScoringOptions, answers, batches_by_length, evaluate_model, score
from hf_bias_patch.scoring.tasks import GenerationOptions, Task

Loaded = Callable[..., tuple[Any, Any]]
Make = Callable[..., Task]
TEXTS = [f"Anna has {'red ' * (i % 9)}boots and {i} lamps." for i in range(23)]


def test_logits_are_those_of_each_text_by_itself(loaded: Loaded, made: Make) -> None:
    model, tokenizer = loaded("classifier", outputs=3)
    task = made("classification", labels=("a", "b", "c"))
    dataset = Dataset.from_dict({"text": TEXTS, "label": [0] * len(TEXTS)})
    found = answers(model, tokenizer, task, dataset, ScoringOptions(batch_tokens=64)).predictions
    assert list(found) == list(range(len(TEXTS)))
    for row, text in enumerate(TEXTS):
        with torch.no_grad():
            expected = model(**tokenizer(text, return_tensors="pt")).logits[0]
        assert torch.allclose(torch.tensor(found[row]), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "gpt2", "bart"])
@pytest.mark.parametrize("budget", [1, 50, 100_000])
def test_scores_do_not_depend_on_batches(name: str, budget: int, loaded: Loaded, made: Make) -> None:
    model, tokenizer = loaded("classifier", name, outputs=1)
    dataset = Dataset.from_dict({"text": TEXTS, "label": [float(i % 5) for i in range(len(TEXTS))]})
    found = evaluate_model(model, tokenizer, made("regression"), dataset, ScoringOptions(batch_tokens=budget))
    alone = evaluate_model(model, tokenizer, made("regression"), dataset, ScoringOptions(batch_tokens=1))
    assert found.predictions == pytest.approx(alone.predictions, abs=1e-5)
    assert len(set(found.predictions)) > 5 and found.rows == len(TEXTS)


def test_mode_and_gradients_are_as_before(loaded: Loaded, made: Make) -> None:
    model, tokenizer = loaded("classifier")
    model.train()
    model.bert.embeddings.eval()  # a part that a user has frozen
    dataset = Dataset.from_dict({"text": TEXTS, "label": [0, 1] * 11 + [0]})
    try:
        first = evaluate_model(model, tokenizer, made("classification"), dataset)
        assert model.training and not model.bert.embeddings.training
        assert evaluate_model(model, tokenizer, made("classification"), dataset).predictions == first.predictions
        assert all(parameter.grad is None for parameter in model.parameters())
        assert model(input_ids=torch.tensor([[2, 3]])).logits.requires_grad
    finally:
        model.eval()


def test_the_names_of_a_head_decide_the_order(loaded: Loaded, made: Make) -> None:
    model, tokenizer = loaded("classifier", outputs=3)
    task = made("classification", labels=("entailment", "neutral", "contradiction"))
    dataset = Dataset.from_dict({"text": TEXTS})
    plain = answers(model, tokenizer, task, dataset, ScoringOptions()).predictions
    before = model.config.id2label
    try:
        model.config.id2label = {0: "CONTRADICTION", 1: "ENTAILMENT", 2: "NEUTRAL"}
        found = answers(model, tokenizer, task, dataset, ScoringOptions())
        assert found.predictions[3] == [plain[3][1], plain[3][2], plain[3][0]] and "order" in found.notes[0]
        model.config.id2label = {0: "yes", 1: "no", 2: "perhaps"}
        found = answers(model, tokenizer, task, dataset, ScoringOptions())
        assert found.predictions == plain and "yes as entailment" in found.notes[0]
    finally:
        model.config.id2label = before
    assert label_order(model.config, task) == (None, ())


def test_the_loss_of_a_classifier_is_scikit_learns(loaded: Loaded, made: Make) -> None:
    from sklearn.metrics import log_loss

    model, tokenizer = loaded("classifier", outputs=3)
    task = made("classification", labels=("a", "b", "c"))
    dataset = Dataset.from_dict({"text": TEXTS, "label": [place % 3 for place in range(len(TEXTS))]})
    given = answers(model, tokenizer, task, dataset, ScoringOptions()).predictions
    logits = np.array([given[row] for row in range(len(TEXTS))])
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = evaluate_model(model, tokenizer, task, dataset).metrics["loss"]
    assert found == pytest.approx(log_loss(dataset["label"][:], shares, labels=[0, 1, 2]), rel=1e-5)


def test_a_head_of_another_size_is_refused(loaded: Loaded, made: Make) -> None:
    model, tokenizer = loaded("classifier", outputs=3)
    with pytest.raises(TaskError, match=r"has 3 outputs, and toy needs 2.*outputs are LABEL_0, LABEL_1, LABEL_2;"):
        evaluate_model(model, tokenizer, made("classification"), Dataset.from_dict({"text": ["a"], "label": [0]}))


def test_weights_that_do_not_go_with_their_config(loaded: Loaded, tmp_path: Path) -> None:
    model, tokenizer = loaded("classifier", outputs=3)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": {"0": "no", "1": "yes"}}))
    with pytest.raises(CheckpointError, match=r"do not have the shapes that config\.json asks for"):
        load_scorable(str(tmp_path), "classification")


def test_nan_is_no_answer(made: Make) -> None:
    with pytest.raises(TaskError, match="gives out NaN"):
        decide(made("classification"), [[0.0, 1.0], [float("nan"), 1.0]])
    assert decide(made("classification"), [[0.5, 0.5], [0.0, 1.0]]) == [0, 1]


def test_nan_is_no_perplexity(loaded: Loaded, made: Make) -> None:
    """It would be less than no other, and so the best state of a run for ever."""
    model, tokenizer = loaded("causal")
    task, dataset = made("language_modelling"), Dataset.from_dict({"text": ["Anna has red boots ."]})
    given = answers(model, tokenizer, task, dataset, ScoringOptions())
    with pytest.raises(TaskError, match="gives out NaN"):
        score(task, replace(given, predictions={0: (float("nan"), 3)}), dataset)


def test_batches_by_length() -> None:
    lengths = [3, 9, 1, 9, 2, 30]
    assert batches_by_length(lengths, 18) == [[5], [1, 3], [0, 4, 2]]
    assert sorted(row for rows in batches_by_length(lengths, 1) for row in rows) == list(range(6))
    assert batches_by_length([], 10) == []


class Rank:
    """One of several processes, as Accelerate describes it."""

    def __init__(self, index: int, count: int) -> None:
        self.process_index, self.num_processes = index, count


@pytest.mark.parametrize("count", [2, 3, 7])
def test_processes_share_all_rows_in_as_many_batches(
    count: int, loaded: Loaded, made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import accelerate.utils

    from hf_bias_patch.scoring.score import process_batches

    model, tokenizer = loaded("classifier")
    dataset = Dataset.from_dict({"text": TEXTS})
    whole = answers(model, tokenizer, made("classification"), dataset, ScoringOptions(batch_tokens=60)).predictions
    encoded = encode(dataset, tokenizer, made("classification"), 64, head="classifier").dataset
    parts = [list(process_batches(encoded, Collator(0), 60, Rank(i, count))) for i in range(count)]
    assert len({len(part) for part in parts}) == 1, "a sharded model would wait for ever"
    rows = [row for part in parts for batch in part for row in batch["row"].tolist()]
    assert set(rows) == set(range(len(TEXTS))) and len(rows) >= len(TEXTS)
    items = [list(predict_classes(model, part, made("classification")).items()) for part in parts]
    monkeypatch.setattr(accelerate.utils, "gather_object", lambda _: [item for part in items for item in part])
    gathered = gather(dict(items[0]), Rank(0, count), len(TEXTS))
    assert list(gathered) == list(whole) and gathered[5] == pytest.approx(whole[5], abs=1e-6)


def test_rows_that_nobody_predicted_are_missed() -> None:
    with pytest.raises(TaskError, match="1 of 3 rows were not predicted"):
        gather({0: 1, 2: 1, 7: 1}, None, 3)


@pytest.mark.parametrize(("head", "beams"), [("seq2seq", 1), ("seq2seq", 3), ("causal", 1), ("causal", 3)])
def test_generated_texts_are_those_of_each_source_by_itself(head: Any, beams: int, loaded: Loaded, made: Make) -> None:
    model, tokenizer = loaded(head)
    sources = ["Anna lives in", "Tom is a cook. Every Monday, he", "The boots"]
    dataset = Dataset.from_dict({"source": sources, "references": [["Harwick."]] * 3})
    decode = GenerationOptions(num_beams=beams, max_new_tokens=9, min_new_tokens=3)
    task = made("generation", metrics=("bleu", "rougeL"), prompt="{source}")
    found = evaluate_model(model, tokenizer, task, dataset, ScoringOptions(batch_tokens=200, decode=decode))
    for source, said in zip(sources, found.predictions, strict=True):
        ids = tokenizer(source, return_tensors="pt") if head == "seq2seq" else None
        inputs = ids["input_ids"] if ids else torch.tensor([[0, *tokenizer(source)["input_ids"]]])
        out = model.generate(
            inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=9, min_new_tokens=3, num_beams=beams,
            do_sample=False, early_stopping=beams > 1,
        )[0]  # fmt: skip
        new = out if head == "seq2seq" else out[inputs.shape[1] :]
        assert said == tokenizer.decode(new, skip_special_tokens=True).strip()
    assert len(set(found.predictions)) > 1 and set(found.metrics) == {"bleu", "rougeL"}


def test_length_settings_are_kept(loaded: Loaded, made: Make) -> None:
    model, tokenizer = loaded("seq2seq")
    dataset = Dataset.from_dict({"source": ["Anna lives in Harwick."], "references": [["x"]]})

    def said(**settings: Any) -> str:
        options = ScoringOptions(decode=GenerationOptions(num_beams=1, **settings))
        return str(evaluate_model(model, tokenizer, made("generation"), dataset, options).predictions[0])

    assert len(tokenizer(said(max_new_tokens=4))["input_ids"]) <= 6
    assert len(tokenizer(said(max_new_tokens=30, min_new_tokens=25))["input_ids"]) >= 24
    words = said(max_new_tokens=40, min_new_tokens=35, no_repeat_ngram_size=1)
    assert words != said(max_new_tokens=40, min_new_tokens=35)


def test_scores_as_json(loaded: Loaded, made: Make) -> None:
    model, tokenizer = loaded("classifier")
    dataset = Dataset.from_dict({"text": ["a", "b " * 300], "label": [0, 1]})
    found = evaluate_model(model, tokenizer, made("classification"), dataset)
    plain = json.loads(json.dumps(found.plain()))
    assert plain["truncated"] == 1 and plain["metrics"]["accuracy"] == found.main and "predictions" not in plain
    assert plain["task"] == "toy" and plain["version"] == 1 and plain["rows"] == 2


def test_no_input_is_longer_than_the_model_takes(loaded: Loaded, made: Make) -> None:
    model, tokenizer = loaded("classifier")
    dataset = Dataset.from_dict({"text": ["boots " * 400, "lamps"], "label": [0, 1]})
    scores = evaluate_model(model, tokenizer, made("classification"), dataset, ScoringOptions(max_length=4096))
    assert scores.truncated == 1


def test_no_answer_is_longer_than_the_decoder_has_positions(loaded: Loaded, made: Make) -> None:
    model, tokenizer = loaded("seq2seq")
    task = made("generation", decode={"num_beams": 1, "max_new_tokens": 300, "min_new_tokens": 200})
    dataset = Dataset.from_dict({"source": ["Anna has red boots ."], "references": [["boots"]]})
    scores = evaluate_model(model, tokenizer, task, dataset)
    assert "Answers end at 128 tokens, not 300: the decoder has no more positions." in scores.notes
    assert scores.decode is not None and scores.decode["max_new_tokens"] == 128
