"""Random inputs that reach every tower of a small model, and a run of it."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_bias_patch.errors import VerifyError
from hf_bias_patch.models.float64 import in_double
from hf_bias_patch.models.inputs.by_name import fill, variants_of
from hf_bias_patch.models.inputs.optional import options, reach_more
from hf_bias_patch.models.inputs.other_by_type import OTHERS
from hf_bias_patch.models.inputs.wanted import Wanted

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["forget", "inputs_of", "more_for", "run", "run_all", "sets_of"]


def sets_of(model: PreTrainedModel, seed: int = 0) -> list[dict[str, Any]]:
    """Random inputs for a small model: with all that can reach its attention; where that is more, also without.

    Args:
        model: from small_model.
        seed: of the values.

    Returns:
        The arguments of a run each, those without optional ones at the end.

    Raises:
        VerifyError: as `inputs_of`.
    """
    plain = inputs_of(model, seed)
    more = more_for(model, plain, seed)
    other = _other(Wanted.of(model, seed), plain)
    others = [other] if other and _runs(model, other) else []
    return [plain | more, *others, plain] if reach_more(more) else [*others, plain | more]


def _other(want: Wanted, plain: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs of another kind; empty where a type has none."""
    made = {name: make(want) for name, make in OTHERS.get(want.config.model_type, {}).items()}
    return {name: value for name, value in {**plain, **made}.items() if value is not None} if made else {}


def inputs_of(model: PreTrainedModel, seed: int = 0) -> dict[str, Any]:
    """Random inputs for a small model; the first of the plausible formats that it accepts.

    Optional ones are among them only where it does not run without (LUKE's heads for entities).

    Args:
        model: from small_model.
        seed: of the values.

    Raises:
        VerifyError: it accepts none; the message holds its first complaint.
    """
    first: Exception | None = None
    said: list[str] = []
    for variant in variants_of(model):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                inputs = fill(Wanted.of(model, seed, variant))
                more = {} if _runs(model, inputs) else options(Wanted.of(model, seed), inputs)
                run(model, inputs | more)
            return inputs | more
        except Exception as error:
            first = first or error
            said.append(f"{variant}: {type(error).__name__}: {str(error)[:200]}")
    raise VerifyError(f"No inputs found for {type(model).__name__}", why="\n".join(dict.fromkeys(said))) from first


def more_for(model: PreTrainedModel, plain: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    """Random optional arguments that a model takes beside given ones, and that make more of its attention run.

    Args:
        model: in float64.
        plain: arguments that it runs with.
        seed: of the values.
    """
    more = options(Wanted.of(model, seed), plain)
    found = dict(more)
    if found and _runs(model, {**plain, **found}):
        return found
    found = {}
    for name, value in more.items():
        if _runs(model, {**plain, **found, name: value}):
            found[name] = value
    return found


def _runs(model: PreTrainedModel, inputs: Mapping[str, Any]) -> bool:
    try:
        run(model, inputs)
    except Exception:  # of any kind: what a model does not take is told in many ways
        return False
    return True


def run_all(model: PreTrainedModel, sets: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """The outputs of a run on each set of inputs, by the number of the set and their name."""
    found = (run(model, inputs) for inputs in sets)
    return {f"{number}.{name}": value for number, outputs in enumerate(found) for name, value in outputs.items()}


def run(model: PreTrainedModel, inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Floating outputs by name, nested ones as `name.0` or `name.key`; twice the same for the same arguments."""
    random.seed(0)
    np.random.seed(0)
    forget(model)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), in_double():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        output = model(**inputs)
    return dict(_flat("", output))


def forget(model: torch.nn.Module) -> None:
    """Empty a model's own store of what it computed before (OmDet-Turbo's, for texts that it has seen).

    Else a parameter could move, and what was computed with its old values would hide it.
    """
    for module in model.modules():
        for store in vars(module).values():
            if type(store).__name__.endswith("LRUCache"):
                store.cache.clear()
                store.current_load = 0


def _flat(name: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        if value.is_floating_point() and value.numel():
            yield name or "output", value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in ("past_key_values", "cache"):
                yield from _flat(f"{name}.{key}" if name else str(key), item)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _flat(f"{name}.{index}" if name else str(index), item)
