"""Counts of modules that no file has tensors for are refused before a model is made; those of real configs are not."""

from __future__ import annotations

import json
from typing import Any

import pytest
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hf_bias_patch.architecture.refusals import refuse_countless
from hf_bias_patch.errors import CheckpointError

NAMES = [f"t{number}" for number in range(75)]
HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"num_hidden_layers": 2**31}, "num_hidden_layers"),
    ({"n_layer": 10**300}, "n_layer"),
    ({"encoder_layers": 1e999}, "encoder_layers"),
    ({"depths": [2, 2, 2**40]}, "depths"),
    ({"num_local_experts": 10**9}, "num_local_experts"),
    ({"text_config": {"num_hidden_layers": 2**31}}, "text_config.num_hidden_layers"),
    ({"a": {"b": {"num_blocks": 2**31}}}, "a.b.num_blocks"),
]


@pytest.mark.parametrize(("config", "key"), HOSTILE, ids=lambda part: part if isinstance(part, str) else "")
def test_a_count_beyond_the_file_is_named(config: dict[str, Any], key: str) -> None:
    with pytest.raises(CheckpointError, match=rf"`{key}` is .*75 tensors"):
        refuse_countless(config, NAMES)


def test_sizes_and_vocabularies_are_no_counts_of_modules() -> None:
    refuse_countless({"vocab_size": 250_000, "hidden_size": 12_288, "max_position_embeddings": 10**6}, NAMES)
    refuse_countless({"num_hidden_layers": "many", "depths": None, "layer_norm_eps": 1e-12, "layers": [None]}, NAMES)


def test_the_default_configs_of_transformers_pass() -> None:
    """With as few tensors as a model could have."""
    for model_type in ("bert", "gpt2", "bart", "qwen2", "swin", "llava", "deepseek_v3", "gpt_oss", "wav2vec2", "opt"):
        config = CONFIG_MAPPING[model_type]()
        assert isinstance(config, transformers.PreTrainedConfig)
        refuse_countless(json.loads(config.to_json_string(use_diff=False)), NAMES)
