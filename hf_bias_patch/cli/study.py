"""`hf-bias-patch study`: the paper's experiments on the user's own checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hf_bias_patch.cli.options import Model, read_texts
from hf_bias_patch.errors import ArgumentError, ExtraError

if TYPE_CHECKING:
    from hf_bias_patch.studies.records import Study

__all__ = ["study"]

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def _about(panel: str, text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


_WHAT = partial(_about, "What is measured")
_TASKS = partial(_about, "Scores on tasks")
_HOW = partial(_about, "How")


def study(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder of the results.", metavar="DIR")],
    texts: Annotated[
        Path | None,
        _WHAT("Texts to run on, one a line.", metavar="FILE", show_default="embedded, of 20 to 100 words"),
    ] = None,
    count: Annotated[int, _WHAT("How many embedded texts.", min=1)] = 64,
    heads: Annotated[bool, _WHAT("Also head by head: many more arms.", "--heads")] = False,
    loss_bound: Annotated[float, _WHAT("Nats a token that a removal may cost.", min=0.0)] = 0.01,
    train_steps: Annotated[
        int, _WHAT("Steps of AdamW where one bias, or the whole model, trains on the texts; 0: none.", min=0)
    ] = 40,
    tasks: Annotated[
        str,
        _TASKS(
            "Also score on these tasks without each bias: sst2,wikitext-2,FILE.yaml.",
            "--tasks",
            "--task",
            metavar="NAMES",
        ),
    ] = "",
    files: Annotated[str, _TASKS("Local data: TASK:SPLIT=PATH,…", metavar="FILES")] = "",
    fine_tune: Annotated[bool, _TASKS("Also train on each task without each bias.", "--fine-tune")] = False,
    from_scratch: Annotated[
        bool, _TASKS("Of MODEL take the config alone: train on each task without each bias.", "--from-scratch")
    ] = False,
    seeds: Annotated[int, _TASKS("Training runs of each kind.", min=1)] = 3,
    max_train_samples: Annotated[int | None, _TASKS("Train on so many samples.", min=1)] = None,
    max_eval_samples: Annotated[int | None, _TASKS("Score on the first so many samples.", min=1)] = None,
    epochs: Annotated[float | None, _TASKS("Passes over the training data.", show_default="3")] = None,
    learning_rate: Annotated[
        float | None, _TASKS("Peak rate of AdamW.", show_default="5e-5; from scratch 1e-3")
    ] = None,
    budget: Annotated[str | None, _HOW("Begin nothing more after this time: 90s, 10m, 2h.", metavar="TIME")] = None,
    resume: Annotated[bool, _HOW("Go on with a study that was stopped, or add to one.", "--resume")] = False,
    overwrite: Annotated[bool, _HOW("Replace a study that is there.", "--overwrite")] = False,
    dtype: Annotated[str, _HOW("float32, bfloat16, float16 or float64.")] = "float32",
    device: Annotated[str | None, _HOW("Of torch.", show_default="a GPU if there is one")] = None,
    seed: Annotated[int, _HOW("Of random values, and of what is masked.", min=0)] = 0,
    batch_tokens: Annotated[int, _HOW("Tokens in a batch.", min=16)] = 1024,
) -> None:
    """Change each attention bias in several ways, and measure what becomes of states, choices and loss."""
    from hf_bias_patch.cli.console import CountBar, stderr
    from hf_bias_patch.scoring.extra import need
    from hf_bias_patch.studies.from_scratch import study_from_scratch
    from hf_bias_patch.studies.run import study as study_checkpoint
    from hf_bias_patch.studies.settings import DTYPES, StudySettings

    if dtype not in DTYPES:
        raise ArgumentError(f"{dtype!r} is no dtype of a study", remedy=f"Take one of {', '.join(DTYPES)}")
    settings = StudySettings(
        model=model,
        texts=tuple(read_texts(texts) or ()),
        count=count,
        heads=heads,
        dtype=dtype,
        device=_device(device, need("torch")),
        seed=seed,
        batch_tokens=batch_tokens,
        train_steps=train_steps,
        loss_bound=loss_bound,
        budget=None if budget is None else _seconds(budget),
        tasks=tuple(name.strip() for name in tasks.split(",") if name.strip()),
        files=_files(files),
        fine_tune=fine_tune,
        from_scratch=from_scratch,
        seeds=seeds,
        task_options=_given(
            max_train_samples=max_train_samples,
            max_eval_samples=max_eval_samples,
            num_train_epochs=epochs,
            learning_rate=learning_rate,
        ),
    )
    measure = study_from_scratch if from_scratch else study_checkpoint
    try:
        with CountBar() as bar:
            found = measure(settings, out, resume=resume, overwrite=overwrite, progress=bar.show)
    except KeyboardInterrupt:
        if (out / "measured.jsonl").exists():
            stderr().print("Stopped. What was measured is kept; --resume goes on with it.")
        raise
    if found is not None:  # else another process leads
        _show(found, out)


def _show(found: Study, out: Path) -> None:
    """Write what was found, and print the most of it."""
    from hf_bias_patch.cli.console import stdout, strong
    from hf_bias_patch.cli.study_tables import arms_table, scores_table
    from hf_bias_patch.studies.summaries.single_study import summary

    written = list(_write(found, out))
    if found.rows:
        stdout().print(arms_table(found))
    if found.scores:
        stdout().print(scores_table({found.settings.model: found.scores}))
    for line in summary(found):
        stdout().print(line, markup=False)
    stdout().print(f"Written: {strong(out)} ({', '.join(written)})")


def _write(found: Study, out: Path) -> Iterator[str]:
    """All files; where a library is missing, those that need it are left out, and that is said."""
    from hf_bias_patch.cli.console import stderr
    from hf_bias_patch.studies.figures import write_figures
    from hf_bias_patch.studies.report import write_report
    from hf_bias_patch.studies.results import write_parquet, write_results

    yield from write_results(found, out)
    for write in (write_parquet, write_figures, write_report):
        try:
            yield from write(found, out)
        except ExtraError as error:
            stderr().print(str(error), markup=False)


def _device(asked: str | None, torch: Any) -> str:
    if asked is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=asked)
    except (AssertionError, NotImplementedError, RuntimeError) as error:  # torch has no one error of its own
        what = f"--device {asked} cannot be used here: {str(error).splitlines()[0]}"
        raise ArgumentError(what, remedy="Take cpu, or leave it out") from None
    return asked


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None:
        raise ArgumentError(f"--budget {text} is no time", remedy="Write 90s, 10m or 2h")
    return float(match[1]) * _UNITS[match[2]]


def _files(text: str) -> dict[str, dict[str, str]]:
    from hf_bias_patch.tuning.settings import as_files

    try:
        return as_files(text)
    except ValueError as error:
        raise ArgumentError(f"--files: {error}", remedy="Write --files sst2:train=PATH,sst2:validation=PATH") from None


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
