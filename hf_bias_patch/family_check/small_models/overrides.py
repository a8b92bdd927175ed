"""What the general rules cannot know, by model type."""

from __future__ import annotations

from typing import Any

__all__ = ["CLASSES", "FIELDS"]

_SERIES = {"prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2, 3], "num_time_features": 2}
_INTRA = {
    "reduce_channel": [1, 1, 0],
    "return_channel": [1, 1, 0],
    "vertical_long_to_small_conv_longratio": [[7, 1], [1, 1], [3, 0]],
    "vertical_long_to_small_conv_midratio": [[5, 1], [1, 1], [2, 0]],
    "vertical_long_to_small_conv_shortratio": [[3, 1], [1, 1], [1, 0]],
    "horizontal_small_to_long_conv_longratio": [[1, 7], [1, 1], [0, 3]],
    "horizontal_small_to_long_conv_midratio": [[1, 5], [1, 1], [0, 2]],
    "horizontal_small_to_long_conv_shortratio": [[1, 3], [1, 1], [0, 1]],
    "symmetric_conv_long_longratio": [[7, 7], [1, 1], [3, 3]],
    "symmetric_conv_long_midratio": [[5, 5], [1, 1], [2, 2]],
    "symmetric_conv_long_shortratio": [[3, 3], [1, 1], [1, 1]],
}
_EXPERTS = {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 96}
_SHARED_CACHE = {
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
}
_GLOBAL = {"global_head_dim": 32}
_ROUTED = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
_ZAMBA = {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"]}

_EFFICIENT = {"width_coefficient": 0.05, "depth_coefficient": 0.3}
_WINDOWS = {"backbone_config": {"window_size": 4}}
_PINPOINTS = {"image_grid_pinpoints": [[32, 64], [64, 32]]}
_HGNET = {
    "stem_channels": [3, 16, 16],
    "stage_in_channels": [16, 16, 32, 64],
    "stage_mid_channels": [16, 16, 16, 16],
    "stage_out_channels": [16, 32, 64, 128],
    "hidden_sizes": [16, 32, 64, 128],
    "stage_numb_of_layers": [2, 2, 2, 2],
    "stage_num_blocks": [1, 1, 1, 1],
}
_IMAGE = {"image_token_id": 119}
_MERGED = {"insert_layer_id": 0}
"""Where patches are merged: behind the first layer."""
_STARTS = {
    "vision_start_token_id": 110,
    "vision_end_token_id": 111,
    "audio_start_token_id": 112,
    "audio_end_token_id": 113,
}
_IMAGES = {"image_token_index": 119}


def _rope(sections: list[int]) -> dict[str, Any]:
    """Rotary positions of time, height and width, with so many frequencies each."""
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections}}


