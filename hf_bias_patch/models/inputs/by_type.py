"""The arguments of forward methods that only one type, or a few, ask for, by model type and name."""

from __future__ import annotations

import torch

from hf_bias_patch.models.inputs.values import (
    Maker,
    clip_of_sound,
    ended_text,
    fixed,
    flattened,
    ids,
    listened_text,
    longer,
    marked,
    normal,
    nothing,
    one_audio,
    ones,
    phrases,
    pi0_text,
    pictured_text,
    positions,
    text_around,
    zeros,
)
from hf_bias_patch.models.inputs.wanted import BATCH

__all__ = ["INPUTS", "OTHERS"]

_MEMORY = ("encoder_hidden_size", "cross_attention_hidden_size", "cross_hidden_size", "hidden_size")
"""Which field says how wide the states are that cross-attention reads: the first there is."""
_SERIES = {
    "past_values": normal(2, 11),
    "past_time_features": normal(2, 11, 2),
    "past_observed_mask": ones(2, 11),
    "future_values": normal(2, 4),
    "future_time_features": normal(2, 4, 2),
}
_POINTS = {
    "input_points": lambda want: want.integers(2, 30, 2, 1, 2, 2).double(),
    "input_labels": fixed([[[1, 0]], [[1, 1]]]),
}
_SPECTROGRAM = {"spectrogram": lambda want: want.normal(2, 7, want.config.model_in_dim)}
_CODES = {"decoder_input_ids": ids(6, 7), "attention_mask": lambda want: ones(2, 11)(want)}
_PATCHES = {"pixel_values": normal(2, 36, 192)}
_DETR_DECODER = {
    "vision_features": normal(2, 16, 64),
    "vision_pos_encoding": normal(2, 16, 64),
    "text_features": normal(2, 5, 64),
    "spatial_shapes": fixed([[4, 4]]),
    "hidden_states": nothing,
}
_STACKED = {"input_features": lambda want: want.normal(2, 12, 112), "input_features_mask": ones(2, 12)}
_MEL = {
    "input_features": normal(2, 64, 64),
    "input_features_mask": ones(2, 64, dtype=torch.bool),
    "attention_mask": ones(2, 64, dtype=torch.bool),
}
_SPEECH = {"input_ids": nothing, "input_features": normal(2, 12, 64), "attention_mask": ones(2, 12)}
_TARGETS = {"pixel_values": normal(1, 3, 8, 256), "target_sizes": fixed([[4, 4], [4, 4]])}
_DETR_ENCODER = {
    "vision_features": lambda want: [want.normal(2, 64, 4, 4)],
    "vision_pos_embeds": lambda want: [want.normal(2, 64, 4, 4)],
    "text_features": normal(2, 5, 64),
}
_AUDIO = {"input_features": normal(2, 64, 64), "input_features_mask": ones(2, 64, dtype=torch.bool)}
_LENGTHS = {"input_features": normal(16, 128), "feature_lens": fixed([64, 64])}
_BOXES = {"bbox": lambda want: want.integers(0, 20, 2, 11, 4).double().sort(-1).values / 20}
_ACROSS = {"encoder_hidden_states": lambda want: want.normal(2, 9, want.look(*_MEMORY))}

_TILES = {"pixel_values": normal(8, 16, 16, 3), "image_grid_thw": fixed([[1, 2, 2], [1, 2, 2]])}
_MASKS = {
    "decoder_queries": normal(2, 5, 64),
    "backbone_features": lambda want: [want.normal(2, 64, side, side) for side in (16, 8, 4)],
    "encoder_hidden_states": normal(2, 16, 64),
    "prompt_features": normal(2, 6, 64),
}

