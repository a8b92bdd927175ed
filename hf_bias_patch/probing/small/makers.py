"""How each argument of a forward method is made, by its name."""

from __future__ import annotations

import inspect
import itertools
from contextlib import suppress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from hf_bias_patch.probing.double import in_double
from hf_bias_patch.probing.small.consistent import read
from hf_bias_patch.probing.small.special import INPUTS

__all__ = ["Wanted", "fill", "variants_of"]

BATCH = 2
TEXT = 11
"""Tokens beside placeholders."""
DECODER = 7
_TEXT_LOW, _TEXT_HIGH = 20, 95


@dataclass
class Wanted:
    """What is asked for, and what was made so far."""

    model: Any
    parameters: Mapping[str, inspect.Parameter]
    generator: torch.Generator
    variant: Mapping[str, Any]
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> Any:
        return self.model.config

    def required(self, name: str) -> bool:
        found = self.parameters.get(name)
        return found is not None and found.default is inspect.Parameter.empty

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def integers(self, low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, max(high, low + 1), shape, generator=self.generator)

    def look(self, *names: str, default: Any = None) -> Any:
        """The first of these values, in the config or one of its sub-configs."""
        return next((v for v in (_look(self.config, name) for name in names) if v is not None), default)


def _look(config: Any, name: str) -> Any:
    value = read(config, name)
    if value is not None:
        return value
    for sub in getattr(config, "sub_configs", None) or {}:
        inner = getattr(config, sub, None)
        found = None if inner is None or isinstance(inner, dict) else _look(inner, name)
        if found is not None:
            return found
    return None


def vision(config: Any) -> Any:
    """The config that describes images: the first with a patch or image size."""
    if hasattr(config, "patch_size") or hasattr(config, "image_size"):
        for sub in ("vision_config", "image_config"):
            if hasattr(config, sub) and getattr(config, sub) is not None:
                return vision(getattr(config, sub))
        return config
    for sub in (
        "vision_config",
        "image_config",
        "backbone_config",
        "encoder",
        "thinker_config",
        "vlm_config",
        *(getattr(config, "sub_configs", None) or {}),
    ):
        inner = getattr(config, sub, None)
        if inner is not None and not isinstance(inner, dict) and vision(inner) is not None:
            return vision(inner)
    return None


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, dict):
        return value.get("height", 32), value.get("width", 32)
    if isinstance(value, (list, tuple)):
        return (value[0], value[-1])
    return value, value


def vocabulary(model: Any) -> int:
    """Number of tokens the model embeds."""
    with suppress(Exception):  # transformers raises where there is no table
        table = model.get_input_embeddings()
        if isinstance(table, torch.nn.Embedding):
            return table.num_embeddings
    size = _look(model.config, "vocab_size")
    return size if isinstance(size, int) else 128


# Vision


def _pixels(want: Wanted) -> torch.Tensor:
    config = vision(want.config) or want.config
    channels = next(
        (
            c
            for c in (
                getattr(config, n, None) for n in ("num_channels", "in_channels", "in_chans", "num_input_channels")
            )
            if isinstance(c, int)
        ),
        3,
    )
    patch = getattr(config, "patch_size", 8) or 8
    form = want.variant.get("pixels", "nchw")
    height, width = want.variant.get("image") or _pair(getattr(config, "image_size", None) or 64)
    if form.startswith("grid"):
        time = _pair(read(config, "temporal_patch_size") or read(config, "patch_temporal") or 1)[0]
        ph, pw = _pair(patch)
        count = int(_grid(want).prod(-1).sum())
        shapes = {
            "grid": (count, channels * time * ph * pw),
            "grid4": (count, channels, ph, pw),
            "grid5": (1, count, channels, ph, pw),
        }
        return want.normal(*shapes[form])
    if form == "patches":
        ph, pw = _pair(patch)
        return want.normal(BATCH, 16, channels * ph * pw)
    if form == "bnchw":
        return want.normal(BATCH, 1, channels, height, width)
    if form == "bn3chw":
        return want.normal(BATCH, 3, channels, height, width)
    if form == "video":
        frames = want.look("num_frames", "frames_per_clip", default=4)
        return want.normal(BATCH, frames, channels, height, width)
    return want.normal(BATCH, channels, height, width)


def _grid(want: Wanted) -> torch.Tensor:
    return want.made.setdefault("_grid", torch.tensor([[1, 4, 4], [1, 4, 8]]))