FIELDS: dict[str, dict[str, Any]] = {
    "align": {"projection_dim": 16},
    "align_vision_model": _EFFICIENT,
    "apertus1p5": {
        "text_config": {"vocab_size": 256},
        "vision_config": {
            "codebook_size": 64,
            "channel_multiplier": [1, 2],
            "attn_resolutions": [16],
            "resolution": 32,
        },
        "audio_config": {"codebook_size": 64},
        "image_token_id": 119,
        "audio_token_id": 118,
        "image_token_offset": 120,
        "audio_token_offset": 184,
    },
    "aria": {"projector_patch_to_query_dict": {16: 4}},
    "autoformer": _SERIES | {"moving_average": 3, "label_length": 2},
    "bamba": {"attn_layer_indices": [1]},
    "bit": {"num_groups": 8},
    "blt": {
        "decoder_config": {"hidden_size_global": 56},
        "encoder_config": {"hidden_size": 64},
        "patching_threshold": 4.1,
    },
    "blt_local_decoder": {"hidden_size_global": 64},
    "blip-2": _IMAGES,
    "chameleon": {
        "vocabulary_map": {"<image>": 119}
        | {f"IMGIMG{chr(65 + i // 10)}{chr(65 + i % 10)}Z": 20 + i for i in range(64)},
        "vq_config": {"num_embeddings": 64},
    },
    "clap_audio_model": {"num_mel_bins": 32, "spec_size": 64, "patch_embeds_hidden_size": 16, "hidden_size": 128},
    "clipseg": {"extract_layers": [0, 1]},
    "clvp_decoder": {"decoder_fixing_codes": [83, 45, 45, 28]},
    "clvp_encoder": {"hidden_size": 128},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0} for kind in ("sliding_attention", "full_attention")
        },
    },
    "cosmos3_edge_text": _rope([4, 2, 2]),
    "cvt": {"depth": [1, 2, 3]},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_ocr2_sam_vision_model": {"downsample_channels": [64, 64]},
    "deepseek_ocr2_text": {"mlp_layer_types": ["dense", "sparse"]},
    "deepseek_v4": {"compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 5}},
    "depth_pro": {"patch_size": 32, "intermediate_hook_ids": [1, 0]},
    "detr": {"backbone_config": {"model_type": "resnet", "out_features": ["stage4"]}},
    "diffusion_gemma_text": _EXPERTS | _GLOBAL,
    "donut-swin": {"image_size": [64, 64]},
    "dots1": _ROUTED,
    "dots3_note_text": {
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4,
        "swa_q_lora_rank": 32,
        "swa_kv_lora_rank": 32,
        "swa_head_dim": 24,
        "swa_qk_nope_head_dim": 16,
        "swa_v_head_dim": 16,
    },
    "dots3_note_vision_encoder": {"mlp_layer_types": ["dense", "sparse"], "num_local_experts": 4},
    "efficientloftr": {"out_features": [16, 16, 32, 64], "num_attention_heads": 8},
    "efficientnet": _EFFICIENT,
    "emu3": {
        "vocabulary_map": {"<image>": 119, "<|extra_200|>": 118}
        | {f"<|visual token {i:06}|>": 20 + i for i in range(64)},
        "vq_config": {"codebook_size": 64, "base_channels": 32, "channel_multiplier": [1, 2, 2, 2]},
    },
    "ernie4_5_vl_moe_text": _rope([3, 3, 2]),
    "esm": {"vocab_size": 128, "pad_token_id": 1, "mask_token_id": 4},
    "fastspeech2_conformer_with_hifigan": {
        "vocoder_config": {"model_in_dim": 16, "upsample_rates": [2, 2], "upsample_kernel_sizes": [4, 4]}
    },
    "fun_asr_nano": {"adaptor_config": {"intermediate_size": 16}},
    "gemma3n_text": _SHARED_CACHE,
    "gemma4_assistant": {
        "text_config": _SHARED_CACHE
        | {"num_kv_shared_layers": 4, "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
    },
    "gemma4_text": _GLOBAL,
    "gemma4_unified_assistant": {"text_config": _SHARED_CACHE},
    "gemma4_unified_text": _GLOBAL,
    "glm5_next_text": {"index_kpool": 2},
    "glmasr_encoder": {"intermediate_size": 256},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granite_speech": {"window_size": 15},
    "granite_speech_plus": {"window_size": 15},
    "grounding-dino": _WINDOWS,
    "moshi_depth": {"input_size": 64},
    "muse_glimmer": {"out_hidden_size": 256},
    "muse_spark": {"out_hidden_size": 256},
    "musicflamingo": {"audio_config": {"max_source_positions": 32}},
    "neucodec": {"quantization_dim": 128},
    "omdet-turbo": {
        "encoder_in_channels": [128, 256, 512],
        "vision_features_channels": [64, 64, 64],
        "text_config": {"hidden_size": 48},
        "text_projection_in_dim": 48,
        "text_projection_out_dim": 48,
        "class_embed_dim": 48,
        "apply_layernorm_after_vision_backbone": False,
    }
    | _WINDOWS,
    "granite4_vision": {
        "vision_config": {"hidden_size": 64, "num_attention_heads": 4},
        "downsample_rate": "1/2",
        "deepstack_layer_map": [[-2, 0], [-1, 1]],
        "spatial_target_layers": [0, 1],
    },
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "hgnet_v2": _HGNET,
    "hiera": {"image_size": [64, 64]},
    "hy_v4_vl_text": _rope([2, 1, 1]),
    "informer": _SERIES,
    "inkling2_loop_text": {
        "n_layers_per_attn_res_block": 2,
        "loop_layer_index_start": 2,
        "loop_layer_index_end": 4,
        "loop_num_passes": 2,
    },
    "instructblip": _IMAGES,
    "instructblipvideo": {"video_token_index": 119},
    "janus_vqgan": {"num_patches": 4},
    "kosmos-2": {"latent_query_num": 5},
    "kosmos-2.5": {"latent_query_num": 5},
    "layoutlmv3": {"input_size": 32, "coordinate_size": 8, "shape_size": 16},
    "lfm2": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
    "lilt": {"hidden_size": 96},
    "llama4": {
        "vision_config": {
            "intermediate_size": 192,
            "projector_input_dim": 192,
            "projector_output_dim": 192,
            "vision_output_dim": 192,
        }
    },
    "llama4_vision_model": {"intermediate_size": 256},
    "llava_next": _PINPOINTS,
    "llava_next_video": _PINPOINTS,
    "llava_onevision": _PINPOINTS,
    "longcat_flash": {"head_dim": 8},
    "lw_detr": {"projector_scale_factors": [1.0], "backbone_config": {"window_block_indices": [0, 1]}},
    "lw_detr_vit": {"num_windows": 4, "image_size": 64},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "mask2former": _WINDOWS,
    "maskformer": _WINDOWS,
    "maskformer-swin": {"image_size": 64, "window_size": 4},
    "minicpm_ocr": _IMAGE | _MERGED | {"downsample_mode": "16x"},
    "minicpm_ocr_vision": _MERGED,
    "minicpmv4_6": _IMAGE | _MERGED,
    "minicpmv4_6_vision": _MERGED,
    "minicpmv4_7": _IMAGE | _MERGED,
    "minicpmv4_7_vision": _MERGED,
    "mllama_text_model": {"cross_attention_layers": [1]},
    "mllama_vision_model": {"intermediate_layers_indices": [0, 1], "vision_output_dim": 192},
    "mm-grounding-dino": _WINDOWS,
    "mobilevit": {"image_size": 128},
    "molmo2": {"adapter_config": {"vision_feature_layer": [-1, -2]}},
    "molmo2_vision": {"image_size": [32, 32]},
    "moonshine_streaming": {"num_key_value_heads": 4},
    "muse_spark_audio": {"num_hidden_layers": 4},
    "neomme": {"head_dim": 32},
    "nemotron_h": {"n_groups": 2, "mamba_num_heads": 8, "mamba_head_dim": 16},
    "nemotron_h_omni": {
        "vision_hidden_size": 48,
        "audio_config": {"projection_hidden_size": 96, "projection_bias": False},
    },
    "oneformer": {"mask_dim": 64, "conv_dim": 64} | _WINDOWS,
    "paddleocr_vl_text": _rope([4, 2, 2]),
    "patchtsmixer": {"self_attn": True},
    "phi4_multimodal_audio": {"ext_pw_out_channel": 64, "depthwise_separable_out_channel": 64},
    "pix2struct_text_model": {"initializer_range": 0.02},
    "pp_doclayout_v2": {
        "class_thresholds": [0.5] * 25,
        "class_order": list(range(25)),
        "reading_order_config": {"max_2d_position_embeddings": 1024},
    },
    "pp_doclayout_v3": {"x4_feat_dim": 16},
    "pp_ocrv5_server_det": {"intraclass_block_config": _INTRA},
    "pp_ocrv6_medium_det": {"intraclass_block_config": _INTRA},
    "pvt": {"num_encoder_blocks": 4, "image_size": 64},
    "pvt_v2": {"sr_ratios": [2, 1, 1, 1]},
    "qwen2_5_omni_thinker": _STARTS,
    "qwen2_audio": {"audio_config": {"max_source_positions": 32}},
    "qwen3_omni_moe_talker_text": {"shared_expert_intermediate_size": 96},
    "qwen3_omni_moe_thinker": _STARTS,
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    "rag": {"n_docs": 2},
    "rf_detr": {"backbone_config": {"model_type": "rf_detr_dinov2"}},
    "sam2": {"prompt_encoder_config": {"image_size": 64, "patch_size": 16}},
    "sam2_hiera_det_model": {
        "image_size": [64, 64],
        "hidden_size": 16,
        "num_attention_heads": 1,
        "embed_dim_per_stage": [16, 32, 64, 128],
        "blocks_per_stage": [1, 2, 2, 2],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [8, 4, 4, 2],
        "global_attention_blocks": [4],
        "window_positional_embedding_background_size": [4, 4],
    },
    "sam2_vision_model": {
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    },
    "sam3_tracker": {
        "vision_config": {"backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]},
        "prompt_encoder_config": {"image_size": 64, "patch_size": 16},
    },
    "seggpt": {"image_size": [64, 32]},
    "shieldgemma2": {"yes_token_index": 21, "no_token_index": 22},
    "step3p5": {"sliding_window": 8},
    "superpoint": {"keypoint_decoder_dim": 65},
    "swin": {"image_size": 64},
    "swinv2": {"image_size": 64},
    "t5gemma2_decoder": {"dropout_rate": 0.0},
    "t5gemma2_text": {"dropout_rate": 0.0},
    "textnet": {"hidden_sizes": [16, 16, 16, 32, 32], "stem_out_channels": 16},
    "time_series_transformer": _SERIES,
    "tvp": {"visual_prompt_size": 8, "max_img_size": 64},
    "unlimited_ocr_vision_encoder": {"hidden_size": 32},
    "vibevoice_asr": {"acoustic_tokenizer_chunk_size": 3200},
    "vipllava": {"vision_feature_layers": [-1, -2]},
    "vitmatte": {
        "backbone_config": {"num_channels": 4, "patch_size": 16},
        "convstream_hidden_sizes": [16, 16, 16],
        "fusion_hidden_sizes": [32, 16, 16, 16],
    },
    "voxtral": {"audio_token_id": 118, "audio_config": {"max_source_positions": 32}},
    "voxtral_encoder": {"intermediate_size": 256},
    "wavtokenizer": {"decoder_attention_num_groups": 8},
    "wavtokenizer_encoder": {"decoder_attention_num_groups": 8},
    "xcodec2": {"quantization_dim": 128},
    "xmod": {"default_language": "en_XX"},
    "zamba": _ZAMBA,
    "zamba2": _ZAMBA,
}
"""Config values by type, over the rules' values; nested for sub-configs."""

CLASSES: dict[str, str] = {
    "csm": "CsmBackboneModel",
    "d_fine": "DFineModel",
    "kyutai_speech_to_text": "KyutaiSpeechToTextModel",
    "lw_detr_vit": "LwDetrViTBackbone",
    "visual_bert": "VisualBertModel",
}
"""The class with all towers, where the rule does not find it."""
