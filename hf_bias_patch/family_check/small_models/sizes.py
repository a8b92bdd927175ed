"""Sizes that differ wherever a model lets them: equal by accident, they hide which size a map really has.

`rules` gives every hidden state one width, with which all models run. Here some of a small model's sizes get values of
their own, as they have in published checkpoints: head sizes that are no part of the width, embeddings narrower than
hidden states, towers of other widths than the text's. Where a model wants two of them equal, `forced.toml` says so.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from importlib import resources
from typing import Any

from hf_bias_patch.family_check.small_models.rules import HEADS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["forced", "own_size"]

_PICTURES = r".*(vision|image|backbone|pixel).*"
_WIDTHS = r"hidden_size|d_model|n_embd|embed_dim|hidden_dim"
_OWN: tuple[tuple[str, int], ...] = (
    (r"embedding_size|embedding_dim|emb_dim|emb_size|entity_emb_size|word_embed_proj_dim", 40),
    (r"(.*_)?(projection_dim|project_dim|projection_size)", 56),
    (r"encoder_hidden_size|cross_attention_hidden_size|cross_hidden_size", 72),
    (r"decoder_hidden_size|decoder_embed_dim", 88),
    (r"intra_bottleneck_size", 48),
    (r"q_lora_rank", 36),
    (r"kv_lora_rank", 28),
    (r"v_head_dim", 20),
    (r"qk_(nope|rope)_head_dim|(index|swa|mamba|linear|global|rotary)_.*head_dim", 0),
    (r"(.*_)?head_dim|head_size|d_kv|attention_head_(dim|size)|dim_head|d_head|kv_channels|cross_head_dim", 24),
    (r"decoder_(attention_heads|num_heads|num_attention_heads)", 2),
    (r"decoder_layers|num_decoder_layers|decoder_num_layers", 3),
    (r"max_target_positions|decoder_max_position_embeddings", 200),
    (r"tgt_vocab_size|decoder_vocab_size", 136),
    (r"decoder_(ffn_dim|intermediate_size)", 104),
    (
        r"(.*_)?(intermediate_size|ffn_dim|d_ff|dff|dim_ff|feedforward_dim|ffn_hidden_size|dim_feedforward|inner_dim)"
        r"|(.*_)?feed_forward_(hidden_)?size|n_inner|mlp_dim",
        112,
    ),
)
"""Name of a field → its value; the first match counts. 0: as in `rules`."""

_TOWERS: tuple[tuple[str, int], ...] = (
    (_PICTURES, 48),
    (r".*(audio|speech|acoustic|sound).*", 80),
    (r".*(text|llm|language|decoder|generator|thinker|talker).*", 64),
    (r".+", 56),
)
"""Key of a sub-config → the width of its hidden states."""


_HEADS = r"num_(attention_)?heads|n_heads?|attention_heads|num_key_value_heads"
_OF_PICTURES = 3
"""Heads of their towers, where the text has four."""


_OPEN = frozenset(
    ("head_dim", "embedding_size", "word_embed_proj_dim", "n_inner", "num_decoder_layers", "num_key_value_heads")
)
"""Fields that follow from others by default, and need not: None then."""
_GROUPED = 2
"""Key-value heads of the four heads of a text."""


def own_size(path: str, name: str, old: Any, small: Any) -> Any:
    """The value of a field that differs from others, where it may; else the one it has.

    Args:
        path: model type and keys of the sub-configs that lead to the field, with dots between them.
        name: of the field.
        old: its default.
        small: what `shrink` makes of it.
    """
    model_type, _, inner = path.partition(".")
    if old is None and name in _OPEN:
        old = sys.maxsize
    elif type(old) is not int or type(small) is not int or small < 2:
        return small
    size = _size(inner.rpartition(".")[2], name, small)
    dotted = f"{inner}.{name}" if inner else name
    return size if size and size < old and dotted not in forced(model_type) else small


def _size(tower: str, name: str, small: int | None) -> int:
    if small == HEADS and re.fullmatch(_PICTURES, tower) and re.fullmatch(_HEADS, name):
        return _OF_PICTURES
    if small is None and name == "num_key_value_heads":
        return 0 if re.fullmatch(_PICTURES, tower) else _GROUPED
    if tower and re.fullmatch(_WIDTHS, name):
        return next(size for pattern, size in _TOWERS if re.fullmatch(pattern, tower))
    return next((size for pattern, size in _OWN if re.fullmatch(pattern, name)), 0)


@cache
def _all_forced() -> dict[str, frozenset[str]]:
    text = resources.files(__package__).joinpath("forced.toml").read_text("utf-8")
    return {model_type: frozenset(fields) for model_type, fields in tomllib.loads(text).items()}


def forced(model_type: str) -> frozenset[str]:
    """The fields of a type's config, dotted, that a model of it, or the inputs made for it, want as in `rules`."""
    return _all_forced().get(model_type, frozenset())
