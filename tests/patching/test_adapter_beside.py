"""A model with a peft adapter in its folder: stock transformers loads both, before a patch and after it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

import hf_bias_patch
from hf_bias_patch.patching.adapter_beside import adapter_note
from tests.models import error, fresh, outputs_of

Tree = Callable[[Path], dict[str, str]]
Run = Callable[..., tuple[int, str, str]]

MODEL = transformers.BertForMaskedLM
FOLDS = {"fold": "key,value"}
ADAPTERS: dict[str, tuple[Any, dict[str, Any], bool]] = {
    "lora beside the folds": (peft.LoraConfig(r=2, target_modules=["query", "key", "value"]), FOLDS, True),
    "lora on the feed-forward maps": (peft.LoraConfig(r=2, target_modules=["intermediate.dense"]), FOLDS, True),
    "lora where the value goes": (peft.LoraConfig(r=2, target_modules=["attention.output.dense"]), FOLDS, False),
    "lora there, and only keys go": (
        peft.LoraConfig(r=2, target_modules=["attention.output.dense"]),
        {"fold": "key"},
        True,
    ),
    "all biases of its own": (peft.LoraConfig(r=2, target_modules=["query"], bias="all"), FOLDS, True),
    "the value's bias of its own": (peft.LoraConfig(r=2, target_modules=["value"], bias="lora_only"), FOLDS, False),
    "a scale of the values": (
        peft.IA3Config(target_modules=["value"], feedforward_modules=[]),
        FOLDS,
        False,
    ),
    "a scale of the keys": (peft.IA3Config(target_modules=["key"], feedforward_modules=[]), {"fold": "key"}, True),
    "lora, and the query in a norm": (
        peft.LoraConfig(r=2, target_modules=["value"]),
        {"fold": "query:norm", "max_loss": 1.0},
        False,
    ),
    "lora, and the query in its weight": (
        peft.LoraConfig(r=2, target_modules=["query"]),
        {"fold": "query:weight", "max_loss": 1.0},
        True,
    ),
}


def adapted(folder: Path, config: Any) -> None:
    """A model in float64 and a random adapter, in one folder, as `PeftModel.save_pretrained` leaves them."""
    model = fresh("bert", MODEL)
    model.save_pretrained(folder)
    with_it = peft.get_peft_model(model, config)
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in with_it.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
    with_it.save_pretrained(folder)


def computed(folder: Path) -> dict[str, Tensor]:
    loaded = MODEL.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    assert loaded.peft_config, "vacuous"
    return outputs_of(loaded.double().eval())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ADAPTERS)
def test_it_travels_and_what_it_does_is_told_before(name: str, tmp_path: Path, tree: Tree) -> None:
    """The note is right: with the adapter on, the outputs are the same to the last bits, or they are not at all."""
    config, recipe, keeps = ADAPTERS[name]
    source, out = tmp_path / "source", tmp_path / "out"
    adapted(source, config)
    plan = hf_bias_patch.plan(source, **recipe)
    note = adapter_note(source, plan)
    assert ("stays equal with it" in note) == keeps and ("change what the model computes" in note) != keeps
    done = hf_bias_patch.patch(source, out, plan)
    assert not done.left_behind
    assert all(tree(out)[file] == tree(source)[file] for file in ("adapter_config.json", "adapter_model.safetensors"))
    changed = error(computed(out), computed(source))
    assert changed < 1e-9 if keeps else changed > 1e-4
    hf_bias_patch.revert(out)
    assert tree(out) == tree(source)


def test_no_adapter_no_note(saved: Callable[..., Path]) -> None:
    assert adapter_note(saved("bert"), hf_bias_patch.plan(saved("bert"), fold="key")) == ""


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_in_a_pickle_travels_too(tmp_path: Path, tree: Tree) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    adapted(source, ADAPTERS["lora where the value goes"][0])
    weights = source / "adapter_model.safetensors"
    torch.save(load_file(weights), source / "adapter_model.bin")
    weights.unlink()
    assert "output.dense" in adapter_note(source, hf_bias_patch.plan(source, fold="value"))
    hf_bias_patch.patch(source, out, fold="value")
    assert tree(out)["adapter_model.bin"] == tree(source)["adapter_model.bin"]
    assert json.loads((out / "adapter_config.json").read_text())["peft_type"] == "LORA"
