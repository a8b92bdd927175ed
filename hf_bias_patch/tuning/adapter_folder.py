"""A trained model as a peft adapter of its base: what peft can express, and the folder that peft loads.

LoRA and BEFT are peft's own. Trained biases of linear maps are a BEFT adapter too: it adds, to each map's output,
the difference between the trained bias and the base's. The task head is saved with it (`modules_to_save`).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_bias_patch.checkpoint.paths import hub_repo
from hf_bias_patch.checkpoint.sidecar import ADAPTER_WEIGHTS, is_patch_only
from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.models.source_files import folder_of
from hf_bias_patch.scoring.adapters import PEFT_PREFIX
from hf_bias_patch.scoring.heads import HeadKind, head_kind_of
from hf_bias_patch.tuning.adapters import shortened
from hf_bias_patch.tuning.head import head_of

if TYPE_CHECKING:
    import torch

    from hf_bias_patch.tuning.trainable import Trainable

__all__ = ["AdapterBase", "AdapterFolder", "NoAdapterError", "adapter_folder", "base_of", "linear_biases"]

_TASK_TYPES: dict[HeadKind, str | None] = {
    "classifier": "SEQ_CLS",
    "causal": "CAUSAL_LM",
    "seq2seq": "SEQ_2_SEQ_LM",
    "masked": None,  # peft has none: it keeps the class instead
}
_ALWAYS_SAVED = ("classifier", "score")  # by peft, of a model of the type SEQ_CLS


class NoAdapterError(Exception):
    """Why peft cannot have what trained, in one sentence."""


@dataclass(frozen=True)
class AdapterBase:
    """What adapter_config.json calls the base.

    Attributes:
        name: a Hub id, or the absolute path of a folder.
        revision: the commit, of a Hub id.
    """

    name: str
    revision: str | None


def base_of(source: Source) -> AdapterBase:
    """What an adapter of a source names as its base, so that stock libraries find it again.

    Raises:
        NoAdapterError: it is a patch without its weights.
    """
    folder = folder_of(source)
    if is_patch_only(folder):
        raise NoAdapterError("the base was published without its weights, so peft cannot load it")
    if (found := hub_repo(folder)) is not None:
        repository, commit = found
        return AdapterBase("/".join(repository.name.split("--")[1:]), commit)
    return AdapterBase(os.path.abspath(folder), None)


@dataclass(frozen=True)
class AdapterFolder:
    """An adapter that can be written once its tensors are trained.

    Attributes:
        config: of peft, complete.
        trained: name in the file → name of the parameter that the optimiser holds.
        added: name in the file → a float32 vector that is added to the trained values first.
        fixed: name in the file → values that do not train.
        mapping: for a task that peft has no type for, the class that it loads the base as.
    """

    config: Any
    trained: Mapping[str, str]
    added: Mapping[str, torch.Tensor] = field(default_factory=dict)
    fixed: Mapping[str, torch.Tensor] = field(default_factory=dict)
    mapping: Mapping[str, str] | None = None

    def write(self, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
        """Write what `PeftModel.from_pretrained` reads.

        Args:
            tensors: the trained values by the name of their parameter, on the CPU.
            folder: created if it does not exist.
        """
        from safetensors.torch import save_file

        values = {name: tensors[live] for name, live in self.trained.items()}
        for name, vector in self.added.items():
            values[name] = (values[name] + vector.to(values[name])).reshape(1, -1)
        folder.mkdir(parents=True, exist_ok=True)
        contiguous = {name: value.detach().cpu().contiguous() for name, value in (values | dict(self.fixed)).items()}
        save_file(contiguous, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        self.config.save_pretrained(folder, auto_mapping_dict=self.mapping)


def linear_biases(model: Any) -> dict[str, torch.Tensor]:
    """Copies of the biases of linear layers, by name: kilobytes, and what an adapter of biases is a difference to."""
    from torch import nn

    return {
        f"{name}.bias": module.bias.detach().cpu().clone()
        for name, module in model.named_modules()
        # Subclasses may use their bias in ways of their own, and peft adds behind the layer.
        if type(module) is nn.Linear and module.bias is not None
    }


def adapter_folder(
    model: Any,
    selection: Trainable,
    base: AdapterBase,
    biases: Mapping[str, torch.Tensor],
    *,
    new: Collection[str] = (),
) -> AdapterFolder:
    """What must be written so that peft makes of the base what the model will be once it is trained.

    Args:
        model: ready to train, a peft model or not.
        selection: what trains.
        base: what the adapter is loaded on.
        biases: the base's, as `linear_biases` gave them.
        new: names of the parameters that the base does not hold.

    Raises:
        NoAdapterError: peft has nothing that changes what trains.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    made = _adapter(model, inner, selection, biases)
    task_type = _TASK_TYPES[head_kind_of(inner)]
    heads = head_of(inner, new)
    if task_type != "SEQ_CLS" and not any(tensor.role == "head" for tensor in selection.trained):
        heads = frozenset(new)
    modules = _modules(inner, heads, _ALWAYS_SAVED if task_type == "SEQ_CLS" else ())
    made.config.task_type, made.config.modules_to_save = task_type, modules or None
    made.config.base_model_name_or_path, made.config.revision = base.name, base.revision
    made.config.inference_mode = True
    live = {PEFT_PREFIX + tensor.name: tensor.live for tensor in selection.trained if tensor.role == "head"}
    held = {
        f"{PEFT_PREFIX}{name}.{key}": value
        for name in modules
        for key, value in inner.get_submodule(name).state_dict().items()
    }
    still = {name: value.detach().cpu().clone() for name, value in held.items() if name not in live}
    mapping = None
    if task_type is None:
        mapping = {"base_model_class": type(inner).__name__, "parent_library": type(inner).__module__}
    return AdapterFolder(made.config, {**made.trained, **live}, made.added, still, mapping)