def _grid_hidden(want: Wanted) -> torch.Tensor:
    if "grid_thw" in want.parameters or "image_grid_thw" in want.parameters:
        _grid(want)
        config = want.config
        time = _pair(read(config, "temporal_patch_size") or read(config, "patch_temporal") or 1)[0]
        ph, pw = _pair(getattr(config, "patch_size", 8))
        channels = (
            getattr(config, "num_channels", None)
            or getattr(config, "in_channels", None)
            or getattr(config, "in_chans", 3)
        )
        return want.normal(int(want.made["_grid"].prod(-1).sum()), channels * time * ph * pw)
    return _states(want)


def _shapes(want: Wanted) -> torch.Tensor | None:
    """Rows and columns of patches of each image."""
    return torch.tensor([[4, 4], [2, 4]]) if "pixel_attention_mask" in want.parameters else None


def _pixel_mask(want: Wanted) -> torch.Tensor | None:
    shapes = want.made.get("spatial_shapes")
    if shapes is None:
        pixels = want.made.get("pixel_values")
        return (
            None
            if pixels is None or pixels.dim() < 4
            else torch.ones(*pixels.shape[:-3], *pixels.shape[-2:], dtype=torch.bool)
        )
    return (torch.arange(16) < shapes.prod(-1)[:, None]).long()


def _states(want: Wanted) -> torch.Tensor:
    return want.normal(BATCH, TEXT, want.look("hidden_size", "d_model", "n_embd", default=64))


def _sizes(want: Wanted) -> torch.Tensor | None:
    """Heights and widths before padding; twice as wide where an image comes in three patches (whole, left, right)."""
    if not want.variant.get("sizes"):
        return None
    height, width = want.made["pixel_values"].shape[-2:]
    return torch.tensor([[height, width * (2 if want.variant.get("pixels") == "bn3chw" else 1)]] * BATCH)


# Audio


def _features(want: Wanted) -> torch.Tensor:
    bins = want.look(
        "num_mel_bins",
        "feature_projection_input_dim",
        "input_feat_per_channel",
        "input_feat_size",
        "n_mels",
        "input_dim",
        "feature_size",
        default=16,
    )
    time = want.look("max_source_positions", default=None)
    length = {"long": 2 * (time or 32), "short": 64, "round": 200}[want.variant.get("time", "short")]
    if want.variant.get("features", "bft") == "bft":
        return want.normal(BATCH, bins, length)
    if want.variant["features"] == "bcft":
        return want.normal(BATCH, 1, length, bins)
    return want.normal(BATCH, length, bins)


def _wave(want: Wanted) -> torch.Tensor:
    form = want.variant.get("wave", "bt")
    if form == "btf":
        return want.normal(BATCH, want.look("max_length", default=64), want.look("num_mel_bins", default=16))
    length = 4000
    return (
        want.normal(BATCH, length)
        if form == "bt"
        else want.normal(BATCH, want.look("audio_channels", default=1), length)
    )


def _features_mask(want: Wanted) -> torch.Tensor | None:
    features = want.made.get("input_features")
    if features is None:
        return None
    return torch.ones(BATCH, features.shape[-2 if want.variant.get("features") != "bft" else -1], dtype=torch.long)


def _wave_mask(want: Wanted) -> torch.Tensor | None:
    wave = want.made.get("input_values")
    return None if wave is None else torch.ones(BATCH, wave.shape[-1], dtype=torch.bool)


# Text


