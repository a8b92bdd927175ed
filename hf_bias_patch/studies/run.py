"""A study from a model's name to a folder of results, tables, figures and a page."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hf_bias_patch.checkpoint.source import resolve
from hf_bias_patch.errors import ArgumentError
from hf_bias_patch.scoring.extra import need
from hf_bias_patch.studies.downstream.checks import check_tasks
from hf_bias_patch.studies.figures.study_figures import figures_of
from hf_bias_patch.studies.figures.to_matplotlib import write_pictures
from hf_bias_patch.studies.from_checkpoint import study_checkpoint
from hf_bias_patch.studies.from_scratch import study_from_scratch
from hf_bias_patch.studies.processes import Processes
from hf_bias_patch.studies.records import Study
from hf_bias_patch.studies.report.study import write_report
from hf_bias_patch.studies.results import write_available, write_parquet, write_results
from hf_bias_patch.studies.runner import Progress, Runner
from hf_bias_patch.studies.settings import StudySettings
from hf_bias_patch.studies.store import MeasurementStore
from hf_bias_patch.tuning.folder import check_folder, environment, open_folder

__all__ = ["StudyResult", "study"]


class StudyResult(NamedTuple):
    """The records of a study, and the files that were written.

    Attributes:
        study: the records.
        files: names of the files in the study's folder: results, tables, figures and the page.
        missing: of each kind of file that was not written, which library it needs.
    """

    study: Study
    files: list[str]
    missing: list[str]


def study(
    settings: StudySettings,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> StudyResult | None:
    """Measure what each attention bias of a model does, on as many processes as Accelerate was started with.

    Args:
        settings: model, texts, tasks and budget.
        out: the folder. Each measurement is kept there as soon as it is made (`measured.jsonl`).
        resume: continue a study of the same settings.
        overwrite: replace a study that is there.
        progress: called with how far it is.

    Returns:
        The study, written into `out`; None in all processes but the main one.

    Raises:
        SourceError: the model cannot be found, or has no tokenizer.
        ArgumentError: the device cannot be used, or the settings contradict each other.
        TaskError, DataError, RecipeError: see `downstream.checks.check_tasks`.
        FamilyError: no family covers the model.
        PlanError: it has no query, key or value biases.
        TargetError: `out` holds something else, or a study of other settings.
    """
    out, ends = Path(out), None if settings.budget is None else time.monotonic() + settings.budget
    _check_device(settings.device, need("torch"))
    check_folder(out, settings.identity(), resume=resume, overwrite=overwrite)  # before minutes of loading
    source, processes = resolve(settings.model), Processes(settings.device)
    check_tasks(settings, source)

    def open_runner() -> Runner:
        store = _open_store(settings, out, processes, resume=resume, overwrite=overwrite)
        return Runner(store, processes, ends, progress)

    if settings.from_scratch:
        found = study_from_scratch(settings, source, out, open_runner)
    else:
        if processes.is_main:
            progress(0, 0, f"loading {settings.model}")
        found = study_checkpoint(settings, source, out, processes, open_runner)
    return StudyResult(found, *_write(found, out)) if processes.is_main else None


def _open_store(
    settings: StudySettings, out: Path, processes: Processes, *, resume: bool, overwrite: bool
) -> MeasurementStore:
    """The folder of a study, made or opened, and the measurements in it. Called by all processes.

    Raises:
        TargetError: `out` holds something else, or a study of other settings.
    """
    if processes.is_main:
        folder = open_folder(out, settings.identity(), resume=resume, overwrite=overwrite)
        folder.write("environment.json", environment(settings.device, processes.size, settings.dtype))
    processes.wait()  # for the folder; and then for all to have read it
    store = MeasurementStore(out / "measured.jsonl", writes=processes.is_main)
    processes.wait()
    return store


def _write(found: Study, out: Path) -> tuple[list[str], list[str]]:
    writers: list[Callable[[], list[str]]] = [
        partial(write_results, found, out),
        partial(write_parquet, found, out),
        partial(write_pictures, figures_of(found), out),
        partial(write_report, found, out),
    ]
    return write_available(writers)


def _check_device(device: str, torch: Any) -> None:
    try:
        torch.empty(0, device=device)
    except (AssertionError, NotImplementedError, RuntimeError) as error:  # torch has no one error of its own
        what = f"--device {device} cannot be used here: {str(error).splitlines()[0]}"
        raise ArgumentError(what, remedy="Take cpu, or leave it out") from None
