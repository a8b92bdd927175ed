"""Padding that changes no answer, whatever a tokenizer and a config say of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from datasets import Dataset

from hf_bias_patch.assets import folder
from hf_bias_patch.errors import TaskError
from hf_bias_patch.models.load import quiet
from hf_bias_patch.scoring.padding import choose_padding, settle_padding
from hf_bias_patch.scoring.score import ScoringOptions, answers
from hf_bias_patch.scoring.tasks import Task
from tests.models import randomise

Make = Callable[..., Task]
TEXTS = ["Anna has red boots.", "Anna!", "Tom is a cook. Every Monday, he goes to Harwick!", "The boots !", "he"]
WORD = "!"
"""That some of the texts end with."""


@cache
def _model(name: str) -> Any:
    if name == "llama":
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = transformers.LlamaConfig(
            vocab_size=1024, max_position_embeddings=128, attention_bias=True, mlp_bias=True, num_labels=3,
            bos_token_id=0, eos_token_id=0, **sizes,
        )  # fmt: skip
        return randomise(transformers.LlamaForSequenceClassification(config), 1).eval()
    config = transformers.AutoConfig.from_pretrained(folder(name), num_labels=3)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    return randomise(model, 2).eval()


def classifier(name: str) -> tuple[Any, Any]:
    """A random classifier with three outputs, and its tokenizer."""
    source = folder("gpt2" if name == "llama" else name)
    return copy.deepcopy(_model(name)), transformers.AutoTokenizer.from_pretrained(source)


def alone(model: Any, tokenizer: Any) -> torch.Tensor:
    """The logits of each text by itself, with no padding that anything could read."""
    model, found = copy.deepcopy(model), []
    if not model.config.is_encoder_decoder:
        model.config.pad_token_id = None
    for text in TEXTS:
        given = {name: torch.tensor([ids]) for name, ids in tokenizer(text).items()}
        with torch.no_grad():
            found.append(model(**given).logits[0])
    assert torch.stack(found).std(0).min() > 0.02, "vacuous"
    return torch.stack(found)


def spoil(model: Any, tokenizer: Any, own: str | None, models: Any) -> None:
    """Have the tokenizer and the config name these for padding."""
    if own == "added":
        tokenizer.add_special_tokens({"pad_token": "[ADDED]"})
        assert tokenizer.pad_token_id >= model.config.vocab_size
    else:
        tokenizer.pad_token = own
    model.config.pad_token_id = tokenizer.convert_tokens_to_ids(models) if isinstance(models, str) else models


DECODERS: list[tuple[str | None, Any]] = [
    (None, None),
    ("<|pad|>", None),
    (None, "<|pad|>"),
    ("<|pad|>", "<|endoftext|>"),
    ("<|endoftext|>", "<|pad|>"),
    ("<|pad|>", WORD),
    (None, WORD),
    (None, -1),
    ("<|pad|>", -1),
    ("added", None),
    ("added", 1024),
]
ENCODERS = {
    "bert": [(None, "[PAD]"), ("[PAD]", None), ("[SEP]", "[PAD]"), ("added", "[PAD]"), (None, None), ("[PAD]", -1)],
    "bart": [(None, "<pad>"), ("</s>", "<pad>"), ("<pad>", None), ("added", "<pad>"), (None, None), (None, -1)],
}
CASES = [(name, *case) for name in ("gpt2", "llama") for case in DECODERS]
CASES += [(name, *case) for name, cases in ENCODERS.items() for case in cases]


@pytest.mark.parametrize(("name", "own", "models"), CASES)
def test_a_text_has_the_same_logits_alone_and_in_a_batch(
    name: str, own: str | None, models: Any, tmp_path: Path, made: Make
) -> None:
    model, tokenizer = classifier(name)
    expected = alone(model, tokenizer)
    spoil(model, tokenizer, own, models)
    before = (model.config.pad_token_id, tokenizer.pad_token_id)
    task = made("classification", labels=("a", "b", "c"))
    given = answers(model, tokenizer, task, Dataset.from_dict({"text": TEXTS}), ScoringOptions(batch_tokens=1000))
    found = torch.tensor([given.predictions[row] for row in range(len(TEXTS))])
    assert torch.allclose(found, expected, atol=1e-5)
    assert sum("batches are padded with" in note for note in given.notes) == 1
    assert (model.config.pad_token_id, tokenizer.pad_token_id) == before, "evaluating changes no model"
    settle_padding(model, tokenizer)
    assert choose_padding(model, tokenizer).note == "", "said once"
    _check_stock(model, tokenizer, expected, tmp_path)


def _check_stock(model: Any, tokenizer: Any, expected: torch.Tensor, place: Path) -> None:
    """The saved model in transformers' own pipeline, in batches."""
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    with quiet():
        pipe = transformers.pipeline("text-classification", model=str(place), top_k=None, device="cpu")
        found = pipe(TEXTS, batch_size=2, function_to_apply="none")
    named = [{item["label"]: item["score"] for item in row} for row in found]
    logits = torch.tensor([[row[f"LABEL_{number}"] for number in range(3)] for row in named])
    assert torch.allclose(logits, expected, atol=1e-5)
    assert pipe.model.config.pad_token_id == pipe.tokenizer.pad_token_id is not None