def _adapter(model: Any, inner: Any, selection: Trainable, biases: Mapping[str, torch.Tensor]) -> AdapterFolder:
    """All but the head."""
    kind = model.peft_config["default"] if inner is not model else None
    if not any(tensor.role != "head" for tensor in selection.trained):
        raise NoAdapterError("only the head trains, and peft cannot save a head without an adapter")
    if kind is None or kind.peft_type == "BEFT":
        return _biases(inner, selection, biases)
    config = copy.deepcopy(kind)
    config.target_modules = sorted(config.target_modules)
    return AdapterFolder(config, {_file_name(t.live, t.part): t.live for t in selection.trained if t.role == "adapter"})


def _biases(inner: Any, selection: Trainable, biases: Mapping[str, torch.Tensor]) -> AdapterFolder:
    """Changes of linear layers' biases as a BEFT adapter."""
    import peft

    trained, added, targets = {}, {}, set()
    for tensor in selection.trained:
        if tensor.role == "head":
            continue
        module = tensor.name.rpartition(".")[0]
        name = f"{PEFT_PREFIX}{module}.beft_bias"
        if tensor.role != "adapter":
            if tensor.live != tensor.name or tensor.name not in biases:
                part = f"a part of {tensor.name}" if tensor.live != tensor.name else tensor.name
                raise NoAdapterError(f"{part} trains, and peft supports only the whole bias of a linear layer")
            added[name] = -biases[tensor.name]
        trained[name] = tensor.live
        targets.add(module)
    return AdapterFolder(peft.BeftConfig(target_modules=shortened(inner, targets)), trained, added)


def _modules(inner: Any, heads: Collection[str], always: tuple[str, ...]) -> list[str]:
    """The largest modules that hold nothing but the head: peft saves whole modules."""
    found = sorted({_largest(inner, name, heads) for name in heads})
    wanted = (*found, *always)
    for name, _ in inner.named_modules(remove_duplicate=False):
        if name.endswith(wanted) and not any(name == one or name.startswith(f"{one}.") for one in found):
            raise NoAdapterError(
                f"peft, told to save the head ({', '.join(found) or always[0]}), takes {name} for it too"
            )
    return found


def _largest(inner: Any, name: str, heads: Collection[str]) -> str:
    path = name.rpartition(".")[0]
    largest = ""
    while path:
        inside = inner.get_submodule(path).named_parameters(remove_duplicate=False)
        if not all(f"{path}.{own}" in heads for own, _ in inside):
            break
        largest, path = path, path.rpartition(".")[0]
    if not largest:
        raise NoAdapterError(f"peft saves whole modules, and {path or 'the model'} holds more than {name} of the head")
    return largest


def _file_name(live: str, part: str) -> str:
    """peft leaves the adapter's own name out: `lora_A.default.weight` is `lora_A.weight` in the file."""
    return live.replace(f".{part}.default", f".{part}", 1)
