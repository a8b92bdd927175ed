"""Token ids for every kind of head, what is cut of them, and padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from datasets import Dataset

from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.collate import Collator, mask_tokens
from hf_bias_patch.scoring.encode import encode
from hf_bias_patch.scoring.heads import head_kind_of, head_kind_of_class, longest_input, require_head
from hf_bias_patch.scoring.tasks import Task

Loaded = Callable[..., tuple[Any, Any]]
Make = Callable[..., Task]
LONG = "Anna lives in Harwick and keeps her red boots under the bed. " * 9


def test_pairs_and_what_is_cut(loaded: Loaded, made: Make) -> None:
    _, tokenizer = loaded("classifier")
    dataset = Dataset.from_dict({"text": ["Anna.", LONG], "text_pair": ["Tom.", "Short."], "label": [1, 0]})
    task = made("classification", text=("a", "b"))
    found = encode(dataset, tokenizer, task, 24, head="classifier")
    assert (found.truncated, found.max_length) == (1, 24) and found.longest == len(
        tokenizer(LONG, "Short.")["input_ids"]
    )
    assert str(found) == f"1 texts are longer than 24 tokens (up to {found.longest}) and were cut"
    first, second = found.dataset
    assert first["input_ids"] == tokenizer("Anna.", "Tom.")["input_ids"] and first["labels"] == 1
    assert second == {
        "input_ids": tokenizer(LONG, "Short.", truncation=True, max_length=24)["input_ids"],
        "token_type_ids": tokenizer(LONG, "Short.", truncation=True, max_length=24)["token_type_ids"],
        "labels": 0,
        "row": 1,
        "length": 24,
    }
    assert not encode(dataset, tokenizer, task, 999, head="classifier").truncated


def test_rows_without_labels(loaded: Loaded, made: Make) -> None:
    _, tokenizer = loaded("classifier")
    found = encode(Dataset.from_dict({"text": ["a", "b"]}), tokenizer, made("classification"), 16, head="classifier")
    assert "labels" not in found.dataset.column_names and found.dataset["row"][:] == [0, 1]


def test_many_rows_keep_their_numbers(loaded: Loaded, made: Make) -> None:
    _, tokenizer = loaded("classifier")
    texts = [f"{'bread ' * (i % 7)}{i}" for i in range(2345)]
    found = encode(Dataset.from_dict({"text": texts}), tokenizer, made("classification"), 5, head="classifier").dataset
    assert found["row"][:] == list(range(2345))
    for i in (0, 999, 1000, 2344):
        assert found[i]["input_ids"] == tokenizer(texts[i], truncation=True, max_length=5)["input_ids"]


def test_targets_of_encoder_decoders(loaded: Loaded, made: Make) -> None:
    _, tokenizer = loaded("seq2seq")
    dataset = Dataset.from_dict({"source": ["a", LONG], "references": [["one", "two"], [LONG]]})
    found = encode(dataset, tokenizer, made("generation"), 24, head="seq2seq", training=True, max_target_length=10)
    assert len(found.dataset) == 3 and (found.truncated, found.cut_targets) == (1, 1)
    assert found.dataset[0]["input_ids"] == tokenizer("a")["input_ids"] == found.dataset[1]["input_ids"]
    assert found.dataset[1]["labels"] == tokenizer("two")["input_ids"]
    cut = found.dataset[2]
    assert cut["input_ids"] == tokenizer(LONG, truncation=True, max_length=24)["input_ids"]
    assert len(cut["labels"]) == 10 and cut["labels"][-1] == tokenizer.eos_token_id
    asked = encode(dataset, tokenizer, made("generation"), 24, head="seq2seq").dataset
    assert len(asked) == 2 and "labels" not in asked.column_names


def test_prompt_and_target_of_decoders(loaded: Loaded, made: Make) -> None:
    _, tokenizer = loaded("causal")
    task = made("generation", prompt="Say: {source}\nSo:")
    dataset = Dataset.from_dict({"source": ["Anna", LONG], "references": [[" She"], [" It"]]})
    found = encode(dataset, tokenizer, task, 40, head="causal", training=True, max_target_length=8)
    before, after = tokenizer("Say: ")["input_ids"], tokenizer("\nSo:")["input_ids"]
    prompt = [0, *before, *tokenizer("Anna")["input_ids"], *after]
    target = [*tokenizer(" She")["input_ids"], 0]
    assert found.dataset[0]["input_ids"] == prompt + target
    assert found.dataset[0]["labels"] == [-100] * len(prompt) + target
    # The prompt's end stays where a source is cut, and a target has its room.
    cut = encode(dataset, tokenizer, task, 40, head="causal", max_target_length=8)
    assert cut.truncated == 1 and cut.dataset[1]["length"] == 32
    assert cut.dataset[1]["input_ids"][-len(after) :] == after and cut.dataset[0]["input_ids"] == prompt
    with pytest.raises(TaskError, match="leave no room"):
        encode(dataset, tokenizer, task, 10, head="causal", max_target_length=8)


def test_padding_on_either_side() -> None:
    rows = [
        {"input_ids": [5, 6, 7], "labels": [1, 2, 3], "token_type_ids": [1, 1, 1], "row": 4, "length": 3},
        {"input_ids": [8], "labels": [9], "token_type_ids": [1], "row": 2, "length": 1},
    ]
    right, left = Collator(pad=99)(rows), Collator(pad=99, side="left", multiple_of=4)(rows)
    assert right["input_ids"].tolist() == [[5, 6, 7], [8, 99, 99]] and right["row"].tolist() == [4, 2]
    assert right["labels"].tolist() == [[1, 2, 3], [9, -100, -100]]
    assert right["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]] == right["token_type_ids"].tolist()
    assert left["input_ids"].tolist() == [[99, 5, 6, 7], [99, 99, 99, 8]]
    assert left["attention_mask"].tolist() == [[0, 1, 1, 1], [0, 0, 0, 1]]


def test_labels_of_classes_and_of_numbers() -> None:
    assert Collator(0)([{"input_ids": [1], "labels": 1}])["labels"].dtype == torch.int64
    assert Collator(0)([{"input_ids": [1], "labels": 1.0}])["labels"].dtype == torch.float32


def test_masking_as_bert_was_trained(loaded: Loaded) -> None:
    _, tokenizer = loaded("masked")
    generator = torch.Generator().manual_seed(0)
    ids = tokenizer(LONG)["input_ids"]
    whole = Collator(0)([{"input_ids": ids}] * 50 + [{"input_ids": ids[:9]}])["input_ids"]
    inputs, labels = mask_tokens(whole, tokenizer, generator, 0.2)
    chosen = labels != -100
    assert (labels[chosen] == whole[chosen]).all() and (inputs[~chosen] == whole[~chosen]).all()
    assert not chosen[:, 0].any() and not chosen[50, 9:].any(), "special tokens and padding stay"
    masked = inputs[chosen] == tokenizer.mask_token_id
    same = inputs[chosen] == whole[chosen]
    # About 6,000 tokens, so that a standard deviation is 0.005.
    assert chosen.float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert masked.float().mean().item() == pytest.approx(0.8, abs=0.03)
    assert same.float().mean().item() == pytest.approx(0.1, abs=0.03)


def test_kinds_of_heads(loaded: Loaded) -> None:
    for head in ("classifier", "masked", "causal", "seq2seq"):
        assert head_kind_of(loaded(head)[0]) == head
    assert head_kind_of_class("BartForSequenceClassification") == "classifier" and head_kind_of_class("T5Model") is None
    with pytest.raises(TaskError, match="has no head"):
        head_kind_of(loaded("masked")[0].bert)
    with pytest.raises(TaskError, match=r"m has a head for MaskedLM.*tune glue"):
        require_head("classification", "masked", "m")
    with pytest.raises(TaskError, match="a language_modelling task needs one for CausalLM or MaskedLM"):
        require_head("language_modelling", "seq2seq", "m")


def test_the_longest_input(loaded: Loaded) -> None:
    from transformers import RobertaConfig

    model, tokenizer = loaded("classifier")
    assert longest_input(tokenizer, model.config) == 128

    class Endless:
        model_max_length = int(1e30)

    roberta = RobertaConfig(max_position_embeddings=514, pad_token_id=1)
    assert longest_input(Endless(), roberta) == 512, "its positions start behind the padding token's number"
    assert longest_input(Endless(), RobertaConfig(max_position_embeddings=0)) == 1024


def test_answers_that_leave_no_room_for_a_source(loaded: Loaded, made: Make) -> None:
    _, tokenizer = loaded("causal")
    dataset = Dataset.from_dict({"source": ["Anna"], "references": [["Ben"]]})
    with pytest.raises(TaskError, match=r"Answers of 500 tokens leave no room.* has 128 tokens for both"):
        encode(dataset, tokenizer, made("generation"), 128, head="causal", max_target_length=500)
