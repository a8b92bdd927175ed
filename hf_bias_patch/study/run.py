"""A study from a model's name to a folder of results: measured in the order in which they tell most, and resumable."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from hf_bias_patch.checkpoint.source import Source, resolve
from hf_bias_patch.errors import SourceError
from hf_bias_patch.models.load_for_verify import load_model
from hf_bias_patch.models.source_files import load_tokenizer
from hf_bias_patch.scoring.extra import need
from hf_bias_patch.scoring.heads import HeadKind, head_kind_of_class
from hf_bias_patch.study.downstream.asked import biased, check_tasks, downstream
from hf_bias_patch.study.found import Study
from hf_bias_patch.study.kept import Kept
from hf_bias_patch.study.measuring.bench import Bench
from hf_bias_patch.study.measuring.inputs import make_inputs
from hf_bias_patch.study.measuring.texts import embedded_texts
from hf_bias_patch.study.settings import DTYPES, Settings
from hf_bias_patch.study.stage import Course, Progress
from hf_bias_patch.study.stages import stages
from hf_bias_patch.study.team import Team
from hf_bias_patch.tuning.folder import check_folder, environment, open_folder

__all__ = ["open_kept", "study"]


def study(
    settings: Settings,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> Study | None:
    """Measure what each attention bias does; on as many processes as Accelerate was started with.

    Args:
        settings: what is asked for.
        out: the folder; each measurement is kept there as soon as it is made (`measured.jsonl`).
        resume: go on with a study of the same settings.
        overwrite: begin anew where there is one.
        progress: is told how far it is.

    Returns:
        What was found; None in all processes but the one that leads.

    Raises:
        SourceError: the model leads nowhere, or has no tokenizer.
        FamilyError: no family knows it.
        PlanError: it has no query, key or value biases.
        TargetError: `out` holds something else, or a study of other settings.
    """
    need("torch")
    ends = None if settings.budget is None else time.monotonic() + settings.budget
    check_folder(out, settings.identity(), resume=resume, overwrite=overwrite)  # before minutes of loading
    source, team = resolve(settings.model), Team(settings.device)
    if team.leads:
        progress(0, 0, f"loading {settings.model}")
    check_tasks(settings, source)
    bench = _bench(source, settings, team)
    projections = biased(bench.biases.sites.values(), source.name)
    kept = open_kept(settings, out, team, resume=resume, overwrite=overwrite)
    if kept.floor is None:
        if team.leads:
            progress(0, 0, "noise floor")
        kept.add_floor(team.agreed(bench.floor() if team.leads else None))
    course = Course(kept, team, ends, progress)
    found = course.run([*stages(bench, settings), *downstream(settings, out, projections)])
    assert kept.floor is not None
    if not team.leads:
        return None
    return Study(
        settings,
        str(bench.model.config.model_type),
        source.revision,
        kept.floor,
        left_out=tuple(course.left_out),
        texts=len(bench.inputs.rows),
        tokens=sum(map(len, bench.inputs.rows)),
        truncated=bench.inputs.truncated,
        notes=(*bench.notes, *course.notes),
        **found,
    )


def open_kept(settings: Settings, out: Path, team: Team, *, resume: bool, overwrite: bool) -> Kept:
    """The folder of a study, made or opened, and what is there already. Called by all processes.

    Raises:
        TargetError: `out` holds something else, or a study of other settings.
    """
    if team.leads:
        folder = open_folder(out, settings.identity(), resume=resume, overwrite=overwrite)
        folder.write("environment.json", environment(settings.device, team.size, settings.dtype))
    team.wait()  # for the folder; and then for all to have read it
    kept = Kept(out / "measured.jsonl", writes=team.leads)
    team.wait()
    return kept


def _bench(source: Source, settings: Settings, team: Team) -> Bench:
    loaded = load_model(source, DTYPES[settings.dtype], "sdpa")
    tokenizer = load_tokenizer(source)
    if tokenizer is None:
        raise SourceError(f"{source.name} has no tokenizer that can be loaded", why="A study runs on texts")
    model = loaded.model.to(team.device(settings.device))
    form = head_kind_of_class(type(model).__name__)
    texts = settings.texts or embedded_texts(settings.count)
    # What the class has no use for stands in nobody's way; what it lacks, and so made up, would be in the loss.
    made_up = (*loaded.missing, *loaded.errors)
    inputs = make_inputs(texts, tokenizer, model, None if made_up else form, settings.seed)
    bench = Bench(model, inputs, settings.seed, settings.batch_tokens)
    bench.notes += _without_loss(bench, made_up, form)
    if short := len(texts) - len(inputs.rows):
        bench.notes.append(f"{short} of {len(texts)} texts were left out: of fewer than two tokens.")
    if settings.train_steps and bench.has_loss and len(inputs.rows) == 1:
        bench.notes.append("One bias alone was not trained: of one text none can be held out to show what was learned.")
    return bench


def _without_loss(bench: Bench, made_up: Sequence[str], form: HeadKind | None) -> list[str]:
    """What a model without a loss cannot show, and why it has none."""
    if bench.has_loss:
        return []
    name = type(bench.model).__name__
    why = f"{name} has no language modelling head that is known here"
    if made_up:
        why = f"the checkpoint lacks {len(made_up)} of the parameters of {name} ({made_up[0]})"
    elif form == "masked":
        why = "the tokenizer has no mask token, or one that the model does not know"
    return [f"States only, and no loss: {why}. So nothing was trained on the texts, and no gradient was taken."]
