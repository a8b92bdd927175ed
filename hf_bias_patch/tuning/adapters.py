"""LoRA and BEFT, through peft: what a bias is compared with."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.sites import Site
from hf_bias_patch.errors import TuneError
from hf_bias_patch.patching.in_memory import ModelTensors
from hf_bias_patch.tuning.head import head_of
from hf_bias_patch.tuning.set_trainable import refuse_kept
from hf_bias_patch.tuning.trainable import Trainable, TrainableTensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["RANK", "add", "shortened"]

RANK = 8
"""Of LoRA's matrices, on the query and value maps, as in its paper (arXiv 2106.09685); alpha is twice that."""

_TARGETS = {"lora": ("query", "value"), "beft": ("value",)}
_CHANGES = {"lora": "weight", "beft": "bias"}
_INSTEAD = {"lora": "Train biases, which any model takes: `value`", "beft": "Train the bias itself: `value`"}


def add(
    model: PreTrainedModel,
    kind: str,
    *,
    head: bool,
    new: Collection[str] = (),
    kept: Mapping[str, str] | None = None,
    sites: Sequence[Site] | None = None,
    rank: int = RANK,
    alpha: int | None = None,
) -> tuple[Any, Trainable]:
    """Wrap a model so that only an adapter trains, and the task head if it shall.

    Args:
        model: a transformers model.
        kind: `lora` (on query and value) or `beft` (a bias added behind the value map).
        head, new, kept, sites: as for `set_trainable`.
        rank, alpha: of LoRA; its product counts alpha / rank times. By default alpha is twice the rank.

    Returns:
        The peft model, and what trains: of an adapter's tensors `name` is the stock model's tensor that they change
        once they are merged, and `part` is which of the adapter's tensors it is.

    Raises:
        TuneError: peft does not take this model, as BEFT does not take GPT-2's Conv1D; or BEFT would bring back a bias
            that a patch removed.
        FamilyError, CheckpointError: no family covers the model.
    """
    heads = head_of(model, new)
    # Marked before wrapping: peft renames every parameter, and leaves it to `modules_to_save` to copy the head.
    parameters = dict(model.named_parameters())
    trains = {id(parameters[name]) for name in heads} if head else set()
    found = find_sites(model.config.to_dict(), ModelTensors(model).tensors) if sites is None else sites
    refuse_kept(found, _TARGETS[kind] if kind == "beft" else (), kept or {})
    stock = {id(parameter): name for name, parameter in parameters.items()}
    wrapped = _wrap(model, kind, _config(model, kind, found, rank, alpha or 2 * rank))
    merged = dict(_merged(wrapped, kind))
    trained = []
    for name, parameter in wrapped.named_parameters():
        is_new = id(parameter) not in stock
        parameter.requires_grad_(is_new or id(parameter) in trains)
        if not parameter.requires_grad:
            continue
        changed, part = merged[name] if is_new else (stock[id(parameter)], "all")
        role = "adapter" if is_new else "head"
        trained.append(TrainableTensor(changed, part, role, parameter.numel(), parameter.numel(), name))
    total = sum(parameter.numel() for parameter in wrapped.parameters())
    return wrapped, Trainable(tuple(trained), total, bool(trains))


def shortened(model: Any, modules: Collection[str]) -> list[str]:
    """Names by which peft finds just these modules: their last parts, as `value`, where no other module ends so."""
    last = {name.rpartition(".")[2] for name in modules}
    found = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in last}
    return sorted(last if found == set(modules) else modules)


def _merged(wrapped: Any, kind: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each adapter tensor's name, the stock model's tensor that it is merged into, and what it is, as `lora_A`."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    inside = wrapped.get_base_model()
    prefix = next(name for name, module in wrapped.named_modules() if module is inside)
    for path, module in inside.named_modules():
        if isinstance(module, BaseTunerLayer):
            for name in module.state_dict():  # type: ignore[attr-defined]
                yield f"{prefix}.{path}.{name}", (f"{path}.{_CHANGES[kind]}", name.partition(".")[0])


def _config(model: Any, kind: str, sites: Sequence[Site], rank: int, alpha: int) -> Any:
    """peft's config of the adapter, on the modules that hold these sites' maps."""
    import peft

    slots = [(name, slot) for site in sites for name, slot in site.slots.items() if name in _TARGETS[kind]]
    modules = {slot.weight.rpartition(".")[0] for _, slot in slots if slot.weight is not None}
    targets = shortened(model, modules)
    if kind == "beft":
        return peft.BeftConfig(target_modules=targets)
    conv1d = any(slot.conv1d for _, slot in slots)
    return peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, lora_dropout=0.0, fan_in_fan_out=conv1d)


def _wrap(model: PreTrainedModel, kind: str, config: Any) -> Any:
    import peft

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the libraries themselves
            return peft.PeftModel(model, config)
    except Exception as error:  # peft raises whatever the layer at hand makes it raise
        raise TuneError(
            f"{kind} cannot be added to this model",
            why=f"{type(error).__name__}: {str(error).strip().rstrip('.')}",
            remedy=_INSTEAD[kind],
        ) from error
