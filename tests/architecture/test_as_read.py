"""A config is read as transformers reads it: other names of keys, what it leaves out, the configs inside it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import hf_bias_patch
from hf_bias_patch.architecture.as_read import as_read
from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.stock import entry
from scripts.config_keys import keys_asked
from tests.models import fresh, randomise

TABLE = "stock_configs"
OTHER = {"hrm_text"}
"""Its class counts layers by two keys, and takes each for the other's default."""


def named() -> list[str]:
    return sorted(transformers.models.auto.configuration_auto.CONFIG_MAPPING.keys())


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(transformers.utils.logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    transformers.utils.logging.set_verbosity(level)


def odd(model_type: str) -> Iterator[dict[str, Any]]:
    """Configs that leave out all; all but counts, under either name; and parts that leave out all, or are null."""
    facts = entry(TABLE, model_type)
    counts = {key for key, value in facts.get("defaults", {}).items() if type(value) is int}
    yield {}
    yield dict.fromkeys(counts, 8)
    yield {name: 4 for name, key in facts.get("names", {}).items() if key in counts}
    own = transformers.models.auto.configuration_auto.CONFIG_MAPPING[model_type].__dataclass_fields__
    yield dict.fromkeys(facts.get("follows", {}).keys() & own)
    if parts := facts.get("parts", {}):
        yield {key: {"model_type": part["type"]} for key, part in parts.items() if "type" in part}
        elsewhere = {part.get("over") or part.get("other"): {"num_attention_heads": 4} for part in parts.values()}
        yield {key: value for key, value in elsewhere.items() if key}
        if any(part.get("flat") for part in parts.values()):
            yield {"num_attention_heads": 4, "num_hidden_layers": 3}


def differences(config: Any, read: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Where a reading says something else than the config class. Of what it says nothing, nothing is promised."""
    for key in keys_asked() & read.keys():
        try:
            stock = getattr(config, key)
        except Exception:
            continue
        if read[key] != (list(stock) if isinstance(stock, tuple) else stock):
            yield f"{path}{key}: {read[key]!r} and not {stock!r}"
    for key in type(config).sub_configs_defaults:
        inner, part = getattr(config, key, None), read.get(key)
        if hasattr(inner, "model_type") and isinstance(part, Mapping):
            if part["model_type"] != inner.model_type:
                yield f"{path}{key}: {part['model_type']!r} and not {inner.model_type!r}"
            else:
                yield from differences(inner, part, f"{path}{key}.")


def test_every_type_against_its_config_class() -> None:
    found, compared, failed = {}, 0, 0
    for model_type in named():
        for values in odd(model_type):
            try:
                config = transformers.models.auto.configuration_auto.CONFIG_MAPPING[model_type].from_dict(dict(values))
            except Exception:  # counts that do not go together
                failed += 1
                continue
            compared += 1
            wrong = list(differences(config, as_read({"model_type": model_type, **values})))
            if wrong and model_type not in OTHER:
                found[model_type, json.dumps(values)] = wrong
    assert not found
    assert compared > 1500 and failed < compared / 10, "vacuous"


def heads_of(config: dict[str, Any], model: Any) -> dict[str, int]:
    tensors = {name: Tensor(tuple(value.shape)) for name, value in model.named_parameters()}
    return {site.name: site.heads for site in find_sites(config, tensors)}


class Tensor:
    dtype = "F32"

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape


def saved_as(folder: Path, model: Any, config: dict[str, Any]) -> Path:
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config, indent=3))
    return folder


def test_the_names_of_published_bloom_configs(tmp_path: Path) -> None:
    config = transformers.BloomConfig(vocab_size=60, hidden_size=32, n_layer=2, n_head=4)
    written = {"model_type": "bloom", "vocab_size": 60, "n_embed": 32, "n_layer": 2, "num_attention_heads": 4}
    source = saved_as(tmp_path / "source", randomise(transformers.BloomForCausalLM(config)), written)
    assert [site.heads for site in hf_bias_patch.inspect(source).sites] == [4, 4]
    variant = hf_bias_patch.patch(source, tmp_path / "out", fold="key,value").path
    after = json.loads((variant / "config.json").read_text())
    assert after.pop("bias_patch") and after == written, "nothing that was read is written"
    assert hf_bias_patch.verify(variant, source, attention=("eager",)).passed


@pytest.mark.parametrize("key", ["n_head", "num_attention_heads"])
def test_either_name_of_a_key(key: str) -> None:
    model = fresh("gpt2")
    config = {name: value for name, value in model.config.to_dict().items() if name != "n_head"}
    assert set(heads_of({**config, key: 4}, model).values()) == {4}


@pytest.fixture(scope="module")
def llava() -> Any:
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(
            vocab_size=60, hidden_size=64, intermediate_size=40, num_hidden_layers=2, attention_bias=True
        ),
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=64,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=16,
            image_size=28,
            patch_size=14,
        ),
        image_token_index=59,
    )
    with torch.device("meta"):
        return transformers.LlavaForConditionalGeneration(config)


def test_a_part_that_leaves_out_what_its_class_has(llava: Any) -> None:
    written = llava.config.to_dict()
    written["text_config"] = {"model_type": "llama", "hidden_size": 64, "attention_bias": True, "num_hidden_layers": 2}
    assert heads_of(written, llava)["text.0.self"] == 32


def test_a_part_that_is_not_there(llava: Any) -> None:
    """LLaVA's own defaults of it are another vision tower than CLIP's."""
    for text in ({}, {"vision_config": None}):
        written = {key: value for key, value in llava.config.to_dict().items() if key != "vision_config"} | text
        assert heads_of(written, llava)["vision.2.self"] == 16


def test_a_message_names_the_model_type(llava: Any) -> None:
    written = llava.config.to_dict()
    written["text_config"] |= {"num_attention_heads": "many"}
    with pytest.raises(hf_bias_patch.errors.CheckpointError, match="A model of type llama cannot be read without it"):
        heads_of(written, llava)


def test_a_source_keeps_its_bytes(tmp_path: Path) -> None:
    """What is read is read in memory."""
    source = saved_as(
        tmp_path / "source", fresh("gpt2"), {"model_type": "gpt2", "num_attention_heads": 4, "n_layer": 3}
    )
    before = (source / "config.json").read_bytes()
    hf_bias_patch.inspect(source)
    hf_bias_patch.patch_in_place(source, fold="key")
    after = json.loads((source / "config.json").read_text())
    assert {key: value for key, value in after.items() if key != "bias_patch"} == json.loads(before)
