"""What must have been loaded before two models can prove anything: nothing under test may hold made-up values.

What a checkpoint lacks is filled with the same values in source and variant, so whatever reads it agrees by
construction. That is harmless in a head or a pooler that was never trained, which comes behind everything under test,
and empties the proof anywhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hf_bias_patch.errors import VerifyError
from hf_bias_patch.evidence.compare import collect
from hf_bias_patch.evidence.outputs import AnyBatch, Inner, Outputs
from hf_bias_patch.models.load import Loaded

__all__ = ["listed", "missing_inside", "refuse_ignored", "refuse_made_up"]

_SHOWN = 3
_STATES = Inner(hidden_states=True)
_WHY = "What is not loaded gets the same made-up values in both models, so comparing them would prove nothing"


def refuse_ignored(loaded: Loaded, name: str, tensors: Collection[str]) -> None:
    """Refuse a model that does not use what is under test.

    Args:
        loaded: the model, with its load report.
        name: of the checkpoint.
        tensors: those under test, under their names in the files.

    Raises:
        VerifyError: a tensor under test was left over, or one could not be read.
    """
    if loaded.errors:
        raise VerifyError(f"{name} cannot be loaded completely", why="; ".join(loaded.errors))
    left_over, names, own = set(loaded.unexpected), _names_in_memory(loaded.model), set(loaded.model.state_dict())
    silent = loaded.model._keys_to_ignore_on_load_unexpected or ()

    def is_ignored(name: str) -> bool:
        """Whether the load report names it; or it does not, because the class's patterns say that it need not."""
        if not left_over and not any(re.search(pattern, name) for pattern in silent):
            return False
        known = {name, *names(name)}
        return bool(left_over & known) or (not own & known and any(re.search(pattern, name) for pattern in silent))

    if ignored := sorted(filter(is_ignored, tensors)):
        raise VerifyError(
            f"{type(loaded.model).__name__} does not use {len(ignored)} of the tensors under test in {name}: "
            f"{listed(ignored)}",
            why="Stock transformers leaves them out when it loads the checkpoint, so changes in them have no effect",
            remedy=_remedy(loaded, "Use the config.json that was saved with these weights"),
        )


def _names_in_memory(model: Any) -> Callable[[str], tuple[str, ...]]:
    """What the load report may call a tensor of the files: transformers renames some for its classes."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, rename_source_key

    transforms = get_model_conversion_mapping(model)
    converters = [each for each in transforms if isinstance(each, WeightConverter)]
    renamings = [each for each in transforms if not isinstance(each, WeightConverter)]
    base = f"{model.base_model_prefix}."

    def names(name: str) -> tuple[str, ...]:
        renamed = rename_source_key(name, renamings, converters)[0]
        return renamed, base + renamed, renamed.removeprefix(base)

    return names


def refuse_made_up(loaded: Loaded, name: str, batches: Sequence[AnyBatch]) -> None:
    """Refuse a model whose hidden states depend on parameters that its checkpoint lacks.

    All of these are moved, and no hidden state of any layer may follow: then they belong to a head, which only reads
    the states, or to nothing that runs.

    Args:
        loaded: the model in float64; its values are changed for the time being.
        name: of the checkpoint.
        batches: inputs.

    Raises:
        VerifyError: they do; or it gives out no hidden states to tell by, and some are of the base model.
    """
    if not loaded.missing:
        return
    before = collect(loaded.model, batches, _STATES)
    with _moved(loaded.model, loaded.missing):
        after = collect(loaded.model, batches, _STATES)
    pairs = zip(before, after, strict=True)
    equal = [key in other and other[key].equal(one[key]) for one, other in pairs for key in _states(one)]
    if all(equal) if equal else not missing_inside(loaded):
        return
    lacking = missing_inside(loaded) or list(loaded.missing)
    raise VerifyError(
        f"{name} lacks {len(lacking)} of the parameters that {type(loaded.model).__name__} needs: {listed(lacking)}",
        why=_WHY,
        remedy=_remedy(loaded, "Use a checkpoint that holds all of the model but a head"),
    )


def _states(outputs: Outputs) -> list[str]:
    """The outputs that are hidden states."""
    return [name for name in outputs if name.startswith("hidden_states.") or name.endswith("last_hidden_state")]


def missing_inside(loaded: Loaded) -> list[str]:
    """Parameters of the base model that its checkpoint lacks."""
    prefix = f"{loaded.model.base_model_prefix}."
    headless = loaded.model.base_model is loaded.model
    return [name for name in loaded.missing if headless or name.startswith(prefix)]


@contextmanager
def _moved(model: Any, names: Sequence[str]) -> Iterator[None]:
    tensors = dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)])
    kept = {name: tensors[name].detach().clone() for name in names if name in tensors}
    try:
        for name, values in kept.items():
            if values.is_floating_point():
                tensors[name].data.copy_(2 * values + 1)
        yield
    finally:
        for name, values in kept.items():
            tensors[name].data.copy_(values)


def _remedy(loaded: Loaded, otherwise: str) -> str:
    """Names the prefix in the way, where the tensors left over are those that are missing under one."""
    prefixes = [_before(key, loaded.missing) for key in loaded.unexpected]
    found = max(set(filter(None, prefixes)), key=prefixes.count, default="")
    if not found:
        return otherwise
    return f"Remove {found!r} from the tensor names: stock transformers looks for these tensors without it"


def _before(key: str, missing: Collection[str]) -> str:
    parts = re.split(r"(?<=\.)", key)
    return next(("".join(parts[:cut]) for cut in range(1, len(parts)) if "".join(parts[cut:]) in missing), "")


def listed(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