INPUTS: dict[str, dict[str, Maker]] = {
    "autoformer": _SERIES,
    "blip": {"labels": ids(2, 7)},
    "blip-2": {"decoder_input_ids": nothing},
    "blip_2_qformer": {"query_embeds": normal(2, 6, 64)} | _ACROSS,
    "clap": {"input_features": clip_of_sound, "is_longer": longer},
    "blt_local_decoder": {
        "input_ids": nothing,
        "attention_mask": nothing,
        "inputs_embeds": normal(2, 11, 64),
        "patch_embeds": normal(2, 4, 64),
    },
    "blt_local_encoder": {
        "attention_mask": nothing,
        "num_patches": lambda want: 4,
        "patch_ids": fixed([[0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3]] * 2),
    },
    "colqwen2": {"pixel_values": normal(2, 32, 384), "input_ids": pictured_text},
    "csm": {
        "input_ids": lambda want: want.integers(2, 95, 2, 9, want.config.num_codebooks),
        "attention_mask": ones(2, 9),
    },
    "csm_depth_decoder_model": {
        "input_ids": ids(2, 3),
        "attention_mask": nothing,
        "backbone_last_hidden_state": normal(2, 64),
    },
    "decision_transformer": {
        "states": normal(2, 5, 17),
        "actions": normal(2, 5, 4),
        "rewards": normal(2, 5, 1),
        "returns_to_go": normal(2, 5, 1),
        "timesteps": ids(2, 5),
        "attention_mask": ones(2, 5),
    },
    "deepseek_ocr2_encoder": {"inputs_embeds": normal(2, 9, 64), "num_patches": lambda want: 5},
    "deepseek_vl_hybrid": {"high_res_pixel_values": normal(2, 3, 32, 32)},
    "depth_pro": {"pixel_values": normal(2, 3, 128, 128)},
    "dia": {"decoder_input_ids": ids(2, 7, 9)},
    "dia_decoder": {"input_ids": ids(2, 7, 9), "attention_mask": ones(2, 7)} | _ACROSS,
    "clipseg": {"input_ids": ended_text},
    "diffusion_gemma": _PATCHES | {"image_position_ids": positions(6), "decoder_attention_mask": ones(2, 22)},
    "dots3_note": {"chunk_sample_lengths": fixed([10240, 8960])},
    "dots3_note_audio_encoder": {"chunk_sample_lengths": fixed([10240, 8960])},
    "embedding_gemma2": _PATCHES | _AUDIO | {"image_position_ids": positions(6)},
    "efficientloftr": {"pixel_values": normal(2, 2, 3, 64, 64)},
    "fastspeech2_conformer_hifigan": _SPECTROGRAM,
    "florence_vision": {"hidden_states": normal(2, 3, 64, 64)},
    "fun_asr_nano": _STACKED,
    "fun_asr_nano_encoder": _STACKED,
    "fuyu": {"pixel_values": normal(2, 4, 192)},
    "gemma3n_audio": {"audio_mel": normal(2, 64, 16), "audio_mel_mask": zeros(2, 64, dtype=torch.bool)},
    "gemma4": _PATCHES | _AUDIO | {"image_position_ids": positions(6)},
    "gemma4_audio": _MEL,
    "gemma4_unified": {
        "pixel_values": normal(2, 4, 1728),
        "image_position_ids": positions(2),
        "input_features": lambda want: want.normal(2, 5, want.config.audio_config.audio_embed_dim),
        "input_features_mask": ones(2, 5, dtype=torch.bool),
    },
    "gemma4_vision": _PATCHES | {"pixel_position_ids": positions(6)},
    "granite_docling": {"pixel_values": normal(2, 2, 3, 32, 32), "pixel_attention_mask": ones(2, 2, dtype=torch.bool)},
    "granite_speech": {"input_features_mask": nothing},
    "granite_speech_plus": {"input_features_mask": nothing},
    "grounding-dino": {"input_ids": phrases, "pixel_values": normal(2, 3, 64, 64)},
    "mm-grounding-dino": {"input_ids": phrases, "pixel_values": normal(2, 3, 64, 64)},
    "idefics": {"pixel_values": normal(2, 1, 3, 32, 32), "image_attention_mask": ones(2, 11, 1)},
    "idefics2_perceiver": {"context": normal(2, 16, 64), "attention_mask": ones(2, 16, dtype=torch.bool)},
    "informer": _SERIES,
    "inkling2": _TILES,
    "inkling2_loop": _TILES,
    "inkling2_vision": _TILES,
    "inkling_audio": {"audio_input_ids": ids(2, 9, 16)},
    "instructblip": {
        "decoder_input_ids": nothing,
        "qformer_input_ids": ids(2, 6),
        "qformer_attention_mask": ones(2, 6),
    },
    "instructblip_qformer": {"query_embeds": normal(2, 6, 64), "attention_mask": ones(2, 17)} | _ACROSS,
    "instructblipvideo": {
        "decoder_input_ids": nothing,
        "qformer_input_ids": ids(2, 6),
        "qformer_attention_mask": ones(2, 6),
        "pixel_values": normal(2, 4, 3, 32, 32),
    },
    "instructblipvideo_qformer": {"query_embeds": normal(2, 6, 64), "attention_mask": ones(2, 17)} | _ACROSS,
    "jev": {
        "input_ids": ids(1, 11),
        "attention_mask": nothing,
        "marks": fixed([[4, 9]]),
        "num_options": fixed([[2, 3]]),
        "question_type_ids": fixed([[0, 1]]),
    },
    "kosmos-2": {"image_embeds_position_mask": marked(1, 6, 11)},
    "kosmos-2.5": {"image_embeds_position_mask": marked(1, 6, 11), "flattened_patches": flattened},
    "kosmos_2_5_vision_model": {"flattened_patches": flattened},
    "kyutai_speech_to_text": {
        "input_ids": lambda want: want.integers(2, 95, 2, 9, want.config.num_codebooks + 1),
        "attention_mask": ones(2, 9),
    },
    "layoutlmv3": {"pixel_values": normal(2, 3, 32, 32)},
    "lightglue": {"pixel_values": normal(2, 2, 3, 64, 64)},
    "lxmert": {"visual_feats": normal(2, 5, 64), "visual_pos": normal(2, 5, 4)},
    "mimi_decoder": {"latents": normal(2, 64, 5)},
    "minicpm_ocr": _TARGETS,
    "minicpm_ocr_vision": _TARGETS,
    "minicpmv4_6": _TARGETS,
    "minicpmv4_6_vision": _TARGETS,
    "minicpmv4_7": _TARGETS,
    "minicpmv4_7_vision": _TARGETS,
    "mllama": {
        "pixel_values": normal(2, 1, 4, 3, 32, 32),
        "aspect_ratio_ids": fixed([[6], [6]]),
        "aspect_ratio_mask": ones(2, 1, 4),
        "cross_attention_mask": ones(2, 11, 1, 4),
    },
    "mllama_text_model": {"cross_attention_states": normal(2, 9, 64)},
    "mllama_vision_model": {
        "pixel_values": normal(2, 1, 4, 3, 32, 32),
        "aspect_ratio_ids": fixed([[6], [6]]),
        "aspect_ratio_mask": ones(2, 1, 4),
    },
    "molmo2": {
        "pixel_values": normal(2, 16, 192),
        "image_token_pooling": ids(8, 4, low=0, high=32),
        "image_grids": fixed([[2, 2, 0, 0], [2, 2, 0, 0]]),
    },
    "molmo2_adapter": {"image_features": normal(2, 16, 128), "pooled_patches_idx": ids(8, 4, low=0, high=32)},
    "molmo2_vision": {"pixel_values": normal(2, 16, 192)},
    "moshi": {
        "user_audio_codes": lambda want: want.integers(2, 95, 2, want.model.num_codebooks, 11),
        "moshi_audio_codes": lambda want: want.integers(2, 95, 2, want.model.num_codebooks, 11),
    },
    "moshi_depth": {"input_ids": ids(2, 2), "attention_mask": nothing, "last_hidden_state": normal(2, 2, 64)},
    "muse_glimmer_assistant": {"noise_embeds": normal(2, 5, 64), "context_hidden_states": normal(2, 9, 320)},
    "muse_spark": {"input_values": normal(2, 3840)},
    "muse_spark_audio": {"input_values": normal(2, 3840)},
    "musicflamingo": {"input_ids": listened_text},
    "musicgen": {"decoder_input_ids": ids(6, 7), "input_values": nothing, "padding_mask": nothing},
    "musicgen_decoder": {"input_ids": ids(6, 11), "attention_mask": ones(2, 11)} | _ACROSS,
    "musicgen_melody": {
        "decoder_input_ids": ids(6, 7),
        "input_features": lambda want: want.normal(2, 9, want.config.num_chroma),
    },
    "musicgen_melody_decoder": {"input_ids": ids(6, 11), "attention_mask": ones(2, 11)} | _ACROSS,
    "nemotron_h_omni": {"pixel_values": normal(8, 192), "image_grid_hw": fixed([[2, 2], [2, 2]])},
    "neomme": {"pixel_values": normal(32, 192)},
    "moss_transcribe_diarize": {"padding_mask": ones(2, 64, dtype=torch.bool)},
    "neucodec": {"input_values": normal(2, 1, 4000)},
    "omdet-turbo": {
        "classes_input_ids": ids(4, 5),
        "classes_attention_mask": ones(4, 5),
        "tasks_input_ids": ids(2, 6),
        "tasks_attention_mask": ones(2, 6),
        "classes_structure": fixed([2, 2]),
    },
    "oneformer": {"task_inputs": lambda want: want.normal(2, want.config.task_seq_len)},
    "pe_audio": {"padding_mask": nothing},
    "pe_audio_encoder": {"padding_mask": nothing},
    "patchtsmixer": {"past_values": normal(2, 32, 1)},
    "patchtst": {"past_values": normal(2, 32, 1)},
    "phi4_multimodal_audio": {"hidden_states": normal(2, 64, 80), "mask": ones(2, 64)},
    "pi0": {
        "action_embeds": normal(2, 5, 64),
        "pixel_values": normal(2, 1, 3, 32, 32),
        "pixel_attention_mask": ones(2, 1, dtype=torch.bool),
        "input_ids": pi0_text,
    },
    "pix2struct": {"flattened_patches": flattened, "attention_mask": ones(2, 12)},
    "pix2struct_vision_model": {"flattened_patches": flattened, "attention_mask": ones(2, 12)},
    "pocket_tts_audio_tokenizer_decoder": {"latents": normal(2, 64, 5)},
    "pop2piano": {"input_ids": nothing, "attention_mask": ones(2, 12), "input_features": normal(2, 12, 64)},
    "pp_ocrv5_mobile_rec": {"hidden_states": normal(2, 384, 1, 9)},
    "pp_ocrv5_server_rec": {"hidden_states": normal(2, 128, 1, 9)},
    "qwen2_5_omni_audio_encoder": _LENGTHS,
    "qwen2_5_omni_dit": {
        "hidden_states": normal(2, 8, 16),
        "condition_vector": normal(2, 8, 16),
        "speaker_embedding": normal(2, 8, 64),
        "quantized_code": ids(2, 4),
        "time_step": fixed(0.3),
    },
    "qwen2_audio": {"input_ids": one_audio, "attention_mask": ones(2, 11)},
    "qwen3_omni_moe_audio_encoder": _LENGTHS,
    "qwen3_omni_moe_talker_code_predictor": {
        "input_ids": nothing,
        "attention_mask": nothing,
        "inputs_embeds": normal(2, 5, 64),
    },
    "qwen3_omni_moe_talker_text": {"input_ids": nothing, "attention_mask": nothing, "inputs_embeds": normal(2, 9, 64)},
    "rag": {"context_input_ids": ids(4, 9), "context_attention_mask": ones(4, 9), "doc_scores": normal(2, 2)},
    "sam": _POINTS,
    "sam2": _POINTS,
    "sam3_detr_decoder": _DETR_DECODER,
    "sam3_detr_encoder": _DETR_ENCODER,
    "sam3_lite_text_detr_decoder": _DETR_DECODER,
    "sam3_lite_text_detr_encoder": _DETR_ENCODER,
    "sam3_lite_text_mask_decoder": _MASKS,
    "sam3_mask_decoder": _MASKS,
    "sam3_tracker": _POINTS,
    "sam_hq": _POINTS,
    "seamless_m4t": _SPEECH,
    "seamless_m4t_v2": _SPEECH,
    "seggpt": {
        "pixel_values": normal(2, 3, 32, 32),
        "prompt_pixel_values": normal(2, 3, 32, 32),
        "prompt_masks": normal(2, 3, 32, 32),
    },
    "speech-encoder-decoder": {"inputs": nothing, "input_features": nothing},
    "speecht5": {"input_values": normal(2, 12, 64), "decoder_input_values": normal(2, 7, 64)},
    "speecht5_hifigan": _SPECTROGRAM,
    "superglue": {"pixel_values": normal(2, 2, 3, 64, 64)},
    "t5gemma2_decoder": _ACROSS,
    "tapas": {"token_type_ids": ids(2, 11, 7, low=0, high=2)},
    "time_series_transformer": _SERIES,
    "timesfm": {"past_values": normal(2, 64), "past_values_padding": zeros(2, 64), "freq": fixed([[0], [1]])},
    "timesfm2_5": {"past_values": normal(2, 64)},
    "tvp": {"input_ids": ids(1, 11), "attention_mask": ones(1, 11), "pixel_values": normal(1, 4, 3, 64, 64)},
    "unlimited_ocr_vision_encoder": {"patch_embeds": normal(2, 32, 4, 4)},
    "vibevoice_acoustic_tokenizer_decoder": {"hidden_states": normal(2, 64, 5)},
    "vibevoice_acoustic_tokenizer_encoder": {"hidden_states": normal(2, 1, 6400)},
    "udop": _BOXES,
    "vibevoice_asr": {"input_values": normal(2, 1, 6400)},
    "video_llama_3": {"image_merge_sizes": fixed([2, 2])},
    "video_llama_3_vision": {"merge_sizes": fixed([2, 2])},
    "videomae": {"bool_masked_pos": lambda want: (torch.arange(32) % 2 == 0).repeat(2, 1)},
    "visual_bert": {
        "visual_embeds": normal(2, 5, 64),
        "visual_attention_mask": ones(2, 5),
        "visual_token_type_ids": ones(2, 5),
    },
    "vitmatte": {"pixel_values": normal(2, 4, 64, 64)},
    "voxtral_realtime": {"input_ids": ids(2, 8), "attention_mask": ones(2, 8)},
    "voxtral_realtime_text": {"t_cond": normal(1, 64)},
    "xclip_vision_model": {"pixel_values": normal(8, 3, 32, 32)},
    "xcodec2": {
        "input_values": normal(2, 1, 2560),
        "input_features": normal(2, 8, 64),
        "input_features_mask": ones(2, 8),
        "padding_mask": nothing,
    },
}
"""Makers of arguments, by type and name."""