def _text(want: Wanted) -> torch.Tensor:
    high = min(_TEXT_HIGH, vocabulary(want.model))
    return want.integers(min(_TEXT_LOW, high // 2), high, BATCH, want.variant.get("text", TEXT))


def _decoder_text(want: Wanted) -> torch.Tensor:
    return want.integers(_TEXT_LOW, _TEXT_HIGH, BATCH, DECODER)


def _mask(want: Wanted) -> torch.Tensor | None:
    text = want.made.get("input_ids")
    if text is None:
        text = want.made.get("inputs_embeds")
    if text is None:
        return None
    mask = torch.ones(text.shape[:2], dtype=torch.long)
    mask[1:, -2:] = 0
    return mask


def _zeros_like_text(want: Wanted) -> torch.Tensor | None:
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
ALWAYS: dict[str, Maker] = {
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
    "token_type_ids": _zeros_like_text,
    "decoder_input_ids": _decoder_text,
    "bbox": _boxes,
    "image_sizes": _sizes,
    "use_cache": lambda want: False,
}
"""Arguments filled whenever the method has them, in this order."""

ASKED: dict[str, Maker] = {
    "hidden_states": _grid_hidden,
    "inputs_embeds": _states,
    "image": _pixels,
    "pixel_values_videos": lambda want: _pixels(
        Wanted(want.model, want.parameters, want.generator, {"pixels": "video"})
    ),
}
"""Arguments filled only where the method cannot do without them."""


def variants_of(model: Any) -> Iterator[dict[str, Any]]:
    """Plausible formats, the likeliest first."""
    names = inspect.signature(model.forward).parameters
    choices: dict[str, tuple[Any, ...]] = {}
    if "pixel_values" in names or "image" in names:
        choices["pixels"] = (
            ("grid", "grid4", "grid5")
            if "image_grid_thw" in names or "grid_thw" in names
            else (("patches",) if "spatial_shapes" in names else ("nchw", "bnchw", "bn3chw", "video"))
        )
        choices["image"] = (None, (64, 64))
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
    """All arguments for one format."""
    special = INPUTS.get(want.config.model_type, {})
    for name, make in (ALWAYS | ASKED).items():
        if name not in want.parameters or (name in ASKED and not want.required(name)):
            continue
        value = make(want)
        if value is not None:
            want.made[name] = value
    for name, maker in special.items():
        want.made[name] = maker(want)
    _place(want)
    return {name: value for name, value in want.made.items() if not name.startswith("_") and value is not None}


# Placeholders


_TOWERS = (
    (
        "image",
        "get_image_features",
        ("image_token_id", "image_token_index", "image_patch_id", "video_token_index"),
        ("pixel_values",),
    ),
    ("audio", "get_audio_features", ("audio_token_id", "audio_token_index"), ("input_features", "input_values")),
)


def _place(want: Wanted) -> None:
    """Put as many placeholder tokens into the text as the towers give features."""
    ids = want.made.get("input_ids")
    if ids is None or "_placed" in want.made:
        return
    kinds = torch.zeros_like(ids)
    for number, (_, method, tokens, sources) in enumerate(_TOWERS, 1):
        token = want.look(*tokens)
        if not isinstance(token, int) or not any(source in want.made for source in sources):
            continue
        get = next((getattr(module, method) for module in want.model.modules() if hasattr(module, method)), None)
        if get is None:
            continue
        share = _shares(get, want.made)
        if not any(share):
            continue
        width = max(share)
        added = want.integers(_TEXT_LOW, _TEXT_HIGH, BATCH, width)
        marks = torch.zeros_like(added)
        for row, some in enumerate(share):
            added[row, :some] = token
            marks[row, :some] = number
        ids = torch.cat((ids[:, :3], added, ids[:, 3:]), 1)
        kinds = torch.cat((kinds[:, :3], marks, kinds[:, 3:]), 1)
    if ids.shape == want.made["input_ids"].shape:
        return
    want.made["input_ids"] = ids
    for name in ("attention_mask", "token_type_ids"):
        if name in want.made:
            want.made[name] = ALWAYS[name](want)
    if "token_type_ids" in want.made:
        want.made["token_type_ids"] = (kinds > 0).long()
    if "mm_token_type_ids" in want.parameters:
        want.made["mm_token_type_ids"] = kinds


def _shares(get: Any, made: Mapping[str, Any]) -> list[int]:
    """Rows of features that a tower gives for each text of the batch."""
    accepted = inspect.signature(get).parameters
    given = {
        name: value for name, value in made.items() if name in accepted and name not in ("input_ids", "attention_mask")
    }
    with in_double():
        found = get(**given)
    pooled = getattr(found, "pooler_output", None)
    found = found if pooled is None else pooled
    if isinstance(found, (list, tuple)) and len(found) == BATCH:
        return [_rows(item) for item in found]
    count = _rows(found)
    return [count - count // BATCH * (BATCH - 1)] + [count // BATCH] * (BATCH - 1)


def _rows(found: Any) -> int:
    pooled = getattr(found, "pooler_output", None)
    found = found if pooled is None else pooled
    if isinstance(found, torch.Tensor):
        return found.numel() // found.shape[-1]
    if isinstance(found, (list, tuple)):
        return sum(_rows(item) for item in found)
    return _rows(found[0]) if hasattr(found, "to_tuple") else 0
