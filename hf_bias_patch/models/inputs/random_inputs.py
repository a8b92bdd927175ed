"""Random inputs that reach every tower of a model: as its type wants them, else by the names in its forward method."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from hf_bias_patch.errors import VerifyError
from hf_bias_patch.models.inputs.by_name import fill, variants_of
from hf_bias_patch.models.inputs.by_type import OTHERS
from hf_bias_patch.models.inputs.optional import options, reach_more
from hf_bias_patch.models.inputs.wanted import BATCH, Wanted
from hf_bias_patch.models.run import run

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["accepted_sets", "inputs_of", "more_for", "sets_of"]

_TOKENS = 11
_SIDES = (224, 32, 64, 384)
"""Of square images, tried where the config names no `image_size`."""


def accepted_sets(model: Any, seed: int) -> list[dict[str, Any]]:
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
    for inputs in _by_argument(model, torch.Generator().manual_seed(seed)):
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


def _by_argument(model: Any, generator: torch.Generator) -> Iterator[dict[str, Any]]:
    """Token ids, pixels, or both, if forward has arguments of these names."""
    names = set(inspect.signature(model.forward).parameters)
    ids: dict[str, Any] = {
        name: torch.randint(0, _vocabulary(model), (BATCH, _TOKENS), generator=generator)
        for name in ("input_ids", "decoder_input_ids")
        if name in names
    }
    if ids:
        yield ids
        yield {name: value for name, value in ids.items() if name == "input_ids"}
    if "pixel_values" in names:
        side = getattr(model.config, "image_size", None)
        for size in [side] if isinstance(side, int) else _SIDES:
            pixels = torch.randn(BATCH, 3, size, size, generator=generator, dtype=torch.float64)
            yield {"pixel_values": pixels}
            if ids:
                yield {**ids, "pixel_values": pixels}


def _vocabulary(model: Any) -> int:
    """Rows of the first embedding: token ids stay below."""
    tables = [module.num_embeddings for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    return int(getattr(model.config, "vocab_size", None) or (tables[0] if tables else 100))


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
