"""The model type of a config.json that names none, as in 2019: given by the user, never guessed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hf_bias_patch.architecture.family import model_types
from hf_bias_patch.architecture.suggest import alike, hint
from hf_bias_patch.checkpoint.shorten import brief
from hf_bias_patch.errors import FamilyError

__all__ = ["no_model_type", "saved_class", "type_of_class", "with_model_type"]


def with_model_type(config: Mapping[str, Any], model_type: str | None) -> Mapping[str, Any]:
    """A config with the model type that the user says, where it names none.

    Args:
        config: a parsed config.json.
        model_type: such as `bert`; None if the user says nothing.

    Raises:
        FamilyError: the config names another.
    """
    named = config.get("model_type")
    if model_type is None or named == model_type:
        return config
    if named:
        raise FamilyError(
            f"config.json names the model type {brief(named)}, and {model_type!r} was given",
            why="Stock transformers uses the type in config.json",
            remedy="Leave the model type out: --model-type, or in Python model_type",
        )
    return {**config, "model_type": model_type}


def no_model_type(config: Mapping[str, Any], tensors: Iterable[str]) -> FamilyError:
    """The error for a config that names no model type; it offers a guess where there is one."""
    names = list(tensors)
    guess, why = type_of_class(config), f"Its `architectures` is {brief(config.get('architectures'))}"
    if not guess:
        guess = next((name for name in model_types() if any(each.startswith(f"{name}.") for each in names)), "")
        why = f"Its tensor names begin with `{guess}`"
    if not guess:
        found = alike(names)
        guess = found[0] if len(found) == 1 and found[0] in model_types() else ""
        why = hint(names) or "Attention sites cannot be told from tensor names alone"
    say = guess or "TYPE"
    perhaps = f"If it is of type {guess}, say it" if guess else "Say which it is"
    return FamilyError(
        "config.json has no `model_type`",
        why=why,
        remedy=f'{perhaps}: --model-type {say}, in Python model_type="{say}"; or add the field to config.json',
    )


def saved_class(config: Mapping[str, Any]) -> str:
    """The class that a model was saved as; empty if config.json names none."""
    classes = config.get("architectures")
    named = classes[0] if isinstance(classes, list) and classes else ""
    return named if isinstance(named, str) else ""


def type_of_class(config: Mapping[str, Any]) -> str:
    """The model type that the saved class's name begins with: `bert` of `BertModel`. Empty if no known type fits."""
    saved = _plain(saved_class(config))
    return max((name for name in model_types() if saved.startswith(_plain(name))), key=len, default="")


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
