"""Inputs for any model: as its type wants them where that is known, else by the names in its forward method."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from hf_bias_patch.errors import VerifyError
from hf_bias_patch.models.inputs.random_inputs import run, sets_of
from hf_bias_patch.probing.moves import change

__all__ = ["feeds", "require_repeatable"]

_BATCH, _TOKENS = 2, 11
_SIDES = (224, 32, 64, 384)
"""Of square images, tried where the config names no `image_size`."""


def feeds(model: Any, seed: int) -> list[dict[str, Any]]:
    """Random inputs that a model accepts: with all that can reach its attention; where that is more, also without.

    Args:
        model: in float64.
        seed: of the values.

    Raises:
        VerifyError: it accepts none; the message holds what it complained of.
    """
    complaints: list[str] = []
    try:
        return sets_of(model, seed)
    except Exception as error:  # a config of unknown code may break any assumption about its fields
        complaints.append(f"{type(error).__name__}: {str(error)[:400]}")
    for inputs in _by_name(model, torch.Generator().manual_seed(seed)):
        try:
            run(model, inputs)
            return [inputs]
        except Exception as error:
            complaints.append(f"{', '.join(inputs)}: {type(error).__name__}: {str(error)[:200]}")
    arguments = ", ".join(inspect.signature(model.forward).parameters)
    raise VerifyError(
        f"No inputs found that {type(model).__name__} runs on; forward takes ({arguments})",
        why="; ".join(dict.fromkeys(complaints)),
        remedy="Probe from Python: hf_bias_patch.probing.probe.probe(model, run), with a `run` that feeds it",
    )


def _by_name(model: Any, generator: torch.Generator) -> Iterator[dict[str, Any]]:
    """Token ids, pixels, or both, if forward has arguments of these names."""
    names = set(inspect.signature(model.forward).parameters)
    ids: dict[str, Any] = {
        name: torch.randint(0, _vocabulary(model), (_BATCH, _TOKENS), generator=generator)
        for name in ("input_ids", "decoder_input_ids")
        if name in names
    }
    if ids:
        yield ids
        yield {name: value for name, value in ids.items() if name == "input_ids"}
    if "pixel_values" in names:
        side = getattr(model.config, "image_size", None)
        for size in [side] if isinstance(side, int) else _SIDES:
            pixels = torch.randn(_BATCH, 3, size, size, generator=generator, dtype=torch.float64)
            yield {"pixel_values": pixels}
            if ids:
                yield {**ids, "pixel_values": pixels}


def _vocabulary(model: Any) -> int:
    """Rows of the first embedding: token ids stay below."""
    tables = [module.num_embeddings for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    return int(getattr(model.config, "vocab_size", None) or (tables[0] if tables else 100))


def require_repeatable(model: Any, inputs: Mapping[str, Any], limit: float) -> None:
    """Refuse a model that gives something else each time: a probe runs it from one seed, which would hide that.

    Raises:
        VerifyError: runs on the same inputs differ by more than `limit`, relatively.
    """
    first = run(model, inputs)
    moved = max(change(run(model, inputs), first), *(change(_run_from(model, inputs, seed), first) for seed in (1, 2)))
    if moved > limit:
        raise VerifyError(
            f"{type(model).__name__} is not deterministic: two runs on the same inputs differ by {moved:.1e}",
            why="Nothing can be told from outputs that move by themselves (dropout that stays on, or sampling)",
            remedy="Switch the randomness off in config.json",
        )


def _run_from(model: Any, inputs: Mapping[str, Any], seed: int) -> Mapping[str, torch.Tensor]:
    """A run whose random numbers, if it draws any, start from another seed than `run` gives it."""

    def reseed(*_: Any) -> None:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    handle = model.register_forward_pre_hook(reseed)
    try:
        return run(model, inputs)
    finally:
        handle.remove()
