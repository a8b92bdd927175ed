"""`hf-bias-patch study`: the paper's experiments on the user's own checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hf_bias_patch.cli.options import Model, read_texts
from hf_bias_patch.errors import ArgumentError, ExtraError

if TYPE_CHECKING:
    from rich.table import Table

    from hf_bias_patch.study.found import Study

__all__ = ["study"]

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def study(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder of the results.", metavar="DIR")],
    texts: Annotated[
        Path | None,
        typer.Option(help="Texts to run on, one a line.", metavar="FILE", show_default="embedded, of 20 to 100 words"),
    ] = None,
    count: Annotated[int, typer.Option(help="How many embedded texts.", min=1)] = 64,
    heads: Annotated[bool, typer.Option("--heads", help="Also head by head: many more arms.")] = False,
    loss_bound: Annotated[float, typer.Option(help="Nats a token that a removal may cost.", min=0.0)] = 0.01,
    train_steps: Annotated[
        int,
        typer.Option(help="Steps of AdamW where one bias, or the whole model, trains on the texts; 0: none.", min=0),
    ] = 40,
    budget: Annotated[
        str | None, typer.Option(help="Begin nothing more after this time: 90s, 10m, 2h.", metavar="TIME")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a study that was stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a study that is there.")] = False,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or float64.")] = "float32",
    device: Annotated[str | None, typer.Option(help="Of torch.", show_default="a GPU if there is one")] = None,
    tasks: Annotated[
        str,
        typer.Option(help="Also score on these tasks without each bias: sst2,wikitext-2,FILE.yaml.", metavar="NAMES"),
    ] = "",
    files: Annotated[str, typer.Option(help="Local data: TASK:SPLIT=PATH,…", metavar="FILES")] = "",
    fine_tune: Annotated[bool, typer.Option("--fine-tune", help="Also train on each task without each bias.")] = False,
    from_scratch: Annotated[
        bool,
        typer.Option("--from-scratch", help="Of MODEL take the config alone: train on each task without each bias."),
    ] = False,
    seeds: Annotated[int, typer.Option(help="Training runs of each kind.", min=1)] = 3,
    max_train_samples: Annotated[int | None, typer.Option(help="Train on so many samples.", min=1)] = None,
    max_eval_samples: Annotated[int | None, typer.Option(help="Score on the first so many samples.", min=1)] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training data.", show_default="3")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak rate of AdamW.", show_default="5e-5; from scratch 1e-3")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of random values, and of what is masked.", min=0)] = 0,
    batch_tokens: Annotated[int, typer.Option(help="Tokens in a batch.", min=16)] = 1024,
) -> None:
    """Change each attention bias in several ways, and measure what becomes of states, choices and loss."""
    from hf_bias_patch.cli.console import CountBar, stdout, strong
    from hf_bias_patch.scoring.extra import need
    from hf_bias_patch.study.results import write_results
    from hf_bias_patch.study.run import study as study_checkpoint
    from hf_bias_patch.study.scratch import study_from_scratch
    from hf_bias_patch.study.settings import DTYPES, Settings
    from hf_bias_patch.study.summary import summary

    if dtype not in DTYPES:
        raise ArgumentError(f"{dtype!r} is no dtype of a study", remedy=f"Take one of {', '.join(DTYPES)}")
    torch = need("torch")
    settings = Settings(
        model=model,
        texts=tuple(read_texts(texts) or ()),
        count=count,
        heads=heads,
        dtype=dtype,
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
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
    with CountBar() as bar:
        found = measure(settings, out, resume=resume, overwrite=overwrite, progress=bar.show)
    if found is None:  # another process leads
        return
    written = write_results(found, out)
    written += _figures(found, out)
    written += _report(found, out)
    if found.rows:
        stdout().print(_table(found))
    if found.scores:
        stdout().print(_scores(found))
    for line in summary(found):
        stdout().print(line, markup=False)
    stdout().print(f"Written: {strong(out)} ({', '.join(written)})")


def _figures(found: Study, out: Path) -> list[str]:
    from hf_bias_patch.cli.console import stderr
    from hf_bias_patch.study.figures import write_figures

    try:
        return write_figures(found, out)
    except ExtraError as error:
        stderr().print(str(error), markup=False)
        return []


def _report(found: Study, out: Path) -> list[str]:
    from hf_bias_patch.cli.console import stderr
    from hf_bias_patch.study.report import write_report

    try:
        return [write_report(found, out)]
    except ExtraError as error:
        stderr().print(str(error), markup=False)
        return []


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


def _scores(found: Study) -> Table:
    """Each task's main metric without each bias."""
    from hf_bias_patch.cli.console import table
    from hf_bias_patch.study.score_summary import as_number, main_contrasts

    numbers = ("score", "difference", "p")
    made = table("task", "how", "metric", "seeds", "without", *numbers, numbers=numbers)
    made.title = "Scores without a bias: mean ± standard deviation; differences are paired by seed"
    for row in main_contrasts(found.scores):
        if row.against != "nothing":
            continue
        score = as_number(row, row.mean) + ("" if row.sd is None else f" ± {as_number(row, row.sd)}")
        difference = as_number(row, row.difference, signed=True)
        difference += "" if row.difference_sd is None else f" ± {as_number(row, row.difference_sd)}"
        cells = (score, "" if row.removed == "nothing" else difference, "" if row.p is None else f"{row.p:.2g}")
        made.add_row(row.task, row.how, row.metric, str(row.seeds or ""), row.removed, *cells)
    return made


def _table(found: Study) -> Table:
    """The arms on all sites of a kind at once."""
    from hf_bias_patch.cli.console import table

    loss = found.measure == "loss_change"
    numbers = ("relative", "cosine", "KL, nats", "agreement", "loss change")
    made = table("where", "bias", "in its place", *numbers[: None if loss else 2], numbers=numbers)
    made.title = f"What becomes of the last states{', choices and loss' if loss else ''}"
    rows = [(row.place, row.projection, row.fill, row.figures) for row in found.rows if row.stage == "whole"]
    for place, projection, fill, figures in [*rows, ("noise floor", "", "", found.floor)]:
        cells = [f"{figures['relative']:.2g}", f"{figures['cosine']:.4f}"]
        if loss:
            cells += [f"{figures['kl']:.2g}", f"{figures['agreement']:.2%}", f"{figures['loss_change']:+.2g}"]
        made.add_row(place, projection, fill, *cells)
    return made
