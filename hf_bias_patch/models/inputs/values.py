"""Values of arguments that only one type, or a few, ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from hf_bias_patch.models.inputs.wanted import BATCH

__all__ = [
    "Maker",
    "clip_of_sound",
    "ended_text",
    "fixed",
    "flattened",
    "ids",
    "listened_text",
    "longer",
    "marked",
    "normal",
    "nothing",
    "one_audio",
    "ones",
    "phrases",
    "pi0_text",
    "pictured_text",
    "positions",
    "text_around",
    "zeros",
]

Maker = Callable[[Any], Any]


def normal(*shape: int) -> Maker:
    """Random normal values of a shape."""
    return lambda want: want.normal(*shape)


def ids(*shape: int, low: int = 20, high: int = 95) -> Maker:
    """Random whole numbers from low up to, not with, high."""
    return lambda want: want.integers(low, high, *shape)


def ones(*shape: int, dtype: torch.dtype = torch.long) -> Maker:
    """Ones of a shape."""
    return lambda want: torch.ones(shape, dtype=dtype)


def zeros(*shape: int, dtype: torch.dtype = torch.long) -> Maker:
    """Zeros of a shape."""
    return lambda want: torch.zeros(shape, dtype=dtype)


def fixed(values: Any) -> Maker:
    """These values."""
    return lambda want: torch.tensor(values)


def nothing(want: Any) -> None:
    """The argument is left out."""


def positions(side: int) -> Maker:
    """Rows and columns of the patches of square images, as (2, patches, 2)."""
    grid = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="xy"), -1).reshape(1, -1, 2)
    return lambda want: grid.repeat(2, 1, 1)


def flattened(want: Any) -> torch.Tensor:
    """Pix2Struct's patches: row and column, counted from 1, before the pixels."""
    width = want.look("patch_embed_hidden_size", default=64)
    place = torch.cartesian_prod(torch.arange(1.0, 4), torch.arange(1.0, 5)).double()
    return torch.cat((place.repeat(2, 1, 1), want.normal(2, 12, width)), -1)


def marked(start: int, stop: int, length: int) -> Maker:
    """Marks of the tokens that image features replace."""
    marks = torch.zeros(2, length, dtype=torch.long)
    marks[:, start:stop] = 1
    return lambda want: marks.clone()


def one_audio(want: Any) -> torch.Tensor:
    """Texts with one placeholder, which the model itself replaces by all features."""
    text = want.integers(20, 95, 2, 11)
    text[:, 3] = want.config.audio_token_index
    want.made["_placed"] = True
    return text


def listened_text(want: Any) -> torch.Tensor:
    """Texts with a placeholder for each feature of the audio before them, which the audio tower asks to see."""
    text = want.integers(20, 95, 2, 27)
    text[:, :16] = want.config.audio_token_id
    want.made |= {"attention_mask": torch.ones(2, 27, dtype=torch.long), "_placed": True}
    return text


def clip_of_sound(want: Any) -> torch.Tensor:
    """A spectrogram; where CLAP fuses, the whole one shrunk and three parts of it."""
    return want.normal(2, 4 if want.config.audio_config.enable_fusion else 1, 64, 32)


def longer(want: Any) -> torch.Tensor | None:
    """Which of two sounds is longer than one spectrogram; CLAP asks for it where it fuses."""
    return torch.tensor([[True], [False]]) if want.config.audio_config.enable_fusion else None


def ended_text(want: Any) -> torch.Tensor:
    """Texts that end, the second two tokens earlier: their end token stands for them."""
    text = want.integers(20, 95, 2, 11)
    text[0, 10] = text[1, 8] = want.config.text_config.eos_token_id
    return text


def phrases(want: Any) -> torch.Tensor:
    """Texts of two phrases, cut by BERT's tokens of begin and end: each token sees its own phrase alone."""
    text = want.integers(20, 95, 2, 11)
    text[:, 0], text[:, 5], text[:, 8] = 101, 102, 102
    return text


def pictured_text(want: Any) -> torch.Tensor:
    """Texts with a placeholder for each of 4 and of 8 merged patches."""
    text = want.integers(20, 95, 2, 19)
    text[0, 3:7] = text[1, 3:11] = want.config.vlm_config.image_token_id
    want.made |= {"attention_mask": torch.ones(2, 19, dtype=torch.long), "_placed": True}
    return text


def pi0_text(want: Any) -> torch.Tensor:
    """An image of 16 patches before the text."""
    text = want.integers(20, 95, 2, 27)
    text[:, :16] = want.config.vlm_config.image_token_id
    want.made |= {"attention_mask": torch.ones(2, 27, dtype=torch.long), "_placed": True}
    return text


def text_around(**counts: int) -> Maker:
    """Texts with runs of placeholders in them: name of the token in the config → how many."""

    def make(want: Any) -> torch.Tensor:
        runs = [torch.full((BATCH, count), want.look(name)) for name, count in counts.items()]
        text: torch.Tensor = want.integers(20, 95, BATCH, 11)
        return torch.cat((text[:, :3], *runs, text[:, 3:]), 1)

    return make
