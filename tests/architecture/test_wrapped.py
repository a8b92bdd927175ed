"""Names under a wrapper's prefix are refused before anything is written; those of stock classes never are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import hf_bias_patch
from hf_bias_patch.architecture.wrapped import refuse_wrapped, wrapper
from hf_bias_patch.errors import CheckpointError
from tests.models import FAMILIES, NAMES, config_of, fresh, heads

Saved = Callable[..., Path]
HEADED = [(family, head) for family in FAMILIES for head in heads(family)]


@pytest.mark.parametrize(("family", "head"), HEADED, ids=lambda part: getattr(part, "__name__", part))
def test_every_stock_class(family: str, head: type) -> None:
    config = config_of(family)
    with torch.device("meta"):
        names = list(head(config).state_dict())
    assert wrapper(config.to_dict(), names) == ""
    for prefix in ("_orig_mod.", "module.", "base_model.module.", "_forward_module._orig_mod."):
        assert wrapper(config.to_dict(), [prefix + name for name in names]) == prefix


@pytest.mark.parametrize("name", NAMES)
def test_only_the_larger_part_of_a_file(name: str) -> None:
    """Lightning keeps a metric's or a second head's tensors beside those of the model."""
    model = fresh(name)
    names = [*(f"net.{name}" for name in model.state_dict()), "loss.weight", "classifier.weight"]
    assert wrapper(model.config.to_dict(), names) == "net."


def test_a_prefix_that_other_models_have(saved: Saved) -> None:
    """`model.` belongs to BART's own names, and not to BERT's; nor twice to BART's."""
    for name, prefix in (("bert", "model."), ("bart", "model."), ("bert", "bert."), ("gpt2", "transformer.")):
        folder = saved(name)
        names = [f"{prefix}{tensor}" for tensor in load_file(folder / "model.safetensors")]
        assert wrapper(fresh(name).config.to_dict(), names) == prefix


def test_a_type_without_classes_of_its_own() -> None:
    """GPT-SW3 is loaded as GPT-2: what no class of any type has is a wrapper's."""
    names = list(fresh("gpt2").state_dict())
    config = {**config_of("gpt2").to_dict(), "model_type": "gpt-sw3"}
    assert wrapper(config, names) == ""
    assert wrapper(config, [f"module.{name}" for name in names]) == "module."


def test_inspect_plan_and_patch_say_so(saved: Saved, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "config.json").write_bytes((saved("bert") / "config.json").read_bytes())
    values = {f"_orig_mod.{name}": value for name, value in load_file(saved("bert") / "model.safetensors").items()}
    save_file(values, source / "model.safetensors", {"format": "pt"})
    before = (source / "model.safetensors").read_bytes()
    said = rf"{len(values)} of {len(values)} tensor names begin with `_orig_mod\.`.* rename its tensors without"
    for command in (
        lambda: hf_bias_patch.inspect(source),
        lambda: hf_bias_patch.plan(source, fold="key"),
        lambda: hf_bias_patch.patch(source, out, fold="key"),
        lambda: hf_bias_patch.patch_in_place(source, fold="key"),
    ):
        with pytest.raises(CheckpointError, match=said):
            command()
    assert not out.exists() and (source / "model.safetensors").read_bytes() == before


def test_the_name_of_another_type_is_no_wrapper() -> None:
    config = {"model_type": "bert", "num_hidden_layers": 1, "num_attention_heads": 4}
    names = [f"roberta.encoder.layer.0.attention.self.{name}.weight" for name in ("query", "key", "value")]
    with pytest.raises(CheckpointError, match=r"A roberta model names its tensors so, and config\.json says bert"):
        refuse_wrapped(config, names)
