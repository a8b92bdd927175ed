"""Training from random weights without each bias, on any config: a study of its own, for a fresh model's biases are
zero, and nothing can be learned from changing them."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

from hf_bias_patch.attention.find import find_sites
from hf_bias_patch.attention.sites import Projection
from hf_bias_patch.checkpoint.source import resolve
from hf_bias_patch.errors import SourceError, TaskError
from hf_bias_patch.models.load import quiet
from hf_bias_patch.models.source_files import load_config, load_tokenizer
from hf_bias_patch.patching.memory import ModelTensors
from hf_bias_patch.scoring.extra import need
from hf_bias_patch.scoring.heads import AUTO_CLASSES, head_kind_of_class
from hf_bias_patch.study.downstream.asked import biased, check_tasks
from hf_bias_patch.study.downstream.trained import trained
from hf_bias_patch.study.found import Study
from hf_bias_patch.study.run import open_kept
from hf_bias_patch.study.settings import Settings
from hf_bias_patch.study.stage import Course, Progress
from hf_bias_patch.study.team import Team

__all__ = ["study_from_scratch"]


def study_from_scratch(
    settings: Settings,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> Study | None:
    """Train models of a config from random weights: with all biases, and with each of query, key, value removed.

    Args:
        settings: what is asked for; of the model only its config and tokenizer are taken.
        out: the folder. A seed's random weights lie in `from-scratch/seed-1/model`: every run of it starts there.
        resume: go on with a study of the same settings.
        overwrite: begin anew where there is one.
        progress: is told how far it is.

    Returns:
        What was found; None in all processes but the one that leads.

    Raises:
        SourceError: the model leads nowhere, or has no tokenizer.
        ArgumentError, TaskError, DataError, RecipeError: as `downstream.check_tasks`.
        FamilyError: no family knows the model type.
        PlanError: its config has no query, key or value biases.
        TargetError: `out` holds something else, or a study of other settings.
    """
    need("torch")
    ends = None if settings.budget is None else time.monotonic() + settings.budget
    source, team = resolve(settings.model), Team(settings.device)
    check_tasks(settings, source)
    tokenizer = load_tokenizer(source)
    if tokenizer is None:
        raise SourceError(f"{source.name} has no tokenizer that can be loaded", why="Tasks are made of texts")
    config = load_config(source)
    projections = _projections(config, source.name)  # before anything is written
    kept = open_kept(settings, out, team, resume=resume, overwrite=overwrite)
    places = {seed: out.absolute() / "from-scratch" / f"seed-{seed}" / "model" for seed in range(1, settings.seeds + 1)}
    for seed, place in places.items() if team.leads else ():
        if not place.exists():
            _make(config, tokenizer, seed, place)
    team.wait()
    course = Course(kept, team, ends, progress)
    found = course.run(trained(settings, out, "from scratch", projections, lambda seed: str(places[seed])))
    if not team.leads:
        return None
    left_out, notes = tuple(course.left_out), tuple(course.notes)
    return Study(settings, config.model_type, source.revision, {}, (), left_out, 0, 0, 0, notes, **found)


def _projections(config: Any, name: str) -> tuple[Projection, ...]:
    """Those that a model of the config has a bias of, told by its shapes alone."""
    import torch

    with torch.device("meta"):
        model = _model_of(config)
    sites = find_sites(model.config.to_dict(), ModelTensors(model).tensors)
    return biased(sites, name)


def _make(config: Any, tokenizer: Any, seed: int, place: Path) -> None:
    """Save a model with random weights of a seed; whole or not at all."""
    import torch

    new = place.with_name("model.new")
    shutil.rmtree(new, ignore_errors=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model_of(config)
    with quiet():
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
    os.replace(new, place)


def _model_of(config: Any) -> Any:
    """A model with random weights.

    A language model has its head, so that it can be trained on any task; any other is made without one, as a
    classifier's comes when it is trained, with as many labels as its task has.

    Raises:
        TaskError: transformers makes no such model of the config.
    """
    import torch
    import transformers

    form = head_kind_of_class((config.architectures or [""])[0])
    name = "AutoModel" if form is None or form == "classifier" else AUTO_CLASSES[form]
    try:
        with quiet():
            return getattr(transformers, name).from_config(config, dtype=torch.float32)
    except ValueError as error:  # transformers' own, of a config that this class cannot have
        raise TaskError(f"No {name} can be made of the config: {error}") from error
