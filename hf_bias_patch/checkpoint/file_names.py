"""What a file's name says about the weights in it, for files whose content is not or cannot be read."""

from __future__ import annotations

import re
from fnmatch import fnmatch

from hf_bias_patch.checkpoint.sidecar import is_adapter_weights

__all__ = [
    "OPTIMISER", "OTHER_FORMAT", "TRAINING", "UNPATCHED", "left_by_folder", "left_by_name", "may_be_variant",
    "may_hold_weights", "says_weights",
]  # fmt: skip

OTHER_FORMAT = "the unpatched weights in another format"
UNPATCHED = "the unpatched weights"
OPTIMISER = "states of an optimiser, which go with the unpatched weights"
TRAINING = "a training state, which may hold the unpatched weights"

# Formats that only hold weights of whole models.
_EXPORTS = (
    "*.onnx", "*.onnx_data*", "*.onnx.data", "openvino*model*.xml", "openvino*model*.bin", "*.gguf", "*.ggml",
    "*.tflite", "*.mlmodel", "*.h5", "*.h5.index.json", "*.keras", "*.msgpack", "*.msgpack.index.json", "*.ot",
    "*.ckpt.*", "*.pdparams", "*.nemo", "*.pte", "*.engine", "saved_model.pb", "variables.data-*", "variables.index",
    "group*-shard*of*.bin", "*.distcp",
)  # fmt: skip

# What stock transformers, or those who first published a model, call a model's weights.
_STOCK = re.compile(
    r"(pytorch_model|model)(-\d+-of-\d+)?\.(bin|safetensors)(\.index\.json)?|consolidated(\.\d+)?\.(pth|safetensors)"
    r"|[^/]*\.safetensors\.index(\.\w+)?\.json|[^/]*\.bin\.index(\.\w+)?\.json"
)
_VARIANT = re.compile(r"(pytorch_model|model)[.-].*\.(bin|safetensors)")
_NO_MODEL = re.compile(r".*(tokenizer|processor|head|classifier|adapter|lora|vector|imatrix).*", re.IGNORECASE)
_OPTIMISER = re.compile(r"(.*_)?optim(izer)?(_states?)?([._-].*)?\.(pt|pth|bin|pkl|safetensors)")

# What a trainer keeps that is no weights.
_TRAINER = (
    "training_args.bin",
    "scheduler*.pt",
    "scheduler*.bin",
    "scaler*.pt",
    "rng_state*.pth",
    "random_states*.pkl",
)

_SAYS = re.compile(r".*(model|weight|checkpoint|state_dict).*|.*\.(bin|pth?|ckpt|th|safetensors)", re.IGNORECASE)

_FOLDERS = {
    r".*\.mlpackage|.*\.mlmodelc": OTHER_FORMAT,
    r"checkpoint-\d+|global_step\d+": TRAINING,
    r"optimizer(_\d+)?": OPTIMISER,
}


def left_by_name(name: str) -> str | None:
    """What a file holds that a variant must not, by its name alone; None where the name does not tell.

    Args:
        name: relative to the folder, with "/" between parts. The checkpoint's own weight files count as well.
    """
    *folders, file = name.split("/")
    if what := next((what for part in folders if (what := left_by_folder(part))), None):
        return what
    if any(fnmatch(file, pattern) for pattern in _EXPORTS) and not _NO_MODEL.fullmatch(file):
        return OTHER_FORMAT
    if _OPTIMISER.fullmatch(file):
        return OPTIMISER
    # Below the root these may be another module's own weights (sentence-transformers' 2_Dense).
    return UNPATCHED if not folders and _STOCK.fullmatch(file) else None


def left_by_folder(name: str) -> str | None:
    """The same of a folder by its own name: nothing is taken from it."""
    return next((what for pattern, what in _FOLDERS.items() if re.fullmatch(pattern, name)), None)


def may_be_variant(name: str) -> bool:
    """Whether a file in the root is called as the weights in another precision are, which `variant=` asks for."""
    return _VARIANT.fullmatch(name) is not None


def may_hold_weights(name: str) -> bool:
    """Whether it is worth looking into a file: adapters, and what a trainer keeps beside them, are not weights."""
    return not (is_adapter_weights(name) or any(fnmatch(name, pattern) for pattern in _TRAINER))


def says_weights(name: str) -> bool:
    """Whether the name of a large file says that it holds weights, for files whose content cannot be recognised."""
    return _SAYS.fullmatch(name.rpartition("/")[2]) is not None
