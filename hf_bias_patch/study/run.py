"""A study from a model's name to a folder of results: measured in the order in which they tell most, and resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hf_bias_patch.checkpoint.source import Source, resolve
from hf_bias_patch.errors import PlanError, SourceError
from hf_bias_patch.evidence.models import load_model, load_tokenizer
from hf_bias_patch.scoring.extra import need
from hf_bias_patch.scoring.forms import form_of_class
from hf_bias_patch.study.found import Study
from hf_bias_patch.study.groups import groups_of
from hf_bias_patch.study.inputs import make_inputs
from hf_bias_patch.study.kept import KINDS, Kept
from hf_bias_patch.study.perturb import Bench
from hf_bias_patch.study.settings import DTYPES, Settings
from hf_bias_patch.study.stages import Stage, stages
from hf_bias_patch.study.team import Team
from hf_bias_patch.study.texts import embedded_texts
from hf_bias_patch.tuning.folder import check_folder, environment, open_folder

__all__ = ["Progress", "study"]

Progress = Callable[[float, int, str], None]
"""Is told how many measurements are done (a part of one, too), how many there are, and what is running."""


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
    started = time.monotonic()
    identity = settings.identity()
    check_folder(out, identity, resume=resume, overwrite=overwrite)  # before minutes of loading
    source, team = resolve(settings.model), Team(settings.device)
    if not team.leads:
        progress = lambda *_: None  # noqa: E731
    progress(0, 0, f"loading {settings.model}")
    bench = _bench(source, settings, team)
    if team.leads:
        folder = open_folder(out, identity, resume=resume, overwrite=overwrite)
        folder.write("environment.json", environment(settings.device, team.size, settings.dtype))
    team.wait()  # for the folder; and then for all to have read it
    kept = Kept(out / "measured.jsonl", writes=team.leads)
    team.wait()
    if kept.floor is None:
        kept.add_floor(team.agreed(bench.floor() if team.leads else None))
    deadline = None if settings.budget is None else started + settings.budget
    left_out = _measure(stages(bench, settings), kept, team, deadline, progress)
    assert kept.floor is not None
    if not team.leads:
        return None
    return Study(
        settings,
        str(bench.model.config.model_type),
        source.revision,
        kept.floor,
        left_out=tuple(left_out),
        texts=len(bench.inputs.rows),
        tokens=sum(map(len, bench.inputs.rows)),
        truncated=bench.inputs.truncated,
        notes=tuple(bench.notes),
        **{kind: kept.all(kind) for kind in KINDS},
    )


def _measure(found: Sequence[Stage], kept: Kept, team: Team, deadline: float | None, progress: Progress) -> list[str]:
    """Make and keep all measurements that are not there; the names of those that there was no time for."""
    left_out: list[str] = []
    known = sum(stage.size for stage in found)
    for stage in found:
        todo = [(name, item) for name, item in stage.items(kept) if name not in kept]
        at_once = stage.at_once * team.size
        for start in range(0, len(todo), at_once):
            if team.agreed(deadline is not None and time.monotonic() > deadline):
                left_out += [name for name, _ in todo[start:]]
                break
            some, done = todo[start : start + at_once], len(kept)
            mine = [item for _, item in team.mine(some)]
            made = stage.measure(mine, lambda share: progress(done + share * len(some), known, stage.title))  # noqa: B023
            for (name, _), records in zip(some, team.all(made), strict=True):
                kept.add(name, stage.kind, records)
            progress(len(kept), known, stage.title)
    return left_out


def _bench(source: Source, settings: Settings, team: Team) -> Bench:
    loaded = load_model(source, DTYPES[settings.dtype], "sdpa")
    tokenizer = load_tokenizer(source)
    if tokenizer is None:
        raise SourceError(f"{source.name} has no tokenizer that can be loaded", why="A study runs on texts")
    model = loaded.model.to(team.device(settings.device))
    form = form_of_class(type(model).__name__)
    texts = settings.texts or embedded_texts(settings.count)
    inputs = make_inputs(texts, tokenizer, model, form if not loaded.report else None, settings.seed)
    bench = Bench(model, inputs, settings.seed, settings.batch_tokens)
    bench.notes += _without_loss(bench, loaded.report)
    if not groups_of(bench.biases.sites.values()):
        raise PlanError(
            f"{source.name} has no query, key or value biases",
            why="There is nothing to take away",
            remedy="`hf-bias-patch inspect` shows what it has; a norm's or an output map's bias is not part of a study",
        )
    return bench


def _without_loss(bench: Bench, report: Sequence[str]) -> list[str]:
    """What a model without a loss cannot show, and why it has none."""
    if bench.has_loss:
        return []
    why = f"the checkpoint lacks parts of its head ({report[0]})" if report else "it has no language modelling head"
    return [f"States only, and no loss: {why}. So nothing was trained on the texts, and no gradient was taken."]
