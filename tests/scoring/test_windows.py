"""Running text in pieces: every token scored once, with the context it should have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.score import ScoringOptions, evaluate_model
from hf_bias_patch.scoring.tasks import Task
from hf_bias_patch.scoring.windows import EACH, blocks, spans, windows

Loaded = Callable[..., tuple[Any, Any]]
Make = Callable[..., Task]
TEXT = "Anna lives in Harwick. She is a baker. Her boots are red, and she keeps them under the bed. Tom likes chess."


def test_the_drawing_in_the_docstring() -> None:
    assert list(spans(10, 5, 3)) == [(0, 1, 5), (3, 5, 8), (5, 8, 10)]


@given(st.integers(1, 60), st.integers(2, 20), st.data())
def test_every_token_but_the_first_is_scored_once(tokens: int, length: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, length - 1))
    scored: list[int] = []
    for begin, first, end in spans(tokens, length, stride):
        assert 0 <= begin < first < end <= tokens and end - begin <= length
        assert begin == 0 or end - begin == length, "all the context there is room for"
        scored += range(first, end)
    assert scored == list(range(1, tokens))


@pytest.mark.parametrize("stride", [0, 8, -1])
def test_strides_that_leave_no_context(stride: int) -> None:
    with pytest.raises(TaskError, match="stride"):
        list(spans(20, 8, stride))


def brute_force(model: Any, ids: list[int], length: int, stride: int) -> float:
    """Summed negative log-likelihood, token by token, each by a run of its own over the context of its window."""
    import torch

    total, end = 0.0, length
    for at in range(1, len(ids)):
        while at >= end:
            end = min(end + stride, len(ids))
        context = ids[max(0, min(end, len(ids)) - length) : at]
        with torch.no_grad():
            scores = model(torch.tensor([context])).logits[0, -1].double().log_softmax(-1)
        total -= scores[ids[at]].item()
    return total


@pytest.mark.parametrize("stride", [1, 5, 15, None])
def test_perplexity_token_by_token(stride: int | None, loaded: Loaded, made: Make) -> None:
    model, tokenizer = loaded("causal")
    task = made("language_modelling", metrics=("loss", "perplexity", "word_perplexity"), joined=True)
    dataset = Dataset.from_dict({"text": [TEXT + "\n", "Tom is a cook.\n"]})
    found = evaluate_model(
        model, tokenizer, task, dataset, ScoringOptions(batch_tokens=100, max_length=16, stride=stride)
    ).metrics
    text = TEXT + "\nTom is a cook.\n"
    ids = [tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]
    nll = brute_force(model, ids, 16, stride or 8)
    # float32 sums of the model in two batch shapes: 1e-5 is ten times what differs here.
    assert found["loss"] == pytest.approx(nll / (len(ids) - 1), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(nll / (len(ids) - 1)), rel=1e-4)
    assert found["word_perplexity"] == pytest.approx(math.exp(nll / len(text.split())), rel=1e-4)


def test_documents_of_their_own_have_start_and_end(loaded: Loaded, made: Make) -> None:
    import torch

    model, tokenizer = loaded("causal")
    texts = ["Anna lives in Harwick.", "Tom is a cook."]
    found = evaluate_model(
        model, tokenizer, made("language_modelling", metrics=("loss",)), Dataset.from_dict({"text": texts})
    )
    total, count = 0.0, 0
    for text in texts:
        ids = torch.tensor([[0, *tokenizer(text)["input_ids"], 0]])
        with torch.no_grad():
            total += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    assert found.metrics["loss"] == pytest.approx(total / count, rel=1e-5)
    assert found.metrics["loss"] < 3, "the checkpoint was trained on such texts"


def test_pseudo_perplexity_masks_one_token_at_a_time(loaded: Loaded, made: Make) -> None:
    import torch

    model, tokenizer = loaded("masked")
    text = "Anna lives in Harwick."
    task = made("language_modelling")
    found = evaluate_model(model, tokenizer, task, Dataset.from_dict({"text": [text]}), ScoringOptions(masked=EACH))
    ids = torch.tensor(tokenizer(text)["input_ids"])
    total = 0.0
    for at in range(1, len(ids) - 1):
        masked = ids.clone()
        masked[at] = tokenizer.mask_token_id
        with torch.no_grad():
            total -= model(masked[None]).logits[0, at].log_softmax(-1)[ids[at]].item()
    assert found.main_metric == "pseudo_perplexity" and set(found.metrics) == {"masked_loss", "pseudo_perplexity"}
    assert found.main == pytest.approx(math.exp(total / (len(ids) - 2)), rel=1e-4)


def test_a_share_is_masked_and_the_same_every_time(loaded: Loaded, made: Make) -> None:
    model, tokenizer = loaded("masked")
    dataset = Dataset.from_dict({"text": [TEXT] * 20})
    task = made("language_modelling")
    rows = list(windows(dataset, tokenizer, task, 20, "masked", masked=0.3))
    masked = [(row["input_ids"], row["labels"]) for row in rows]
    assert masked == [
        (r["input_ids"], r["labels"]) for r in windows(dataset, tokenizer, task, 20, "masked", masked=0.3)
    ]
    chosen = sum(label != -100 for _, labels in masked for label in labels)
    tokens = 20 * len(tokenizer(TEXT, add_special_tokens=False)["input_ids"])
    assert 0.2 < chosen / tokens < 0.4
    for inputs, labels in masked:
        assert all((i == tokenizer.mask_token_id) == (label != -100) for i, label in zip(inputs, labels, strict=True))
        assert inputs[0] == tokenizer.cls_token_id and inputs[-1] == tokenizer.sep_token_id and len(inputs) <= 20
    found = evaluate_model(model, tokenizer, task, dataset)
    assert found.main_metric == "masked_perplexity" and found.metrics["masked_loss"] == pytest.approx(
        math.log(found.main)
    )
    with pytest.raises(TaskError, match="cannot be masked"):
        list(windows(dataset, tokenizer, task, 20, "masked", masked=0.0))


@pytest.mark.parametrize("head", ["causal", "masked"])
def test_blocks_of_a_running_text_hold_all_of_it_once(head: Any, loaded: Loaded, made: Make) -> None:
    _, tokenizer = loaded(head)
    lines = [f"{TEXT}\n"] * 7
    found = list(
        blocks(Dataset.from_dict({"text": lines}), tokenizer, made("language_modelling", joined=True), 16, head)
    )
    inner = [row["input_ids"][1:-1] if head == "masked" else row["input_ids"] for row in found]
    whole = tokenizer("".join(lines), add_special_tokens=False)["input_ids"]
    assert [token for ids in inner for token in ids] == whole
    assert {row["length"] for row in found[:-1]} == {16} and [row["row"] for row in found] == list(range(len(found)))
    assert ("labels" in found[0]) == (head == "causal")


def test_blocks_of_documents_do_not_mix_them(loaded: Loaded, made: Make) -> None:
    _, tokenizer = loaded("causal")
    found = list(
        blocks(
            Dataset.from_dict({"text": ["Tom is a cook.", TEXT]}), tokenizer, made("language_modelling"), 16, "causal"
        )
    )
    assert found[0]["input_ids"] == [0, *tokenizer("Tom is a cook.")["input_ids"], 0] == found[0]["labels"]
    assert len(found) > 2 and found[1]["input_ids"][0] == 0 and found[-1]["input_ids"][-1] == 0
