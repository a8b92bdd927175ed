"""Whether a checkpoint's weights are quantised: told by config.json, by the tensors' names and by their dtypes.

Every quantised format keeps, beside its packed integers, tensors under names of its own (scales, zero points). So a
format is known even where config.json does not name it, and a config.json that names one is known to be wrong where
no such tensor is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hf_bias_patch.checkpoint.dtypes import FLOATS
from hf_bias_patch.checkpoint.shorten import brief

__all__ = ["PACKED_NAMES", "Quantised", "quantised"]

PACKED_NAMES = (
    "qweight", "weight_packed", "W_q", "codes", "dqweight", "weight_qdata", "weight._data", "dense_weights", "indices",
    "q_weight", "trellis", "Qidxs", "compressed",
)  # fmt: skip
"""What stands in the place of `weight` where that is packed."""

_ENDINGS = {
    "weight_packed": "compressed-tensors", "bitmask": "compressed-tensors", "weight_shape": "compressed-tensors",
    "g_idx": "GPTQ", "qzeros": "GPTQ or AWQ", "qweight": "GPTQ or AWQ",
    "SCB": "bitsandbytes", "absmax": "bitsandbytes", "quant_map": "bitsandbytes",
    "W_q": "HQQ", "weight_scales": "EETQ", "weight_scale_inv": "fp8", "weight_scale_2": "ModelOpt",
    "weight_qdata": "torchao", "_data": "quanto", "codebooks": "AQLM", "centroids": "VPTQ", "tables2": "HIGGS",
    "col_vals": "SpQR", "dqweight": "FP-Quant", "qbiases": "Metal", "q_weight": "EXL2", "trellis": "EXL3",
    "Qidxs": "QuIP", "weight_scale": "fp8 or int8",
}  # fmt: skip
"""The last part of a tensor's name → the format that has such."""

_INSIDE = {".quant_state.": "bitsandbytes", "_proj_blocks": "MXFP4", "_proj_scales": "MXFP4"}
"""The same of what stands elsewhere in a name."""

_KEYS = ("quantization_config", "compression_config", "quantization")
_PARTS = ("text_config", "vision_config", "llm_config", "language_config", "thinker_config")


class _Stored(Protocol):
    @property
    def dtype(self) -> str: ...


@dataclass(frozen=True)
class Quantised:
    """What says that a checkpoint is quantised.

    Attributes:
        method: the format, as config.json calls it, else as the tensors tell.
        key: the entry of config.json that says so; empty if none does.
        count: how many tensors are of that format; 0 where only config.json says so.
        example: the first of them; empty if there is none.
    """

    method: str
    key: str
    count: int
    example: str

    @property
    def leftover(self) -> bool:
        """Whether config.json speaks of a format that no tensor has."""
        return not self.count

    @property
    def what(self) -> str:
        """One sentence without its end."""
        if self.leftover:
            return f"config.json: `{self.key}` says that the weights are quantised ({self.method}), and they are not"
        return f"{self.count:,} tensors are quantised ({self.method}), the first of them {self.example}"


def quantised(config: Mapping[str, Any], tensors: Mapping[str, _Stored]) -> Quantised | None:
    """What says that a checkpoint is quantised; None if nothing does.

    Args:
        config: a parsed config.json.
        tensors: parameter name → dtype.
    """
    key, said = _said(config)
    formats = {name: found for name, tensor in tensors.items() if (found := _format(name, tensor.dtype))}
    if not (key or formats):
        return None
    named = dict.fromkeys(formats.values())
    # What two formats have in common, or a dtype alone, tells less than a name that one of them has.
    method = said or min(named, key=lambda name: (name.startswith("stored as"), " or " in name), default="")
    return Quantised(method or "no method named", key, len(formats), min(formats, default=""))


def _said(config: Mapping[str, Any]) -> tuple[str, str]:
    """The entry of a config, or of a model's inside it, that says so, and the format it names."""
    places = {"": config, **{f"{part}.": config.get(part) for part in _PARTS}}
    for before, place in places.items():
        for key in _KEYS:
            entry = place.get(key) if isinstance(place, Mapping) else None
            if entry:
                return before + key, _method(entry)
    return "", ""


def _method(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return ""
    if method := entry.get("quant_method"):
        return method if isinstance(method, str) and len(method) < 40 else brief(method)
    return "bitsandbytes" if entry.get("load_in_8bit") or entry.get("load_in_4bit") else ""


def _format(name: str, dtype: str) -> str:
    """The format that a tensor belongs to; empty if it is a plain one."""
    last = name.rpartition(".")[2]
    if last in _ENDINGS:
        return _ENDINGS[last]
    if found := next((form for inside, form in _INSIDE.items() if inside in name), ""):
        return found
    return f"stored as {dtype}" if last == "weight" and dtype not in FLOATS else ""
