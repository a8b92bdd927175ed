"""`hf-bias-patch study`: the paper's experiments on the user's own checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    seed: Annotated[int, typer.Option(help="Of random values, and of what is masked.", min=0)] = 0,
    batch_tokens: Annotated[int, typer.Option(help="Tokens in a batch.", min=16)] = 1024,
) -> None:
    """Change each attention bias in several ways, and measure what becomes of states, choices and loss."""
    from hf_bias_patch.cli.console import CountBar, stdout, strong
    from hf_bias_patch.scoring.extra import need
    from hf_bias_patch.study.results import write_results
    from hf_bias_patch.study.run import study as measure
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
    )
    with CountBar() as bar:
        found = measure(settings, out, resume=resume, overwrite=overwrite, progress=bar.show)
    if found is None:  # another process leads
        return
    written = write_results(found, out)
    written += _figures(found, out)
    stdout().print(_table(found))
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


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None:
        raise ArgumentError(f"--budget {text} is no time", remedy="Write 90s, 10m or 2h")
    return float(match[1]) * _UNITS[match[2]]


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
