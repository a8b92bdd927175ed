"""Quantised formats are known by their tensors, whatever config.json says, and what it says is held against them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from hf_bias_patch.checkpoint.quantised import quantised


@dataclass(frozen=True)
class Info:
    """What a header says of a tensor."""

    dtype: str


PLAIN = {"a.weight": Info("F32"), "a.bias": Info("F16"), "norm.weight": Info("BF16"), "position_ids": Info("I64")}

FORMATS: dict[str, dict[str, str]] = {
    "compressed-tensors": {"weight_packed": "I32", "weight_scale": "BF16", "weight_shape": "I64"},
    "GPTQ": {"qweight": "I32", "qzeros": "I32", "scales": "F16", "g_idx": "I32"},
    "GPTQ or AWQ": {"qweight": "I32", "qzeros": "I32", "scales": "F16"},
    "bitsandbytes": {"weight": "I8", "SCB": "F32"},
    "bitsandbytes 4": {"weight": "U8", "weight.absmax": "U8", "weight.quant_state.bitsandbytes__nf4": "U8"},
    "fp8": {"weight": "F8_E4M3", "weight_scale_inv": "F32"},
    "fp8 or int8": {"weight": "F8_E4M3", "weight_scale": "F32", "input_scale": "F32"},
    "ModelOpt": {"weight": "U8", "weight_scale": "F8_E4M3", "weight_scale_2": "F32"},
    "HQQ": {"W_q": "U8", "scale": "F16", "zero": "F16"},
    "EETQ": {"weight": "I8", "weight_scales": "F16"},
    "quanto": {"weight._data": "I8", "weight._scale": "F32"},
    "AQLM": {"codes": "I8", "codebooks": "F16", "scales": "F16"},
    "HIGGS": {"weight": "I16", "scales": "F16", "tables2": "F16"},
    "MXFP4": {"experts.gate_up_proj_blocks": "U8", "experts.gate_up_proj_scales": "U8"},
    "stored as F4": {"weight": "F4"},
}


@pytest.mark.parametrize("method", FORMATS)
def test_a_format_is_known_by_its_tensors(method: str) -> None:
    tensors = PLAIN | {f"b.{ending}": Info(dtype) for ending, dtype in FORMATS[method].items()}
    found = quantised({}, tensors)
    assert found is not None and found.method == method.removesuffix(" 4") and not found.leftover and not found.key
    assert found.example.startswith("b.") and f"{found.count} tensors are quantised" in found.what
    named = quantised({"quantization_config": {"quant_method": "its-name"}}, tensors)
    assert named is not None and named.method == "its-name" and named.count == found.count


@pytest.mark.parametrize(
    ("config", "key", "method"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config", "gptq"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantization_config", "bitsandbytes"),
        ({"quantization_config": {"bits": 4}}, "quantization_config", "no method named"),
        ({"quantization_config": "a text"}, "quantization_config", "no method named"),
        ({"compression_config": {"quant_method": "x"}}, "compression_config", "x"),
        ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, "text_config.quantization_config", "fp8"),
    ],
    ids=str,
)
def test_what_config_says_of_plain_weights_is_a_leftover(config: dict[str, Any], key: str, method: str) -> None:
    found = quantised(config, PLAIN)
    assert found is not None and found.leftover and (found.key, found.method) == (key, method)
    assert key in found.what and "they are not" in found.what


@pytest.mark.parametrize("config", [{}, {"quantization_config": None}, {"quantization_config": {}}], ids=str)
def test_plain_weights_are_none(config: dict[str, Any]) -> None:
    assert quantised(config, PLAIN) is None
