"""Executes a plan on a model in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_bias_patch.architecture.sites import Site
from hf_bias_patch.checkpoint.dtypes import OF_TORCH, numpy_dtype
from hf_bias_patch.errors import ArgumentError, CheckpointError, PlanError
from hf_bias_patch.patching.leaving_out import in_part
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.recipe import Recipe
from hf_bias_patch.patching.request import Request
from hf_bias_patch.patching.rewrite import Rewrite

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Applied", "ModelTensors", "apply"]


@dataclass(frozen=True)
class _Info:
    dtype: str
    shape: tuple[int, ...]


class ModelTensors:
    """A model's parameters as named tensors (a `TensorReader`), read and written in place."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.parameters: dict[str, torch.nn.Parameter] = dict(model.named_parameters(remove_duplicate=False))

    @cached_property
    def tensors(self) -> Mapping[str, _Info]:
        """Parameter name → dtype (a safetensors name) and shape."""
        return {name: _Info(_dtype_name(value), tuple(value.shape)) for name, value in self.parameters.items()}

    def read(self, name: str) -> np.ndarray:
        """A copy of a parameter's values in its dtype."""
        return self._array(self.parameters[name].detach())

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """A copy of rows `start:stop` of a parameter."""
        return self._array(self.parameters[name].detach()[start:stop])

    def write(self, name: str, values: np.ndarray, start: int = 0) -> None:
        """Put `values` (in the parameter's dtype) in place of rows `start` and on."""
        import torch

        target = self.parameters[name].detach()
        raw = torch.from_numpy(np.ascontiguousarray(values).view(_WORDS[values.dtype.itemsize]))
        target[start : start + len(values)].copy_(raw.view(target.dtype))

    def shared(self, names: set[str]) -> tuple[str, str] | None:
        """A pair of names for one parameter, the first of them in `names`."""
        owners: dict[int, list[str]] = {}
        for name, value in self.parameters.items():
            owners.setdefault(value.data_ptr() if value.numel() else id(value), []).append(name)
        pairs = (group for group in owners.values() if len(group) > 1 and names & set(group))
        return next(((group[0], group[1]) for group in pairs), None)

    def _array(self, values: torch.Tensor) -> np.ndarray:
        if values.device.type == "meta":
            raise CheckpointError("The model is on the meta device", remedy="Load its weights first")
        import torch

        words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()]
        raw = values.contiguous().cpu().view(words).numpy()
        return raw.view(numpy_dtype(_dtype_name(values))).copy()


_WORDS = {1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}


def _dtype_name(values: torch.Tensor) -> str:
    name = str(values.dtype).removeprefix("torch.")
    return OF_TORCH.get(name, name)


