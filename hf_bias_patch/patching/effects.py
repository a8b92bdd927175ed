"""What stays equal under an edit: the flags that plans, certificates and cards carry."""

from __future__ import annotations

from functools import reduce
from operator import and_
from typing import Literal

from pydantic import BaseModel, ConfigDict

__all__ = ["Equal", "equal_under"]


class Equal(BaseModel):
    """What an edit leaves equal, up to rounding (DESIGN's table "what stays equal").

    Attributes:
        logits: the model's output, and its last hidden state.
        hidden_states: the hidden states between layers.
        attention_weights: the attention probabilities.
        with_dropout: the outputs of training, dropout masks given.
        lora: the effect of a LoRA adapter trained before the edit.
        kv_cache: keys and values cached before the edit remain usable after it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    logits: bool = True
    hidden_states: bool = True
    attention_weights: bool = True
    with_dropout: bool = True
    lora: bool = True
    kv_cache: bool = True

    def __and__(self, other: Equal) -> Equal:
        return Equal(**{name: getattr(self, name) and getattr(other, name) for name in Equal.model_fields})

    @classmethod
    def everything(cls, flags: list[Equal]) -> Equal:
        """What all of several edits leave equal."""
        return reduce(and_, flags, cls())


_NOTHING = Equal(**dict.fromkeys(Equal.model_fields, False))
_UNDER = {
    "nothing": Equal(kv_cache=False),
    "output": Equal(with_dropout=False, lora=False, kv_cache=False),
    "weight": Equal(),
    "norm": Equal(hidden_states=False, with_dropout=False, lora=False, kv_cache=False),
}


def equal_under(
    action: Literal["fold", "drop", "fill", "freeze", "train"],
    into: str | None,
    *,
    redundant: bool,
    dropout: bool,
    residual: bool,
) -> Equal:
    """The flags of one edit.

    Args:
        action: what is done.
        into: a fold's destination.
        redundant: whether the slot's bias is redundant.
        dropout: whether dropout sits between the norm and the projection.
        residual: whether that norm's output is also a hidden state that continues (post-norm).
    """
    if action in ("freeze", "train"):
        return Equal()
    if action in ("drop", "fill"):
        return _UNDER["nothing"] if redundant else _NOTHING
    flags = _UNDER[into or "nothing"]
    if into == "weight" and dropout:
        return flags.model_copy(update={"with_dropout": False})
    if into == "norm" and not residual:
        return flags.model_copy(update={"hidden_states": True})
    return flags
