"""Which implementations of attention and of experts a probe can follow, step by step and in float64."""

from __future__ import annotations

__all__ = ["EXPERTS", "attention_of"]

EXPERTS = "eager"
"""The fused ones know no float64."""

_NO_EAGER: dict[str, str | dict[str, str]] = {
    "nemotron3_5_asr": {"": "eager", "encoder_config": "sdpa"},
    "nemotron_asr_streaming": {"": "eager", "encoder_config": "sdpa"},
    "nemotron_asr_streaming_encoder": "sdpa",
    "qwen2_5_omni_dit": "sdpa",
}
"""Types without an eager attention, or whose eager attention gives nothing but NaN (transformers 5.23 inverts a mask of
floats there as if of booleans)."""


def attention_of(model_type: object) -> str | dict[str, str]:
    """What `attn_implementation` to load a model with; whether that is a model type is found out by who loads it."""
    return _NO_EAGER.get(model_type, "eager") if isinstance(model_type, str) else "eager"
