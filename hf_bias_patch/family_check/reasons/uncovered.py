"""Attention biases that no site covers: which a model has by its modules' classes, and why that is right.

The reasons are the table `uncovered.toml`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hf_bias_patch.architecture.family import family_of, is_known
from hf_bias_patch.family_check.reasons import reason_of

__all__ = ["attention_parameters", "reason_for"]

_ATTENTION = re.compile(r"(?i:attention|attn)(?!.*(Layer|Block|Head|Merger|Cell|Decoder|Encoder|Model)$)")
"""The class of an attention; not of something larger that has its name."""
_ELSEWHERE = re.compile(r"norm|mlp|feed_?forward|pos(?![a-z])|position", re.IGNORECASE)


def attention_parameters(model: Any) -> Iterator[str]:
    """The biases that belong to attention by the classes of the modules they are in, whatever they are called.

    Args:
        model: a torch module.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, value in model.named_parameters(remove_duplicate=False):
        parts = name.split(".")
        if "bias" not in parts[-1] or value.dim() != 1:
            continue
        for count in range(len(parts) - 1, 0, -1):
            kind = type(modules[".".join(parts[:count])]).__name__
            if _ATTENTION.search(kind):
                yield name
            if _ATTENTION.search(kind) or _ELSEWHERE.search(f"{kind}.{parts[count - 1]}"):
                break


def reason_for(config: Mapping[str, Any], class_name: str, name: str) -> str:
    """The reason why no site covers a bias; empty if none is given.

    Args:
        config: of the model that it is in; one with a family.
        class_name: of that model.
        name: the bias's.
    """
    if tower := _unknown_tower(config, name):
        return f"no family covers {tower}"
    return reason_of("uncovered", config, class_name, name)


def _unknown_tower(config: Mapping[str, Any], name: str) -> str:
    """The model type of the tower that a bias is in, if no family covers it; empty otherwise."""
    for tower in family_of(config).towers.values():
        part = config.get(tower.config)
        model_type = part.get("model_type") or tower.model_type if isinstance(part, Mapping) else ""
        inside = any(f".{part}." in f".{name}" for part in tower.under if part)
        if inside and model_type and not is_known(model_type):
            return str(model_type)
    return ""
