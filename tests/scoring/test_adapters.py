"""Adapters as people save them with peft alone, scored on their base; and those that cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from hf_bias_patch.assets import folder
from hf_bias_patch.errors import CheckpointError, SourceError, TaskError
from hf_bias_patch.scoring.loading import load_scorable
from tests.models import randomise

# Stock peft asks stock transformers for what it deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def pooled(place: Path, width: int = 32) -> Path:
    """A small BERT with a pooler, every value random, with the embedded one's tokenizer."""
    config = transformers.BertConfig.from_pretrained(folder("bert"), hidden_size=width, intermediate_size=40)
    randomise(transformers.BertModel(config)).save_pretrained(place)
    transformers.AutoTokenizer.from_pretrained(folder("bert")).save_pretrained(place)
    return place


def ids_of(model: Any) -> torch.Tensor:
    ids = torch.randint(3, model.config.vocab_size, (1, 12), generator=torch.Generator().manual_seed(3))
    ids[0, -1] = model.config.eos_token_id or 2
    return ids


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=ids_of(model)).logits
    return found


def plain_lora(place: Path, base: Path, **config: Any) -> Any:
    """A LoRA of a classifier of three classes as people save it with peft alone; every trained value is random."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    given = peft.LoraConfig(**{"task_type": "SEQ_CLS", "r": 4, "target_modules": ["query", "value"], **config})
    wrapped = peft.get_peft_model(model, given)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.3)
    wrapped.save_pretrained(place)
    return wrapped


def test_plain_peft_is_scored(tmp_path: Path) -> None:
    made = plain_lora(tmp_path / "adapter", pooled(tmp_path / "base"))
    model, tokenizer = load_scorable(str(tmp_path / "adapter"), "classification", device="cpu")
    assert torch.equal(logits(model), logits(made)) and model.config.num_labels == 3
    assert len(tokenizer) == len(transformers.AutoTokenizer.from_pretrained(folder("bert")))


def test_plain_peft_with_added_tokens_is_scored(tmp_path: Path) -> None:
    """peft saves the embeddings with the adapter then."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder("gpt2"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder("gpt2"))
    assert tokenizer.add_tokens(["<one>", "<two>"]) == 2
    model.resize_token_embeddings(len(tokenizer))
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["c_attn"], fan_in_fan_out=True)
    made = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.3)
    with pytest.warns(UserWarning, match="embedding layer has been resized"):
        made.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    found, read = load_scorable(str(tmp_path / "adapter"), "language_modelling", device="cpu")
    assert len(read) == len(tokenizer) == found.get_input_embeddings().num_embeddings
    assert torch.equal(logits(found), logits(made))


def refused(place: Path, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_scorable(str(place), "classification", device="cpu")


def changed(place: Path, **fields: Any) -> None:
    """Write other values into an adapter's config."""
    file = place / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_an_adapter_of_another_base(tmp_path: Path) -> None:
    place = tmp_path / "adapter"
    plain_lora(place, pooled(tmp_path / "base"))
    with pytest.raises(TaskError, match="a generation task needs one"):
        load_scorable(str(place), "generation", device="cpu")
    changed(place, base_model_name_or_path=str(tmp_path / "nowhere"))
    refused(place, SourceError, f"The base of the adapter .*, {tmp_path}/nowhere, is missing")
    for other in (folder("gpt2"), pooled(tmp_path / "wider", 64)):
        changed(place, base_model_name_or_path=str(other))
        refused(place, TaskError, "does not fit its base")
    changed(place, base_model_name_or_path=None)
    refused(place, CheckpointError, "names no base_model_name_or_path")
    (place / "adapter_config.json").write_text("{")
    refused(place, CheckpointError, "cannot be read")


def test_a_damaged_adapter(tmp_path: Path) -> None:
    place = tmp_path / "adapter"
    file = place / "adapter_model.safetensors"
    plain_lora(place, pooled(tmp_path / "base"))
    tensors = load_file(file)
    first = next(name for name in tensors if "layer.0" in name)
    save_file({name: value for name, value in tensors.items() if name != first}, file)
    refused(place, TaskError, "lacks a tensor")
    save_file({**tensors, first.replace("layer.0", "layer.9"): tensors[first].clone()}, file)
    refused(place, TaskError, "has no module for")
    file.write_bytes(b"not at all")
    refused(place, CheckpointError, "cannot be read")
    file.unlink()
    refused(place, CheckpointError, "has no adapter_model")


def test_an_adapter_that_lost_what_was_new(tmp_path: Path) -> None:
    """A classifier, or the pooler that an embedded checkpoint has not: random each time that it is loaded."""
    place = tmp_path / "adapter"
    plain_lora(place, pooled(tmp_path / "base"), task_type=None)
    refused(place, TaskError, r"lack 2 parameters, such as classifier\.bias")
    plain_lora(place, folder("bert"))
    refused(place, TaskError, r"lack 2 parameters, such as bert\.pooler\.dense\.bias")
