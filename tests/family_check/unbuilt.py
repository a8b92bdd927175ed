"""Model types that the tests of families leave out."""

from __future__ import annotations

__all__ = ["SLOW", "UNBUILT"]

UNBUILT = {
    "blt", "blt_local_decoder", "blt_local_encoder", "clvp", "colqwen2", "efficientloftr", "esmfold2",
    "gemma4_assistant", "gemma4_unified", "gemma4_unified_assistant", "glm_image", "granite4_vision",
    "granite_speech", "granite_speech_plus", "jev", "moshi_depth", "muse_glimmer_assistant", "nemotron_h_omni",
    "neomme", "pp_lcnet_v4", "pp_ocrv5_mobile_det", "pp_ocrv5_server_det", "pp_ocrv6_medium_det",
    "pp_ocrv6_small_det", "qwen2_5_omni_bigvgan", "qwen2_5_omni_token2wav", "qwen3_omni_moe_talker_code_predictor",
    "qwen3_omni_moe_talker_text",
}  # fmt: skip
"""Types of which no small random model, or no input for it, can be made yet."""

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