class Applied:
    """A patched model. As a context manager, it puts the old values back on exit.

    Attributes:
        model: the model, changed in place.
        plan: what was done.
    """

    def __init__(self, model: PreTrainedModel, plan: Plan) -> None:
        self.model, self.plan = model, plan
        self._tensors = ModelTensors(model)
        self._old: dict[str, np.ndarray] = {}
        self._written: dict[str, bytes] = {}
        self._trained: dict[str, bool] = {}
        self._marks = _marks(plan)
        self._execute()
        for name, trains in self._marks.items():
            self._trained[name] = self._tensors.parameters[name].requires_grad
            self._tensors.parameters[name].requires_grad_(trains)

    def restore(self) -> None:
        """Put the old values back, bit for bit, and what an optimiser may touch. Does nothing the second time.

        Raises:
            PlanError: something else changed them since, such as a later `apply`; all stays as it is then.
        """
        self._refuse_changed()
        for name, values in self._old.items():
            self._tensors.write(name, values)
        for name, trains in self._trained.items():
            self._tensors.parameters[name].requires_grad_(trains)
        self._old.clear()
        self._trained.clear()

    def _refuse_changed(self) -> None:
        """The old values are those from before; put back over a later change, they would make a mixture of both."""
        tensors = self._tensors
        changed = [name for name in self._old if _digest(tensors.read(name)) != self._written[name]]
        changed += [name for name in self._trained if tensors.parameters[name].requires_grad != self._marks[name]]
        if changed:
            raise PlanError(
                f"{changed[0]} changed since it was patched",
                why="Putting the old values back would lose that change, or mix the two",
                remedy="If a later `apply` did it, restore that one first; if training did, load the model again",
            )

    def __enter__(self) -> PreTrainedModel:
        return self.model

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def _execute(self) -> None:
        tensors = self._tensors
        if pair := tensors.shared(set(self.plan.touched)):
            raise PlanError(
                f"{pair[0]} and {pair[1]} are one parameter",
                why="Editing one would edit the other",
                remedy="Untie them first, or leave these sites out with the recipe's selectors",
            )
        # All new values first: an overflow found in the last matrix must not leave the first ones changed.
        rewrite = Rewrite(self.plan, tensors)
        new = dict(rewrite.vectors)
        for weight in rewrite.matrices:
            new[weight] = np.concatenate([block.new for block in rewrite.blocks(weight)])
        for name, values in new.items():
            self._old[name] = tensors.read(name)
            self._written[name] = _digest(values)
            tensors.write(name, values)


def _digest(values: np.ndarray) -> bytes:
    """A checksum of the bytes: NaN equals itself, and -0 is not 0."""
    return hashlib.sha256(np.ascontiguousarray(values).view(np.uint8).data).digest()


def _marks(plan: Plan) -> dict[str, bool]:
    """Bias parameter → whether an optimiser may touch it, for those that the plan says something about."""
    marks = {edit.bias: edit.action == "train" for edit in plan.frozen}
    partly = [name for action in ("freeze", "train") for name in in_part(e for e in plan.frozen if e.action == action)]
    if partly:
        raise PlanError(
            f"{partly[0]} cannot be frozen or trained in part",
            why="query, key and value share this one parameter, and an optimiser sees it whole",
            remedy="Name all of query, key and value",
        )
    return marks


def apply(
    model: PreTrainedModel, recipe: Recipe | Plan | None = None, *, sites: Sequence[Site] | None = None, **fields: Any
) -> Applied:
    """Patch a model in memory. The values it gets are those a patched checkpoint of the same dtype would hold.

    Args:
        model: any supported transformers model, on any device. `freeze` and `train` set `requires_grad` of the
            biases they name, and of nothing else.
        recipe: a Recipe, or a Plan made for this model; or give a recipe's fields as keywords.
        sites: the attention sites and their verdicts, from a probe; by default the family's.

    Returns:
        The handle: `.plan` says what was done, `.restore()` undoes it, and so does leaving a `with` block. Where
        something else changed the same parameters in between (a later `apply`, training), that is refused.

    Raises:
        RecipeError, PlanError, FamilyError, CheckpointError: as for `plan`; the model is unchanged then. PlanError
            also for storage `absent`, and for a plan of another model or checkpoint.
        ArgumentError: `model` is no model, or `recipe` no recipe.

    Example:
        >>> with apply(model, fold="key,value"):  # doctest: +SKIP
        ...     evaluate(model)
    """
    if not (hasattr(model, "named_parameters") and hasattr(getattr(model, "config", None), "to_dict")):
        raise ArgumentError(
            f"`apply` takes a transformers model, and was given a {type(model).__name__}",
            remedy="Load the checkpoint first, or write a patched copy of it with `patch`",
        )
    request = Request.of(recipe, fields, sites)
    if request.recipe.storage == "absent":
        raise PlanError(
            "Storage `absent` is unsupported for a model in memory",
            why="The parameters could not be put back as they were",
            remedy="Write a variant with `patch` and load it with `load`, or keep storage `zeros`",
        )
    return Applied(model, request.resolve(model.config.to_dict(), ModelTensors(model)))
