"""Which class of transformers a checkpoint is loaded as."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any

from hf_bias_patch.architecture.model_type import saved_class
from hf_bias_patch.checkpoint.shorten import brief
from hf_bias_patch.errors import CheckpointError, VerifyError

__all__ = ["class_for", "modeling_modules", "named_class", "remote_class", "stock_class"]


def named_class(name: str, config_class: type) -> Any | None:
    """A class of the installed transformers by its name, also where transformers does not export it; else None.

    Args:
        name: such as `BertForMaskedLM`; may be empty.
        config_class: the class of the config that it takes, which tells the modules it may be in.
    """
    found = getattr(importlib.import_module("transformers"), name or "-", None)
    if found is not None or not name:
        return found
    try:
        return next((getattr(module, name) for module in modeling_modules(config_class) if hasattr(module, name)), None)
    except (ImportError, AttributeError):  # a config from elsewhere has no such modules beside it
        return None


def modeling_modules(config_class: type) -> Iterator[Any]:
    """The `modeling_*` modules in the package of a config class."""
    package = config_class.__module__.rsplit(".", 1)[0]
    for item in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if item.name.startswith("modeling_"):
            yield importlib.import_module(f"{package}.{item.name}")


def class_for(config: Any, auto_class: Any, where: str, trusted: bool = False) -> Any:
    """The class that a checkpoint of a config is loaded as.

    Args:
        config: as transformers reads it.
        auto_class: an Auto class, or a model class, which is taken as it is; None for the one it was saved from.
        where: the folder, for the error.
        trusted: whether code that comes with the checkpoint may run, for a type that transformers lacks.

    Raises:
        CheckpointError: transformers has no such class.
    """
    if auto_class is None:
        name = (config.architectures or [""])[0]
        if (found := named_class(name, type(config))) is None:
            raise CheckpointError(
                f"{where}/config.json names no architecture that transformers has ({name or 'none'})",
                remedy="Pass an Auto class, such as transformers.AutoModel",
            )
        return found
    mapping = getattr(auto_class, "_model_mapping", None)
    if mapping is None:
        return auto_class
    if type(config) in mapping:
        return mapping[type(config)]
    if trusted and auto_class.__name__ in (getattr(config, "auto_map", None) or {}):
        return auto_class
    raise CheckpointError(f"{auto_class.__name__} has no class for the model type {config.model_type!r}")


def stock_class(config: Mapping[str, Any], name: str) -> Any:
    """The class that config.json names in `architectures`, else the model of its type without a head.

    Args:
        config: config.json.
        name: of the checkpoint.

    Raises:
        VerifyError: its model type is missing or unknown, or is not that of the class.
    """
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    config_class = _config_class(config)
    found = MODEL_MAPPING.get(config_class, None)
    plain = found[0] if isinstance(found, (list, tuple)) else found
    named = named_class(saved_class(config), config_class)
    if named is not None and hasattr(named, "from_pretrained"):
        other = config_class is not named.config_class
        if plain is not None and other and plain.__module__ != named.__module__:
            raise VerifyError(
                f"config.json: `architectures` names {named.__name__}, and `model_type` is {config['model_type']}",
                why="Models of this type are of other classes",
                remedy="Use the config.json that was saved with these weights",
            )
        return named
    if plain is None:
        raise VerifyError(f"{name}: transformers has no base model (without a head) of type {config['model_type']!r}")
    return plain


def _config_class(config: Mapping[str, Any]) -> type:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise VerifyError(
            "config.json has no `model_type`"
            if model_type is None
            else f"config.json: model_type is {brief(model_type)}",
            why="transformers chooses the model class by that name",
            remedy="Restore the field from the model's original config.json",
        )
    if model_type not in CONFIG_MAPPING:
        brings = bool(config.get("auto_map"))
        raise VerifyError(
            f"The installed transformers has no model type {brief(model_type)}",
            why="The checkpoint has code of its own" if brings else "The checkpoint has no code for it either",
            remedy="Read that code, then `hf-bias-patch inspect MODEL --probe --trust-remote-code` (in Python "
            "`probe(…, trust_remote_code=True)`); no other command runs it"
            if brings
            else "Install a transformers that knows it",
        )
    found: type = CONFIG_MAPPING[model_type]
    return found


def remote_class(config: Mapping[str, Any]) -> Any:
    """The Auto class that loads a checkpoint's own code: that of its architecture, else `AutoModel`, else the first.

    Raises:
        VerifyError: config.json names no model of that code.
    """
    import transformers

    places = config["auto_map"].items() if isinstance(config["auto_map"], dict) else ()
    classes = {auto: str(place) for auto, place in places if auto.startswith("AutoModel")}
    if not classes:
        raise VerifyError("config.json: `auto_map` names no model", remedy="It must have an entry such as AutoModel")
    wanted = saved_class(config)
    named = [auto for auto, place in classes.items() if place.rpartition(".")[2] == wanted]
    return getattr(transformers, (named or (["AutoModel"] if "AutoModel" in classes else list(classes)))[0])
