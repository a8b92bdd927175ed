"""Other inputs of types that have several kinds, which cannot be given together: each makes other parts of them run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from hf_bias_patch.models.inputs.by_type import fixed, ids, normal, nothing, ones
from hf_bias_patch.models.inputs.wanted import BATCH

__all__ = ["OTHERS"]

Maker = Callable[[Any], Any]


def _text_around(**counts: int) -> Maker:
    """Texts with runs of placeholders in them: name of the token in the config → how many."""

    def make(want: Any) -> torch.Tensor:
        runs = [torch.full((BATCH, count), want.look(name)) for name, count in counts.items()]
        text: torch.Tensor = want.integers(20, 95, BATCH, 11)
        return torch.cat((text[:, :3], *runs, text[:, 3:]), 1)

    return make


_SPEECH = {"input_features": nothing, "input_ids": ids(BATCH, 11), "attention_mask": ones(BATCH, 11)}

OTHERS: dict[str, dict[str, Maker]] = {
    "moshi": {
        "attention_mask": nothing,
        "text_labels": ids(BATCH, 11),
        "audio_labels": lambda want: want.integers(2, 95, BATCH, want.model.num_codebooks, 11),
    },
    "phi4_multimodal": {
        "input_ids": _text_around(image_token_id=13, audio_token_id=8),
        "attention_mask": ones(BATCH, 32),
        "image_pixel_values": normal(BATCH, 2, 3, 32, 32),
        "image_sizes": fixed([[32, 32], [32, 32]]),
        "image_attention_mask": ones(BATCH, 2, 4, 4),
        "audio_input_features": normal(BATCH, 64, 80),
        "audio_embed_sizes": fixed([8, 8]),
        "audio_attention_mask": ones(BATCH, 64),
    },
    "seamless_m4t": _SPEECH,
    "seamless_m4t_v2": _SPEECH,
    "video_llava": {
        "pixel_values": nothing,
        "pixel_values_videos": normal(BATCH, 2, 3, 32, 32),
        "input_ids": _text_around(video_token_index=34),
        "attention_mask": ones(BATCH, 45),
    },
}
"""By type and name, over the arguments that it gets first; what is made of nothing is left out."""
