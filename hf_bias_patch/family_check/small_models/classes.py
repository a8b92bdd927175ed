"""Which class of transformers holds all towers of a config."""

from __future__ import annotations

import copy
import inspect
import re
import warnings
from typing import TYPE_CHECKING, Any

import torch

from hf_bias_patch.errors import FamilyError
from hf_bias_patch.family_check.small_models.overrides import CLASSES
from hf_bias_patch.models.classes import modeling_modules, named_class

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["class_of", "stock_classes"]

_PREFERRED = ("Model", "ForPreTraining", "ForConditionalGeneration", "ForCausalLM", "ForMaskedLM", "")
_chosen: dict[tuple[type, str], Any] = {}


def class_of(config: PreTrainedConfig) -> Any:
    """The class that holds most attention modules; the plain model where several hold as many.

    Raises:
        FamilyError: there is none.
    """
    key = type(config), CLASSES.get(config.model_type, "")
    if key not in _chosen:
        _chosen[key] = _choose(config)
    return _chosen[key]


def stock_classes(config: PreTrainedConfig) -> dict[Any, PreTrainedConfig]:
    """The classes that a checkpoint of a config's type may be saved from → the config each takes.

    These are what the Auto classes give for it, which is the text model's where a class takes that config alone, and
    all others that transformers exports for exactly this config.
    """
    import transformers

    names = dict.fromkeys(_auto_names(config.model_type))
    own = {one.__name__: one for one in _candidates(config)}
    names |= dict.fromkeys(name for name, one in own.items() if getattr(transformers, name, None) is one)
    found: dict[Any, PreTrainedConfig] = {}
    text = getattr(config, "text_config", None)
    for name in names:
        cls = named_class(name, type(config))
        wanted = getattr(cls, "config_class", None)
        if wanted is type(config) or (text is not None and wanted is type(text)):
            found[cls] = config if wanted is type(config) else text
    return found


def _auto_names(model_type: str) -> list[str]:
    """The classes that transformers' Auto classes name for a type."""
    from transformers.models.auto import modeling_auto

    found = []
    for key, mapping in vars(modeling_auto).items():
        if re.fullmatch(r"MODEL_.*MAPPING_NAMES", key):
            named = mapping.get(model_type, ())
            found += [named] if isinstance(named, str) else list(named)
    return found


def _choose(config: PreTrainedConfig) -> Any:
    named = CLASSES.get(config.model_type)
    if named:
        if (found := named_class(named, type(config))) is None:
            raise FamilyError(f"transformers has no class {named}")
        return found
    candidates = _candidates(config)
    if not candidates:
        raise FamilyError(f"transformers has no model class for {config.model_type!r}")
    if len(candidates) == 1:
        return candidates[0]
    return max(candidates, key=lambda cls: (_attention_modules(cls, config), -candidates.index(cls)))


def _candidates(config: PreTrainedConfig) -> list[Any]:
    """Classes for exactly this config, the most plain first."""
    from transformers import PreTrainedModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    found: dict[str, Any] = {}
    if type(config) in MODEL_MAPPING:
        plain = _plain(config)
        for cls in plain if isinstance(plain, (list, tuple)) else [plain]:
            found[cls.__name__] = cls
    others: list[tuple[str, Any]] = []
    for module in modeling_modules(type(config)):
        for name, cls in vars(module).items():
            if not (inspect.isclass(cls) and issubclass(cls, PreTrainedModel) and cls.__module__ == module.__name__):
                continue
            if getattr(cls, "config_class", None) is type(config) and not _abstract(cls):
                others.append((name, cls))
    others.sort(key=lambda item: _rank(item[0]))
    for name, cls in others:
        found.setdefault(name, cls)
    return list(found.values())


def _plain(config: PreTrainedConfig) -> Any:
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    try:
        return MODEL_MAPPING[type(config)]
    except ValueError:  # the mapping names a class that is not there
        return []


def _abstract(cls: Any) -> bool:
    from transformers import PreTrainedModel

    return re.search(r"PreTrainedModel$|PretrainedModel$", cls.__name__) is not None or cls.forward in (
        torch.nn.Module.forward,
        PreTrainedModel.forward,
    )


def _rank(name: str) -> int:
    return next(i for i, end in enumerate(_PREFERRED) if name.endswith(end))


def _attention_modules(cls: Any, config: PreTrainedConfig) -> int:
    """How many attention modules an instance has; -1 if there can be no instance."""
    for device in ("meta", "cpu"):  # some constructors compute
        try:
            with warnings.catch_warnings(), torch.device(device):
                warnings.simplefilter("ignore")
                model = cls(copy.deepcopy(config))  # constructors write into it
            break
        except Exception:
            continue
    else:
        return -1
    return sum(bool(re.search("attention|attn", type(module).__name__.lower())) for module in model.modules())
