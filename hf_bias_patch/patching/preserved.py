"""What stays equal under an edit: the flags that plans, certificates and cards carry."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

__all__ = ["FLAGS", "Preserved"]

FLAGS = {
    "logits": "logits",
    "hidden_states": "hidden states",
    "attention_weights": "attention weights",
    "with_dropout": "training with dropout",
    "lora": "existing LoRA adapters",
    "kv_cache": "existing KV caches",
}
"""Flag of what stays equal → in words."""


class Preserved(BaseModel):
    """What an edit leaves equal, up to rounding.

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

    @classmethod
    def nothing(cls) -> Preserved:
        """That nothing stays equal."""
        return cls(**dict.fromkeys(FLAGS, False))

    @classmethod
    def by_all(cls, flags: Iterable[Preserved]) -> Preserved:
        """What all of several edits leave equal."""
        kept = list(flags)
        return cls(**{name: all(getattr(each, name) for each in kept) for name in FLAGS})