_SPEECH_ALONE = {"input_features": nothing, "input_ids": ids(BATCH, 11), "attention_mask": ones(BATCH, 11)}
OTHERS: dict[str, dict[str, Maker]] = {
    "moshi": {
        "attention_mask": nothing,
        "text_labels": ids(BATCH, 11),
        "audio_labels": lambda want: want.integers(2, 95, BATCH, want.model.num_codebooks, 11),
    },
    "phi4_multimodal": {
        "input_ids": text_around(image_token_id=13, audio_token_id=8),
        "attention_mask": ones(BATCH, 32),
        "image_pixel_values": normal(BATCH, 2, 3, 32, 32),
        "image_sizes": fixed([[32, 32], [32, 32]]),
        "image_attention_mask": ones(BATCH, 2, 4, 4),
        "audio_input_features": normal(BATCH, 64, 80),
        "audio_embed_sizes": fixed([8, 8]),
        "audio_attention_mask": ones(BATCH, 64),
    },
    "seamless_m4t": _SPEECH_ALONE,
    "seamless_m4t_v2": _SPEECH_ALONE,
    "video_llava": {
        "pixel_values": nothing,
        "pixel_values_videos": normal(BATCH, 2, 3, 32, 32),
        "input_ids": text_around(video_token_index=34),
        "attention_mask": ones(BATCH, 45),
    },
}
"""Other arguments of types that have several kinds, which cannot be given together: each makes other parts of them run.
By type and name, over the arguments that it gets first; what is made of nothing is left out."""
