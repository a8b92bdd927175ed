"""How each argument of a forward method is made, by its name."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from hf_bias_patch.models.inputs.by_type import INPUTS
from hf_bias_patch.models.inputs.placeholders import place
from hf_bias_patch.models.inputs.wanted import BATCH, TEXT_HIGH, TEXT_LOW, Wanted, read

__all__ = ["fill", "variants_of"]

_TEXT = 11
"""Tokens beside placeholders."""
_DECODER = 7
_PATCHES = 16
_FRAMES = 64
"""Of spectrograms."""
_SAMPLES = 4000
_LONE = 64
"""Side of images where no config says it."""


# Vision


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, dict):
        return value.get("height", _LONE), value.get("width", _LONE)
    return (value[0], value[-1]) if isinstance(value, (list, tuple)) else (value, value)


def _patch(config: Any) -> tuple[int, int, int, int]:
    """Channels, frames, rows and columns of a patch."""
    names = ("num_channels", "in_channels", "in_chans", "num_input_channels")
    channels = next((n for n in (read(config, name) for name in names) if isinstance(n, int)), 3)
    time = _pair(read(config, "temporal_patch_size") or read(config, "patch_temporal") or 1)[0]
    return channels, time, *_pair(read(config, "patch_size") or 8)


def _pixels(want: Wanted) -> torch.Tensor:
    config, form = want.vision(), want.variant.get("pixels", "nchw")
    channels, time, rows, columns = _patch(config)
    image = (channels, *(want.variant.get("image") or _pair(read(config, "image_size") or _LONE)))
    frames = want.look("num_frames", "frames_per_clip", default=4)
    patches = int(_grid(want).prod(-1).sum()) if form.startswith("grid") else 0
    shapes = {
        "nchw": (BATCH, *image),
        "bnchw": (BATCH, 1, *image),
        "bn3chw": (BATCH, 3, *image),
        "video": (BATCH, frames, *image),
        "patches": (BATCH, _PATCHES, channels * rows * columns),
        "grid": (patches, channels * time * rows * columns),
        "grid4": (patches, channels, rows, columns),
        "grid5": (1, patches, channels, rows, columns),
    }
    return want.normal(*shapes[form])


def _grid(want: Wanted) -> torch.Tensor:
    """Frames, rows and columns of patches of two images; they differ, so that no one takes one for the other."""
    grid: torch.Tensor = want.made.setdefault("_grid", torch.tensor([[1, 4, 4], [1, 4, 8]]))
    return grid


def _video(want: Wanted) -> torch.Tensor:
    return _pixels(replace(want, variant={"pixels": "video"}))


def _states_or_patches(want: Wanted) -> torch.Tensor:
    """Vision towers with a grid call their patches hidden states."""
    return _pixels(replace(want, variant={"pixels": "grid"})) if "grid_thw" in want.parameters else _states(want)


def _states(want: Wanted) -> torch.Tensor:
    return want.normal(BATCH, _TEXT, want.look("hidden_size", "d_model", "n_embd", default=64))


def _shapes(want: Wanted) -> torch.Tensor | None:
    """Rows and columns of patches of each image."""
    return torch.tensor([[4, 4], [2, 4]]) if "pixel_attention_mask" in want.parameters else None


def _pixel_mask(want: Wanted) -> torch.Tensor | None:
    shapes, pixels = want.made.get("spatial_shapes"), want.made.get("pixel_values")
    if shapes is not None:
        return (torch.arange(_PATCHES) < shapes.prod(-1)[:, None]).long()
    if pixels is None or pixels.dim() < 4:
        return None
    return torch.ones(*pixels.shape[:-3], *pixels.shape[-2:], dtype=torch.bool)


def _sizes(want: Wanted) -> torch.Tensor | None:
    """Heights and widths before padding; twice as wide where an image comes in three patches (whole, left, right)."""
    if not want.variant.get("sizes"):
        return None
    height, width = want.made["pixel_values"].shape[-2:]
    return torch.tensor([[height, width * (2 if want.variant.get("pixels") == "bn3chw" else 1)]] * BATCH)


# Sound


_BINS = (
    "num_mel_bins",
    "feature_projection_input_dim",
    "input_feat_per_channel",
    "input_feat_size",
    "n_mels",
    "input_dim",
    "feature_size",
)


def _features(want: Wanted) -> torch.Tensor:
    bins = want.look(*_BINS, default=16)
    positions = want.look("max_source_positions", default=_FRAMES // 2)
    length = {"short": _FRAMES, "long": 2 * positions, "round": 200}[want.variant.get("time", "short")]
    shapes = {"bft": (BATCH, bins, length), "btf": (BATCH, length, bins), "bcft": (BATCH, 1, length, bins)}
    return want.normal(*shapes[want.variant.get("features", "bft")])


def _features_mask(want: Wanted) -> torch.Tensor | None:
    features = want.made.get("input_features")
    if features is None:
        return None
    return torch.ones(BATCH, features.shape[-1 if want.variant.get("features") == "bft" else -2], dtype=torch.long)


def _wave(want: Wanted) -> torch.Tensor:
    shapes = {
        "bt": (BATCH, _SAMPLES),
        "bct": (BATCH, want.look("audio_channels", default=1), _SAMPLES),
        "btf": (BATCH, want.look("max_length", default=_FRAMES), want.look("num_mel_bins", default=16)),
    }
    return want.normal(*shapes[want.variant.get("wave", "bt")])


def _wave_mask(want: Wanted) -> torch.Tensor | None:
    wave = want.made.get("input_values")
    return None if wave is None else torch.ones(BATCH, wave.shape[-1], dtype=torch.bool)


# Text


def _text(want: Wanted) -> torch.Tensor:
    high = min(TEXT_HIGH, want.vocabulary())
    return want.integers(min(TEXT_LOW, high // 2), high, BATCH, _TEXT)


def _decoder_text(want: Wanted) -> torch.Tensor:
    return want.integers(TEXT_LOW, TEXT_HIGH, BATCH, _DECODER)


def _mask(want: Wanted) -> torch.Tensor | None:
    """The second text is two tokens shorter."""
    text = want.made.get("input_ids")
    if text is None:
        return None
    mask = torch.ones(text.shape[:2], dtype=torch.long)
    mask[1:, -2:] = 0
    return mask


def _segments(want: Wanted) -> torch.Tensor | None:
    text = want.made.get("input_ids")
    if text is None:
        return None
    kinds = want.look("type_vocab_size", default=1)
    ids = torch.zeros(text.shape[:2], dtype=torch.long)
    if isinstance(kinds, int) and kinds > 1:
        ids[:, text.shape[1] // 2 :] = 1
    return ids


def _boxes(want: Wanted) -> torch.Tensor:
    low = want.integers(0, 40, *want.made["input_ids"].shape, 2)
    return torch.cat((low, low + want.integers(1, 40, *low.shape)), -1)


Maker = Callable[[Wanted], Any]
_ALWAYS: dict[str, Maker] = {
    "image_grid_thw": _grid,
    "grid_thw": _grid,
    "spatial_shapes": _shapes,
    "pixel_values": _pixels,
    "pixel_attention_mask": _pixel_mask,
    "input_features": _features,
    "input_features_mask": _features_mask,
    "feature_attention_mask": _features_mask,
    "input_values": _wave,
    "padding_mask": _wave_mask,
    "input_ids": _text,
    "attention_mask": _mask,
    "token_type_ids": _segments,
    "decoder_input_ids": _decoder_text,
    "bbox": _boxes,
    "image_sizes": _sizes,
    "use_cache": lambda want: False,
}
"""Arguments filled whenever the method has them, in this order."""

_REQUIRED: dict[str, Maker] = {
    "hidden_states": _states_or_patches,
    "inputs_embeds": _states,
    "image": _pixels,
    "pixel_values_videos": _video,
}
"""Arguments filled only where the method cannot do without them."""


def variants_of(model: Any) -> Iterator[dict[str, Any]]:
    """Plausible formats of what the names do not tell (layout of pixels, of sound), the likeliest first."""
    names = inspect.signature(model.forward).parameters
    choices: dict[str, tuple[Any, ...]] = {}
    if "pixel_values" in names or "image" in names:
        choices["pixels"] = ("nchw", "bnchw", "bn3chw", "video")
        if "spatial_shapes" in names:
            choices["pixels"] = ("patches",)
        if "image_grid_thw" in names or "grid_thw" in names:
            choices["pixels"] = ("grid", "grid4", "grid5")
        choices["image"] = (None, (_LONE, _LONE))
    if "image_sizes" in names:
        choices["sizes"] = (False, True)
    if "input_features" in names:
        choices["features"] = ("bft", "btf", "bcft")
        choices["time"] = ("short", "long", "round")
    if "input_values" in names:
        choices["wave"] = ("bt", "bct", "btf")
    for combination in itertools.product(*choices.values()):
        yield dict(zip(choices, combination, strict=True))


def fill(want: Wanted) -> dict[str, Any]:
    """All arguments, in one format."""
    for name, make in (_ALWAYS | _REQUIRED).items():
        if name in want.parameters and (name in _ALWAYS or want.required(name)):
            want.made[name] = make(want)
    for name, make in INPUTS.get(want.config.model_type, {}).items():
        want.made[name] = make(want)
    want.made = {name: value for name, value in want.made.items() if value is not None}
    place(want)
    return {name: value for name, value in want.made.items() if not name.startswith("_")}
