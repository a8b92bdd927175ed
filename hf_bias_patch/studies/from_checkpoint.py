"""The study of a trained checkpoint: what each bias does in memory, and scores on tasks without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.errors import SourceError
from hf_bias_patch.models.load_for_verify import load_model
from hf_bias_patch.models.source_files import load_tokenizer
from hf_bias_patch.scoring.heads import HeadKind, head_kind_of_class
from hf_bias_patch.studies.downstream.checks import biased_projections
from hf_bias_patch.studies.downstream.training_runs import training_experiments
from hf_bias_patch.studies.downstream.without_training import scores_of_fine_tuned, scores_without_training
from hf_bias_patch.studies.experiments import experiments_in_memory
from hf_bias_patch.studies.measuring.bench import Bench
from hf_bias_patch.studies.measuring.inputs import embedded_texts, make_inputs
from hf_bias_patch.studies.processes import Processes
from hf_bias_patch.studies.records import Study
from hf_bias_patch.studies.runner import Runner
from hf_bias_patch.studies.settings import DTYPES, StudySettings

__all__ = ["study_checkpoint"]


def study_checkpoint(
    settings: StudySettings, source: Source, out: Path, processes: Processes, open_runner: Callable[[], Runner]
) -> Study:
    """Make all measurements, the most informative first.

    Args:
        settings: of the study.
        source: of the model.
        out: the folder of the study.
        processes: those that share the work; complete only in the main one.
        open_runner: called once it is known that the model can be studied.

    Raises:
        SourceError: the model has no tokenizer.
        FamilyError: no family covers it.
        PlanError: it has no query, key or value biases.
        TargetError: `out` holds something else, or a study of other settings.
    """
    bench = _bench(source, settings, processes)
    projections = biased_projections(bench.biases.sites.values(), source.name)
    runner = open_runner()
    floor = runner.noise_floor(bench.floor)
    experiments = [*experiments_in_memory(bench, settings), *scores_without_training(settings, projections)]
    if settings.fine_tune:
        experiments += training_experiments(settings, out, "fine-tuned", projections, lambda _: settings.model)
        experiments += scores_of_fine_tuned(settings, out, projections)
    found = runner.run(experiments)
    return Study(
        settings,
        str(bench.model.config.model_type),
        source.revision,
        floor,
        left_out=tuple(runner.left_out),
        texts=len(bench.inputs.rows),
        tokens=sum(map(len, bench.inputs.rows)),
        truncated=bench.inputs.truncated,
        notes=(*bench.notes, *runner.notes),
        **found,
    )


def _bench(source: Source, settings: StudySettings, processes: Processes) -> Bench:
    loaded = load_model(source, DTYPES[settings.dtype], "sdpa")
    tokenizer = load_tokenizer(source)
    if tokenizer is None:
        raise SourceError(f"{source.name} has no tokenizer that can be loaded", why="A study runs on texts")
    model = loaded.model.to(processes.device(settings.device))
    form = head_kind_of_class(type(model).__name__)
    texts = settings.texts or embedded_texts(settings.count)
    # Tensors that the class does not use do no harm; those it lacks, and so made up, would change the loss.
    made_up = (*loaded.missing, *loaded.errors)
    inputs = make_inputs(texts, tokenizer, model, None if made_up else form, settings.seed)
    bench = Bench(model, inputs, settings.seed, settings.batch_tokens)
    bench.notes += _without_loss(bench, made_up, form)
    if short := len(texts) - len(inputs.rows):
        bench.notes.append(f"{short} of {len(texts)} texts were left out: they have fewer than two tokens.")
    if settings.train_steps and bench.has_loss and len(inputs.rows) == 1:
        bench.notes.append("No bias was trained alone: with one text, none can be held out to show what was learned.")
    return bench


def _without_loss(bench: Bench, made_up: Sequence[str], form: HeadKind | None) -> list[str]:
    """A note on a model without a loss: why it has none, and which experiments are left out."""
    if bench.has_loss:
        return []
    name = type(bench.model).__name__
    why = f"{name} has no language modelling head that is known here"
    if made_up:
        why = f"the checkpoint lacks {len(made_up)} of the parameters of {name} ({made_up[0]})"
    elif form == "masked":
        why = "the tokenizer has no mask token, or one that the model does not know"
    return [f"Hidden states only, no loss: {why}. So nothing was trained on the texts, and no gradient was taken."]
