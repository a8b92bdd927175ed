"""What is saved during training: a state to resume from, and the trained tensors at their best."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from hf_bias_patch.errors import TuneError

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

__all__ = [
    "Progress",
    "forget_state",
    "keep_only",
    "load_state",
    "load_tensors",
    "save_state",
    "save_tensors",
    "trained_tensors",
]

_PROGRESS = "progress.json"
_COMPILED = "_orig_mod."


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        step: optimiser steps done.
        evaluated: the last step after which the model was evaluated; 0 before the first evaluation.
        best: the best value of the main metric so far; None before the first evaluation.
        best_step: when that was.
        metrics: of that evaluation, all of them.
        since_best: evaluations since.
        samples: samples trained on.
        tokens: tokens of them, without padding.
        seconds: spent in training, evaluations not counted.
    """

    step: int = 0
    evaluated: int = 0
    best: float | None = None
    best_step: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    since_best: int = 0
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0


def keep_only(accelerator: Accelerator, names: Collection[str]) -> None:
    """Have Accelerate save, of a model, only the named tensors: the others are in the checkpoint it came from.

    Under FSDP and DeepSpeed, which save by shards, all of the model is saved.
    """

    def filtered(models: list[Any], weights: list[dict[str, Any]], folder: str) -> None:
        for state in weights:
            for name in [name for name in state if name.removeprefix("module.") not in names]:
                del state[name]

    accelerator.register_save_state_pre_hook(filtered)


def save_state(accelerator: Accelerator, folder: Path, progress: Progress) -> None:
    """Save what a run needs to continue as if it had never stopped. Called by all processes.

    Killed on the way, either this state is whole or the one before is still there.
    """
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    if accelerator.is_main_process:
        shutil.rmtree(new, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(new))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (new / _PROGRESS).write_text(json.dumps(asdict(progress)), "utf-8")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
        shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()


def forget_state(folder: Path) -> None:
    """Delete a saved state; killed on the way, it is whole or gone."""
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(new, ignore_errors=True)
    for state in (old, folder):
        if state.exists():
            os.replace(state, new)
            shutil.rmtree(new)


def load_state(accelerator: Accelerator, folder: Path) -> Progress:
    """Load a saved state: tensors, optimiser, schedule, random generators. Called by all processes.

    Returns:
        How far the run had come; zero steps where there is no state yet.

    Raises:
        TuneError: the state is damaged, or of another number of processes, or of another version of this package.
    """
    _undo_half_a_swap(accelerator, folder)
    if not folder.exists():
        return Progress()
    from accelerate.utils import load

    generators = len(list(folder.glob("random_states_*.pkl")))
    if generators != accelerator.num_processes:
        raise TuneError(
            f"The state in {folder} was saved by {generators} processes, and this run has {accelerator.num_processes}",
            why="Data order and dropout would not be the same",
            remedy="Start as many processes as before, or start again with --overwrite",
        )
    try:
        progress = _progress(folder)
        accelerator.load_state(str(folder), strict=False)
        # Accelerate continues silently, with another dropout, where these cannot be read.
        load(folder / f"random_states_{accelerator.process_index}.pkl")
    except TuneError:
        raise
    except Exception as error:  # each library that reads a file of it has errors of its own
        raise TuneError(
            f"The state in {folder} cannot be resumed",
            why=f"{type(error).__name__}: {shorten(str(error), 150, placeholder=' …')}",
            remedy="Start again with --overwrite",
        ) from error
    return progress


def _undo_half_a_swap(accelerator: Accelerator, folder: Path) -> None:
    """A run that was killed between the two renames of `save_state` left its state under the old one's name."""
    old = folder.with_name(folder.name + ".old")
    if accelerator.is_main_process and not folder.exists() and old.exists():
        os.replace(old, folder)
    accelerator.wait_for_everyone()


def _progress(folder: Path) -> Progress:
    found = json.loads((folder / _PROGRESS).read_text("utf-8"))
    known = {field.name for field in fields(Progress)}
    if differing := sorted(known ^ set(found)):
        raise TuneError(
            f"The state in {folder} was saved by another version of hf_bias_patch",
            why=f"{_PROGRESS} has other fields: {', '.join(differing)}",
            remedy="Use the version that it was started with (see environment.json), or start again with --overwrite",
        )
    return Progress(**found)


def trained_tensors(accelerator: Accelerator, model: Any, names: Collection[str]) -> dict[str, torch.Tensor]:
    """Copies of the named tensors. Called by all processes."""
    # `torch.compile` puts a wrapper around the model, and its name before every tensor's.
    state = {name.removeprefix(_COMPILED): value for name, value in (accelerator.get_state_dict(model) or {}).items()}
    return {name: value.detach().cpu().clone() for name, value in state.items() if name in names}


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write tensors to a safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    new = path.with_name(path.name + ".new")
    save_file({name: value.contiguous() for name, value in tensors.items()}, new)
    os.replace(new, path)


def load_tensors(model: Any, path: Path) -> None:
    """Load tensors that `save_tensors` wrote into a model that is not wrapped."""
    from safetensors.torch import load_file

    unexpected = model.load_state_dict(load_file(path), strict=False).unexpected_keys
    if unexpected:
        raise TuneError(
            f"{path} holds {unexpected[0]}, and the model has no such tensor",
            why="The run was started with another model or another version of transformers",
            remedy="Start again with --overwrite",
        )
