"""Loads a checkpoint for a probe: float64, eager attention, evaluation mode."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from hf_bias_patch.attention.model_type import saved_class
from hf_bias_patch.attention.refusals import refuse_countless
from hf_bias_patch.checkpoint.capacity import available_memory
from hf_bias_patch.checkpoint.checkpoint import Checkpoint
from hf_bias_patch.checkpoint.quantised import quantised
from hf_bias_patch.checkpoint.shorten import brief
from hf_bias_patch.errors import BiasPatchError, VerifyError
from hf_bias_patch.probing.unfused import EXPERTS, attention_of

__all__ = ["load_double", "require_room"]

BYTES = 32
"""Bytes a parameter takes while it is probed: its value, a copy, the code it is followed by, and one of those moved."""


def require_room(parameters: int, name: str) -> None:
    """Refuse a model that does not fit.

    Raises:
        VerifyError: fewer bytes are free than a probe takes; the message names both numbers.
    """
    free, needed = available_memory(), BYTES * parameters
    if free is not None and needed > free:
        raise VerifyError(
            f"Probing {name} takes about {_amount(needed)} of memory, and {_amount(free)} are free",
            why="The whole model is run in float64, and every parameter is followed",
            remedy="Use a machine with more memory, or probe a smaller model of the same architecture and config",
        )


def _amount(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count:,} bytes"


def load_double(checkpoint: Checkpoint, name: str, *, trust_remote_code: bool = False) -> Any:
    """A checkpoint as a transformers model: the class it was saved from, else `AutoModel`.

    Args:
        checkpoint: an open checkpoint.
        name: what the user calls it.
        trust_remote_code: whether Python code that comes with the checkpoint may run.

    Raises:
        VerifyError: it does not fit into memory, is quantised, needs code that is not trusted, cannot be loaded, or its
            tensors are not those of the model that config.json describes.
    """
    require_room(checkpoint.parameters, name)
    refuse_countless(checkpoint.config, checkpoint.tensors)
    if (found := quantised(checkpoint.config, checkpoint.tensors)) is not None:
        raise VerifyError(
            f"{name} cannot be probed: {found.what}",
            why="A probe moves weights in float64",
            remedy=f"If the weights are meant to be plain, take `{found.key}` out of config.json"
            if found.leftover
            else "Probe the checkpoint that was quantised, as it was before",
        )
    try:
        with _quiet():
            model, info = _loaded(checkpoint.config, checkpoint.folder, name, trust_remote_code)
    except BiasPatchError:
        raise
    except Exception as error:  # transformers raises whatever comes up inside it
        if "ignore_mismatched_sizes" in str(error):  # it says no more than "look at the above report"
            raise VerifyError(
                f"The tensors of {name} do not have the shapes that config.json asks for",
                remedy="Use the config.json that was saved with these weights",
            ) from error
        raise VerifyError(
            f"{name} cannot be loaded in float64 with eager attention",
            why=f"{type(error).__name__}: {str(error).strip()}",
        ) from error
    _require_own_tensors(model, info["missing_keys"], checkpoint.config, name)
    return model.double().eval()


def _require_own_tensors(model: Any, missing: Collection[str], config: dict[str, Any], name: str) -> None:
    """Refuse a model that is mostly not in the checkpoint: transformers fills it with random numbers."""
    sizes = {key: parameter.numel() for key, parameter in model.named_parameters()}
    lacking = [key for key in missing if key in sizes]
    if 2 * sum(sizes[key] for key in lacking) <= sum(sizes.values()):
        return
    raise VerifyError(
        f"{name} lacks most tensors of a model of type {config.get('model_type')}, the first of them {min(lacking)}",
        why="A probe would be of random numbers",
        remedy="Use the config.json that was saved with these weights",
    )


def _loaded(config: dict[str, Any], folder: Path, name: str, trusted: bool) -> tuple[Any, dict[str, Any]]:
    import torch
    import transformers

    how: dict[str, Any] = {"dtype": torch.float64, "local_files_only": True, "output_loading_info": True}
    how["attn_implementation"] = attention_of(config.get("model_type"))
    if trusted and config.get("auto_map"):
        auto = getattr(transformers, _auto_class(config))
        return cast("tuple[Any, dict[str, Any]]", auto.from_pretrained(folder, trust_remote_code=True, **how))
    stock = _stock_class(config, name)
    if stock._can_set_experts_implementation():
        how["experts_implementation"] = EXPERTS
    return cast("tuple[Any, dict[str, Any]]", stock.from_pretrained(folder, **how))


def _stock_class(config: dict[str, Any], name: str) -> Any:
    """The class of the installed transformers: as named in `architectures`, else the plain model of the type."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    named = getattr(transformers, saved_class(config) or "-", None)
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise VerifyError(
            "config.json names no `model_type`"
            if model_type is None
            else f"config.json: model_type is {brief(model_type)}",
            why="transformers chooses the model class by that name",
            remedy="Restore the field from the model's original config.json",
        )
    if model_type not in CONFIG_MAPPING:
        brings = bool(config.get("auto_map"))
        raise VerifyError(
            f"The installed transformers has no model type {brief(model_type)}",
            why="The checkpoint brings code of its own" if brings else "The checkpoint brings no code for it either",
            remedy="Read that code, then `hf-bias-patch inspect MODEL --probe --trust-remote-code` (in Python "
            "`probe(…, trust_remote_code=True)`); no other command runs it"
            if brings
            else "Install a transformers that knows it",
        )
    own = CONFIG_MAPPING[model_type]
    found = MODEL_MAPPING.get(own, None)
    plain = found[0] if isinstance(found, (list, tuple)) else found
    if named is not None and hasattr(named, "from_pretrained"):
        if plain is not None and own is not named.config_class and plain.__module__ != named.__module__:
            raise VerifyError(
                f"config.json: a model of type {model_type} is no {named.__name__}, which `architectures` names",
                remedy="Use the config.json that was saved with these weights",
            )
        return named
    if plain is None:
        raise VerifyError(f"{name}: transformers has no plain model of type {model_type!r}")
    return plain


def _auto_class(config: dict[str, Any]) -> str:
    """The Auto class under which remote code has the architecture, else the plain one, else the first."""
    places = config["auto_map"].items() if isinstance(config["auto_map"], dict) else ()
    classes = {auto: str(place) for auto, place in places if auto.startswith("AutoModel")}
    if not classes:
        raise VerifyError("config.json: `auto_map` names no model", remedy="It must have an entry such as AutoModel")
    wanted = saved_class(config)
    named = [auto for auto, place in classes.items() if place.rpartition(".")[2] == wanted]
    return (named or (["AutoModel"] if "AutoModel" in classes else list(classes)))[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from writing load reports and progress bars."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
