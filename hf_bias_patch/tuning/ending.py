"""What stays of a run: a model that stock transformers loads, and how large the part that was trained is."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from hf_bias_patch.evidence.models import quiet
from hf_bias_patch.tuning.slices import join_slices
from hf_bias_patch.tuning.state import save_tensors, trained_tensors

if TYPE_CHECKING:
    from hf_bias_patch.tuning.folder import RunFolder
    from hf_bias_patch.tuning.loop import Loop

__all__ = ["save_model"]


def save_model(loop: Loop, tokenizer: Any, folder: RunFolder) -> dict[str, Any]:
    """Write the model into the run folder, and its trained tensors beside it. Called by all processes.

    An adapter that peft can merge is merged; one that it cannot (BEFT) is written as an adapter.

    Returns:
        `trained_bytes`, the size of the file of trained tensors; `model`, the folder's name and what it holds.
    """
    accelerator = loop.accelerator
    tensors = trained_tensors(accelerator, loop.model, loop.names)
    bare = accelerator.unwrap_model(loop.model, keep_fp32_wrapper=False, keep_torch_compile=False)
    state = accelerator.get_state_dict(loop.model) if accelerator.distributed_type.name == "FSDP" else None
    if not accelerator.is_main_process:
        return {}
    save_tensors(tensors, folder.trained)
    shutil.rmtree(folder.model, ignore_errors=True)
    join_slices(bare)
    kind = "model"
    if hasattr(bare, "merge_and_unload"):
        try:
            bare = bare.merge_and_unload()
        except (ValueError, NotImplementedError, TypeError):
            kind = "adapter"
    with quiet():
        bare.save_pretrained(folder.model, **({"state_dict": state} if state else {}))
    tokenizer.save_pretrained(folder.model)
    return {"trained_bytes": folder.trained.stat().st_size, "saved_as": kind}
