"""Model types that the tests of families leave out."""

from __future__ import annotations

from hf_bias_patch.family_check.reasons import reasons

__all__ = ["SLOW", "UNBUILT"]

UNBUILT = {name for reason in reasons("unchecked") for name in reason.model_types}
"""Types of which no small random model, or no input for it, can be made."""

SLOW = {
    "chameleon", "chmv2", "conditional_detr", "dac", "deimv2", "donut-swin", "emu3", "fastspeech2_conformer",
    "florence2", "florence_vision", "funnel", "glm5_next", "glm5_next_text", "grounding-dino", "groupvit", "janus",
    "janus_vqgan", "mask2former", "maskformer", "maskformer-swin", "mgp-str", "mobilevit", "nemo_speechlm",
    "neucodec", "omdet-turbo", "oneformer", "pe_audio", "pe_audio_encoder", "pegasus_x",
    "pocket_tts_audio_tokenizer", "pp_doclayout_v4", "pp_lcnet_v3", "qwen2_5_vl", "qwen3_5", "qwen3_5_moe",
    "sam_hq", "seamless_m4t", "speecht5_hifigan", "superglue", "swin2sr", "switch_transformers", "t5gemma2_decoder",
    "t5gemma2_encoder", "table-transformer", "time_series_transformer", "tipsv2", "ultravbert", "umt5",
    "uvdoc_backbone", "vibevoice_acoustic_tokenizer", "video_llama_3", "videoprism", "videoprism_vision_model",
    "vipllava", "vision-encoder-decoder", "vits", "vjepa2", "voxtral_encoder", "whisper", "xclip", "xcodec2",
}  # fmt: skip
"""Types whose small models still take long; `make sweep` has them."""
