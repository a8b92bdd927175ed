"""The study of a config: training from random weights without each bias.

It is a study of its own: the biases of a new model are zero, so changing them in memory shows nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.sites import Projection
from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.errors import SourceError, TaskError
from hf_bias_patch.models.load import quiet
from hf_bias_patch.models.source_files import load_config, load_tokenizer
from hf_bias_patch.patching.in_memory import ModelTensors
from hf_bias_patch.scoring.heads import AUTO_CLASSES, head_kind_of_class
from hf_bias_patch.studies.downstream.checks import biased_projections
from hf_bias_patch.studies.downstream.training_runs import training_experiments
from hf_bias_patch.studies.records import Study
from hf_bias_patch.studies.runner import Runner
from hf_bias_patch.studies.settings import StudySettings

__all__ = ["study_from_scratch"]


def study_from_scratch(settings: StudySettings, source: Source, out: Path, open_runner: Callable[[], Runner]) -> Study:
    """Train models of a config from random weights: with all biases, and with each of query, key, value removed.

    Args:
        settings: of the study.
        source: only its config and tokenizer are used.
        out: the folder. A seed's random weights are in `from-scratch/seed-1/model`: every run of the seed starts there.
        open_runner: called once it is known that the config can be studied.

    Raises:
        SourceError: the model has no tokenizer.
        FamilyError: no family covers the model type.
        PlanError: its config has no query, key or value biases.
        TargetError: `out` holds something else, or a study of other settings.
    """
    tokenizer = load_tokenizer(source)
    if tokenizer is None:
        raise SourceError(
            f"{source.name} has no tokenizer that can be loaded",
            why="The texts of a task cannot be encoded without one",
        )
    config = load_config(source)
    projections = _projections(config, source.name)  # before anything is written
    runner = open_runner()
    starts = {seed: out.absolute() / "from-scratch" / f"seed-{seed}" / "model" for seed in range(1, settings.seeds + 1)}
    for seed, start in starts.items() if runner.processes.is_main else ():
        if not start.exists():
            _make(config, tokenizer, seed, start)
    runner.processes.wait()
    found = runner.run(training_experiments(settings, out, "from scratch", projections, lambda seed: str(starts[seed])))
    left_out, notes = tuple(runner.left_out), tuple(runner.notes)
    return Study(settings, config.model_type, source.revision, {}, (), left_out, 0, 0, 0, notes, **found)


def _projections(config: Any, name: str) -> tuple[Projection, ...]:
    """The projections that have a bias in a model of the config, which is made without values."""
    import torch

    with torch.device("meta"):
        model = _model_of(config)
    sites = find_sites(model.config.to_dict(), ModelTensors(model).tensors)
    return biased_projections(sites, name)


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
