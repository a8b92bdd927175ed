"""Model types of which no small model can be built, and why."""

from __future__ import annotations

__all__ = ["CANNOT"]

_PARTS = (
    "apertus1p5_vision_tokenizer",
    "chameleon_vqgan",
    "emu3_vqgan",
    "edgetam_mask_decoder",
    "edgetam_prompt_encoder",
    "edgetam_video_mask_decoder",
    "edgetam_video_prompt_encoder",
    "ernie4_5_vl_moe_vision",
    "gemma4_unified_audio",
    "gemma4_unified_vision",
    "idefics_perciever",
    "idefics_vision",
    "pp_chart2table_vision",
    "qwen2_vl_vision",
    "sam2_mask_decoder",
    "sam2_prompt_encoder",
    "sam2_video_mask_decoder",
    "sam2_video_prompt_encoder",
    "sam3_geometry_encoder",
    "sam3_lite_text_geometry_encoder",
    "sam3_tracker_mask_decoder",
    "sam3_tracker_prompt_encoder",
    "sam3_tracker_video_mask_decoder",
    "sam3_tracker_video_prompt_encoder",
    "sam_hq_mask_decoder",
    "sam_hq_prompt_encoder",
    "sam_mask_decoder",
    "sam_prompt_encoder",
    "sapiens2_head",
    "t5_gemma_module",
    "vibevoice_diffusion",
)
_TIMM = (
    "timm_backbone",
    "timm_wrapper",
    "edgetam",
    "edgetam_vision_model",
    "fast_vlm",
    "gemma3n",
    "gemma3n_vision",
    "perception_lm",
    "pe_audio_video",
    "pe_audio_video_encoder",
    "pe_video",
    "pe_video_encoder",
)
_SESSION = (
    "edgetam_video",
    "sam2_video",
    "sam3_tracker_video",
    "sam3_video",
)
_SCIPY = (
    "eomt",
    "eomt_dinov3",
    "videomt",
    "inkling_mm_model",
    "inkling_vision",
)

CANNOT: dict[str, str] = {
    **dict.fromkeys(_PARTS, "It is a part of another model and has no class of its own"),
    **dict.fromkeys(_TIMM, "It needs the package timm"),
    **dict.fromkeys(_SCIPY, "It needs the package scipy"),
    "dinat": "It needs the package natten",
    "layoutlmv2": "It needs the package detectron2",
    "layoutxlm": "It needs the package detectron2",
    "bark": "Its class only generates",
    "glm_image_vqmodel": "Its class has no forward method",
    "nougat": "Its config class names a type that does not exist; it is a vision-encoder-decoder",
    "pp_chart2table": "Its config class belongs to no model class; it is a got_ocr2",
    **dict.fromkeys(_SESSION, "It runs on a video session instead of tensors"),
    "higgs_audio_v2_tokenizer": "It needs the package torchaudio",
    "qwen2_5_omni": "Its class only generates; see qwen2_5_omni_thinker and the other parts",
    "qwen3_omni_moe": "Its class only generates; see qwen3_omni_moe_thinker and the qwen3_omni_moe_talker parts",
}
"""Types left out, with the reason."""