def test_a_tokenizer_that_pads_on_the_left(tmp_path: Path) -> None:
    """GPT-2 counts positions from the first token, padding or not; saved, its tokenizer pads behind the text."""
    model, tokenizer = classifier("gpt2")
    expected = alone(model, tokenizer)
    tokenizer.padding_side, tokenizer.pad_token = "left", None
    settle_padding(model, tokenizer)
    _check_stock(model, tokenizer, expected, tmp_path)


def test_xlnet_reads_its_last_position(made: Make) -> None:
    config = transformers.XLNetConfig(vocab_size=1024, d_model=32, n_layer=2, n_head=4, d_inner=48, num_labels=3)
    model = randomise(transformers.XLNetForSequenceClassification(config), 3).eval()
    tokenizer = classifier("gpt2")[1]
    model.config.pad_token_id = tokenizer.pad_token_id
    expected = alone(model, tokenizer)
    task = made("classification", labels=("a", "b", "c"))
    given = answers(model, tokenizer, task, Dataset.from_dict({"text": TEXTS}), ScoringOptions(batch_tokens=1000))
    assert torch.allclose(torch.tensor([given.predictions[row] for row in range(5)]), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["DistilBert", "Roberta"])
def test_models_that_read_no_token_types(kind: str, made: Make) -> None:
    """BERT's tokenizer gives them all the same, and numbers the second text of a pair 1."""
    sizes = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 48} if kind == "DistilBert" else {
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "type_vocab_size": 1,
    }  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(vocab_size=1024, num_labels=3, pad_token_id=0, **sizes)
    model = randomise(getattr(transformers, f"{kind}ForSequenceClassification")(config), 4).eval()
    tokenizer = classifier("bert")[1]
    assert 1 in tokenizer("a", "b")["token_type_ids"], "vacuous"
    task = made("classification", labels=("a", "b", "c"), text=("text", "more"))
    rows = Dataset.from_dict({"text": TEXTS, "text_pair": TEXTS[::-1]})
    given = answers(model, tokenizer, task, rows, ScoringOptions(batch_tokens=1000))
    ids = torch.tensor([tokenizer(TEXTS[2], TEXTS[2])["input_ids"]])
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    assert torch.allclose(torch.tensor(given.predictions[2]), expected, atol=1e-5)


def test_roberta_keeps_what_it_counts_positions_from() -> None:
    """Saved with another padding token, its positions would start elsewhere."""
    config = transformers.RobertaConfig(vocab_size=1024, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    model = transformers.RobertaForSequenceClassification(config)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder("bart"))
    tokenizer.pad_token = "</s>"
    padding = settle_padding(model, tokenizer)
    assert padding.id == 1 == model.config.pad_token_id and tokenizer.pad_token == "<pad>"
    assert (
        "The tokenizer names </s> (2), config.json names <pad> (1); batches are padded with <pad> (1)" in padding.note
    )


def test_texts_that_end_with_the_end_token_are_padded_with_another() -> None:
    """A decoder's classifier would pass the end token over, and BART's would read the padding."""
    model, tokenizer = classifier("bart")
    tokenizer.pad_token, model.config.pad_token_id = None, None
    assert choose_padding(model, tokenizer).id != tokenizer.eos_token_id == tokenizer("he")["input_ids"][-1]


def test_generation_configs_are_settled_too() -> None:
    with quiet():
        model = transformers.AutoModelForCausalLM.from_pretrained(folder("gpt2"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder("gpt2"))
    tokenizer.pad_token, model.config.pad_token_id, model.generation_config.pad_token_id = None, None, None
    assert settle_padding(model, tokenizer).id == 0
    assert model.generation_config.pad_token_id == model.config.pad_token_id == tokenizer.pad_token_id == 0


def test_a_tokenizer_without_any_special_token() -> None:
    model, tokenizer = classifier("gpt2")
    for name in ("pad", "eos", "bos", "unk"):
        setattr(tokenizer, f"{name}_token", None)
    model.config.pad_token_id = None
    with pytest.raises(TaskError, match=r"no token to pad with.*tokenizer_config\.json: pad_token"):
        choose_padding(model, tokenizer)
