"""Chooses the token that batches are padded with, so that padding changes no answer.

Three files name one: the tokenizer's, config.json and generation_config.json. In published models it is missing from
some of them (GPT-2: from all), or they differ. Most models ignore the token, because the attention mask hides it. Some
read it: a decoder with a classifier takes the last token that is not `config.pad_token_id` for the end of a text,
RoBERTa counts positions from it, BART's classifier looks for end tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.heads import bare, head_kind_of_class, text_config, vocabulary

__all__ = ["Padding", "Side", "choose_padding", "padded", "settle_padding"]

Side = Literal["left", "right"]

_READS_LAST = {"xlnet"}
"""Model types whose classifier reads the last position, padding or not."""


@dataclass(frozen=True)
class Padding:
    """How to pad texts for a model.

    Attributes:
        id: number of the token.
        side: where it goes, unless texts are to be continued.
        note: for the user; empty where tokenizer and config name this token already.
    """

    id: int
    side: Side
    note: str


def choose_padding(model: Any, tokenizer: Any) -> Padding:
    """The token that the tokenizer and the config name, or a special token where neither does.

    Of two different ones, a decoder takes the tokenizer's: its classifier looks for what texts were padded with. Other
    models take the config's, because they may count positions from it. Tokens without a row in the embedding
    are ignored. The special token is the end token, or another one if texts end with that anyway.

    Args:
        model: of transformers, with or without wrappers.
        tokenizer: of the model.

    Raises:
        TaskError: no token of the tokenizer can be used.
    """
    inner = bare(model)
    config = text_config(inner)
    rows, own, models = vocabulary(inner), tokenizer.pad_token_id, getattr(config, "pad_token_id", None)
    found = next((token for token in _candidates(config, tokenizer) if _usable(token, tokenizer, rows)), None)
    if found is None:
        raise TaskError(
            "The tokenizer has no token to pad with",
            why="It has no padding token, no end token and no other special token that the model's embedding has",
            remedy="Name one in its tokenizer_config.json: pad_token",
        )
    said = [_named(name, token, tokenizer, rows) for name, token in (("the tokenizer", own), ("config.json", models))]
    note = f"{said[0]}, {said[1]}; batches are padded with {_shown(found, tokenizer)}, which changes no answer"
    side: Side = "left" if config.model_type in _READS_LAST else "right"
    return Padding(found, side, "" if found == own == models else note[0].upper() + note[1:])


def settle_padding(model: Any, tokenizer: Any) -> Padding:
    """Choose the token, and have the model's configs and the tokenizer name it, as they will be saved.

    A classifier's tokenizer pads on the side that the classifier was trained with, too.

    Raises:
        TaskError: as of `choose_padding`.
    """
    padding, inner = choose_padding(model, tokenizer), bare(model)
    inner.config.pad_token_id = text_config(inner).pad_token_id = padding.id
    if tokenizer.pad_token_id != padding.id:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding.id)
    if head_kind_of_class(type(inner).__name__) == "classifier":
        tokenizer.padding_side = padding.side
    if inner.can_generate():
        inner.generation_config.pad_token_id = padding.id
    return padding


@contextmanager
def padded(model: Any, padding: Padding) -> Iterator[None]:
    """Have the model's config name the token for a while."""
    config = text_config(model)
    before = getattr(config, "pad_token_id", None)
    config.pad_token_id = padding.id
    try:
        yield
    finally:
        config.pad_token_id = before


def _candidates(config: Any, tokenizer: Any) -> Iterator[Any]:
    own, models = tokenizer.pad_token_id, getattr(config, "pad_token_id", None)
    special = [
        *(getattr(tokenizer, f"{name}_token_id", None) for name in ("eos", "unk", "bos", "sep", "cls")),
        *tokenizer.all_special_ids,
    ]
    last = (tokenizer("a")["input_ids"] or [None])[-1]
    special.sort(key=lambda token: token == last)
    if not _decodes_only(config):
        yield from (models, own, *special)
        return
    yield own
    if models in special:  # a word for padding would be passed over where a text ends with it
        yield models
    yield from (*special, models)


def _decodes_only(config: Any) -> bool:
    from transformers.models.auto import modeling_auto

    kind = config.model_type.removesuffix("_text")
    causal, masked = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return not config.is_encoder_decoder and kind in causal and kind not in masked


def _usable(token: Any, tokenizer: Any, rows: int) -> bool:
    return isinstance(token, int) and 0 <= token < rows and tokenizer.convert_ids_to_tokens(token) is not None


def _named(who: str, token: Any, tokenizer: Any, rows: int) -> str:
    if token is None:
        return f"{who} names no padding token"
    usable = _usable(token, tokenizer, rows)
    return f"{who} names {_shown(token, tokenizer)}{'' if usable else ', which the model does not have'}"


def _shown(token: Any, tokenizer: Any) -> str:
    text = tokenizer.convert_ids_to_tokens(token) if isinstance(token, int) and token >= 0 else None
    return f"{token}" if text is None else f"{text} ({token})"
