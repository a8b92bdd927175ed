"""How a config value shrinks, judged by its name: one table, first match wins."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["HEADS", "LAYERS", "VOCAB", "WIDTH", "shrink"]

WIDTH = 64
"""Of every hidden state, so that whatever must agree between two towers agrees."""
HEADS = 4
LAYERS = 2
VOCAB = 128
_FIRST_SPECIAL = 100
_OTHERS = 18
"""Places for special tokens, from _FIRST_SPECIAL, of which it does no harm if two meet."""
_INNER = 96

Rule = Callable[[Any, Any], Any]


def constant(value: int) -> Rule:
    """At most this number; this number where the default is none."""
    return lambda old, _: min(value, old) if isinstance(old, int) else value


def exactly(value: Any) -> Rule:
    """This value, whatever the default."""
    return lambda old, _: value


def per_item(rule: Rule) -> Rule:
    """Lists item by item."""
    return lambda old, config: (
        type(old)(per_item(rule)(item, config) for item in old) if _many(old) else rule(old, config)
    )


def pyramid(first: int) -> Rule:
    """A list of widths keeps its proportions, the first becoming `first`; a single width is WIDTH."""

    def apply(old: Any, config: Any) -> Any:
        if not _many(old):
            return min(old, WIDTH)
        smallest = min((width for width in _flat(old) if width >= 8), default=first)
        if smallest <= first:
            smallest = first
        return per_item(lambda width, _: width if width < 8 else max(8, 8 * round(width * first / smallest / 8)))(
            old, config
        )

    return apply


def _kv_heads(old: Any, config: dict[str, Any]) -> Any:
    """Grouped where the default is grouped."""
    if _many(old):
        return type(old)(min(n, HEADS) for n in old)
    heads = next(
        (config[n] for n in ("num_attention_heads", "n_heads", "num_heads") if isinstance(config.get(n), int)), old
    )
    return old if old in (0, 1) else HEADS if old == heads else 2


def _list_of_heads(old: Any, config: dict[str, Any]) -> Any:
    """A power of two that divides every width."""
    return per_item(lambda n, _: HEADS if n >= HEADS else 2 if n > 1 else n)(old, config)


def _depths(old: Any, config: dict[str, Any]) -> Any:
    return per_item(lambda n, _: min(n, LAYERS))(old, config)


def _image(old: Any, config: dict[str, Any]) -> Any:
    return per_item(lambda n, _: 32)(old, config)


def _patch(old: Any, config: dict[str, Any]) -> Any:
    return per_item(lambda n, _: 8 if n > 8 else n)(old, config)


def _window(old: Any, config: dict[str, Any]) -> Any:
    """In patches, so that there is more than one; or, where large, in pixels."""
    return per_item(lambda n, _: 32 if n > 64 else min(n, 2))(old, config)


def _expert_groups(old: Any, config: dict[str, Any]) -> Any:
    return old if old in (0, 1) else 2


def _conv_positions(old: int, config: dict[str, Any]) -> Any:
    return 16 if old > 16 else old


def _token(old: Any, config: dict[str, Any]) -> Any:
    """Small ids stay; large ones move into the small vocabulary, equal ones to equal places."""
    if isinstance(old, (list, tuple)):
        return type(old)(_token(item, config) for item in old)
    if not isinstance(old, int) or isinstance(old, bool) or 0 <= old < 20:
        return old
    scattered = (old * 2654435761) % 2**32 >> 7  # neighbours far apart, so that few of them meet
    return _FIRST_SPECIAL + scattered % _OTHERS


def _special(place: int) -> Rule:
    """Tokens that must not meet: those that stand for what other towers give, and those around them."""
    return lambda old, _: place if isinstance(old, int) else old


_TABLE: Sequence[tuple[str, Rule]] = (
    # vocabularies and tokens
    (r"image_token_(id|index)|image_patch_id", _special(120)),
    (r"video_token_(id|index)", _special(121)),
    (r"audio_token_(id|index)", _special(122)),
    (r"(image|vision)_start_token_id", _special(123)),
    (r"(image|vision)_end_token_id", _special(124)),
    (r"video_start_token_id", _special(125)),
    (r"video_end_token_id", _special(126)),
    (r"audio_(start|bos)_token_id", _special(127)),
    (r".*(_token_id|_token_ids|_token_index|_tok_id|_bos_id|_eos_id|_start_id|_end_id|_newline_id|_patch_id)", _token),
    (r"(tag|subs)_pad_id|lang_id|.*_index", lambda old, _: old),
    (r"(.*_)?vocab_size(s|_per_layer_input)?|encoder_hash_byte_group_vocab", per_item(constant(VOCAB))),
    (r"(n|num)_codebooks|num_quantizers", constant(3)),
    (r"global_attn_indexes|fullatt_block_indexes", lambda old, _: type(old)((1,))),
    (r"encoder_in_channels", pyramid(32)),
    (r"decoder_in_channels", per_item(constant(WIDTH))),
    (r"cross_attention_layers", lambda old, _: type(old)((1,))),
    (r"num_pos_feats", exactly(WIDTH // 2)),
    (r"image_embedding_size|mm_tokens_per_image", exactly(4)),
    (r"num_frames|frames_per_clip|num_filters", constant(4)),
    (r"num_self_attends_per_block", _depths),
    (r"d_latents|latent_dim|vector_quantization_hidden_dimension|bottleneck_features", constant(WIDTH)),
    (r"upsample_groups", exactly(WIDTH)),
    (r"codebook_size|num_embeddings|num_embeds", constant(VOCAB)),
    # positions and windows
    (
        r"(.*_)?max_(2d_)?(.*_)?position_embeddings|n_positions|max_seq(uence)?_len(gth)?|n_ctx|model_max_length",
        constant(256),
    ),
    (r"max_(source|target|speech|text)_positions|max_len|max_length", constant(256)),
    (
        r"sliding_window|(local_)?attention_window(_size|_len)?|local_attention|sliding_window_size",
        per_item(constant(8)),
    ),
    (r"(attention_)?chunk_size(_feed_forward)?|mamba_chunk_size", constant(8)),
    (r"window_size", _window),
    (r"num_conv_pos_embeddings", _conv_positions),
    (r"num_conv_pos_embedding_groups", constant(4)),
    # layers
    (
        r"(.*_)?num_(.*_)?hidden_layers|(.*_)?layers|n_layers?|depth|num_layers|(.*_)num_layers|num_layers_per_stack",
        _depths,
    ),
    (r"depths|num_blocks|.*blocks_per_stage|block_sizes|num_(en|de)coder_blocks|layer_depths", _depths),
    (r"num_(.*_)?layers", _depths),
    (r"first_k_dense_replace|num_dense_layers|num_kv_shared_layers|max_window_layers", constant(1)),
    # heads
    (r"(.*_)?num_key_value_heads(_per_layer)?|num_kv_heads|multi_query_group_num", _kv_heads),
    (
        r"(.*_)?num_(.*_)?(attention_|query_)?heads(_per_.*)?|(.*_)?attention_heads|n_heads?|index_n_heads|.*_heads",
        _list_of_heads,
    ),
    (r"(linear_|mamba_|mamba_num_)?(key_|value_)?(num|n)_(key|value)_heads", constant(HEADS)),
    (r"qk_rope_head_dim|rotary_dim", constant(8)),
    (r"qk_head_dim", exactly(24)),
    (
        r"(.*_)?head_dim|head_size|d_kv|attention_head_(dim|size)|dim_head|d_head|kv_channels|cross_head_dim",
        constant(WIDTH // HEADS),
    ),
    (r"(kv|q|o)_lora_rank|laurel_rank|.*lora_rank", constant(32)),
    (r"index_topk|top_?k", constant(4)),
    # experts
    (r"num_(local_)?experts|n_routed_experts|moe_num_experts|num_routed_experts", constant(4)),
    (r"num_experts_per_(tok|token)|moe_topk|moe_k|num_selected_experts|top_k_experts", constant(2)),
    (r"n_group|topk_group|num_expert_group", _expert_groups),
    # images and sound
    (r"(.*_)?image_size|img_size|crop_size|resolution|pretrain_image_size", _image),
    (r"patch_sizes?", _patch),
    (r"num_mel_bins|n_mels|n_mel_bins|mel_dim|input_feat_(size|per_channel)", constant(16)),
    # widths
    (r"conv_dim|tdnn_dim|conv_channels", lambda old, c: per_item(constant(32))(old, c)),
    (r"(.*_)?(hidden_sizes|embed_dims|dims|out_channels|hidden_size_list)", pyramid(16)),
    (
        r"(.*_)?(intermediate_size(s|_mlp)?|ffn_dim|d_ff|dff|dim_ff|feedforward_dim|ffn_hidden_size|dim_feedforward|inner_dim)",
        per_item(constant(_INNER)),
    ),
    (r"(.*_)?feed_forward_(hidden_)?size|n_inner|mlp_dim", constant(_INNER)),
    (
        r"(.*_)?(hidden_size|hidden_dim|d_model|n_embd|embed_dim|embedding_size|embedding_dim|emb_dim|projection_dim|project_dim)",
        per_item(constant(WIDTH)),
    ),
    (
        r"dim|(.*_)?hidden_channels|.*_hidden_dim|lru_width|.*_(size|dim|width|channels)",
        lambda old, c: per_item(constant(WIDTH))(old, c) if not _many(old) else pyramid(16)(old, c),
    ),
    (r"num_queries|num_query_tokens|num_latents|num_detection_tokens|num_proposals", constant(6)),
)
_KEPT = re.compile(
    r"(.*_)?kernel_size|(.*_)?kernel_sizes|num_channels|in_channels|audio_channels|image_channels|scale_factor|"
    r"feature_size|input_size|.*patch_size|.*pool_size|.*step_size|.*stride.*|initializer.*|block_size|(spatial_)?merge_size|"
    r"hop_size|in_chans|max_ep_len|type_vocab_sizes?|.*loss.*|num_labels|.*_token_len(gth)?|.*mask_(time|feature).*"
)


def shrink(name: str, old: Any, config: dict[str, Any]) -> Any:
    """The small value of a field.

    Args:
        name: of the field.
        old: its default.
        config: the defaults of the fields beside it.
    """
    kept = _KEPT.fullmatch(name) and not name.endswith("image_size") and name not in ("patch_size", "patch_sizes")
    if kept or old is None or isinstance(old, (bool, str, float)):
        return old
    if isinstance(old, dict):
        return old
    if _many(old) and any(isinstance(item, (str, bool, float)) or item is None for item in _flat(old)):
        return old
    for pattern, rule in _TABLE:
        if re.fullmatch(pattern, name):
            return rule(old, config)
    return old


def _many(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _flat(value: Any) -> list[Any]:
    return [leaf for item in value for leaf in _flat(item)] if _many(value) else [value]
