"""Saves what a run trained: a model for stock transformers, an adapter for peft, and the trained tensors alone."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_bias_patch.checkpoint.sidecar import ADAPTER, ADAPTER_WEIGHTS, SIDE_FOLDER
from hf_bias_patch.models.load import quiet
from hf_bias_patch.tuning.merging import merged_by_option, merged_state, stock_state
from hf_bias_patch.tuning.slices import join_slices
from hf_bias_patch.tuning.state import save_tensors, trained_tensors

if TYPE_CHECKING:
    from hf_bias_patch.tuning.folder import RunFolder
    from hf_bias_patch.tuning.loop import TrainingLoop
    from hf_bias_patch.tuning.prepare import PreparedModel

__all__ = ["save_model"]


def save_model(loop: TrainingLoop, tokenizer: Any, folder: RunFolder, prepared: PreparedModel) -> dict[str, Any]:
    """Write the model, its adapter and its trained tensors into the run folder. Called by all processes.

    Returns:
        `trained_bytes`, the size of the file of trained tensors; `saved_as`, what the folder `model` holds: a `model`,
        or a `model and adapter` where no stock model has the biases that BEFT trained; `adapter`, the name of the
        folder that peft loads, or None, and then `no_adapter` says why; `switched_on`, only where the model has more
        biases than its source: the config's `option` that gives it these, and their names, `added`.
    """
    accelerator = loop.accelerator
    tensors = trained_tensors(accelerator, loop.model, loop.names)
    bare = accelerator.unwrap_model(loop.model, keep_fp32_wrapper=False, keep_torch_compile=False)
    shares = accelerator.distributed_type.name
    gathers = shares == "FSDP" or (shares == "DEEPSPEED" and not _merges(bare))
    state = accelerator.get_state_dict(loop.model) if gathers else None
    if not accelerator.is_main_process:
        return {}
    save_tensors(tensors, folder.trained)
    for place in (folder.model, folder.adapter):
        shutil.rmtree(place, ignore_errors=True)
    join_slices(bare)
    results: dict[str, Any] = {"trained_bytes": folder.trained.stat().st_size}
    if prepared.adapter is not None:
        inner = getattr(bare, "get_base_model", lambda: bare)()
        config = copy.deepcopy(inner.config)
        config.architectures = [type(inner).__name__]
        prepared.adapter.write(tensors, folder.adapter)
        config.save_pretrained(folder.adapter / SIDE_FOLDER)
        tokenizer.save_pretrained(folder.adapter)
        results["adapter"] = folder.adapter.name
    else:
        results |= {"adapter": None, "no_adapter": prepared.no_adapter}
    with quiet():
        results |= _save(bare, state, folder)
    tokenizer.save_pretrained(folder.model)
    return results


def _save(bare: Any, state: dict[str, Any] | None, folder: RunFolder) -> dict[str, Any]:
    """Write the model, adapters merged if possible. `state` holds all parameters if the model is sharded."""
    if not hasattr(bare, "merge_and_unload"):
        bare.save_pretrained(folder.model, **({"state_dict": state} if state else {}))
        return {"saved_as": "model"}
    if _merges(bare):
        if state:
            bare.get_base_model().save_pretrained(folder.model, state_dict=merged_state(bare, state))
        else:
            bare.merge_and_unload().save_pretrained(folder.model)
        return {"saved_as": "model"}
    # Of a model in shards no process alone can run the comparison.
    found = merged_by_option(bare) if state is None else None
    if found is None:
        _save_unmerged(bare, state, folder)
        return {"saved_as": "model and adapter"}
    found.model.save_pretrained(folder.model)
    return {"saved_as": "model", "switched_on": {"option": found.option, "added": list(found.added)}}


def _merges(bare: Any) -> bool:
    """Whether there is a bias to merge each BEFT vector into. LoRA's matrices always have their weight."""
    return all(layer.get_base_layer().bias is not None for layer in bare.modules() if hasattr(layer, "beft_bias"))


def _save_unmerged(bare: Any, state: dict[str, Any] | None, folder: RunFolder) -> None:
    """The model with its trained head, and the adapter in the same folder, from where transformers puts it on again."""
    inner = bare.get_base_model()
    inner.save_pretrained(folder.model, state_dict=stock_state(state or inner.state_dict()))
    if folder.adapter.is_dir():  # it names the base and has the head too, for whoever loads the base alone
        for name in (ADAPTER, ADAPTER_WEIGHTS):
            shutil.copyfile(folder.adapter / name, Path(folder.model, name))
    else:
        bare.save_pretrained(folder.model, **({"state_dict": state} if state else {}))
