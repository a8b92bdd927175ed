"""`hf-bias-patch tune`: train chosen biases of a checkpoint on a task."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hf_bias_patch.cli.options import AsJson
from hf_bias_patch.cli.settings import options_of
from hf_bias_patch.cli.words import ANY_WORD
from hf_bias_patch.tuning.stop_signal import TERMINATED
from hf_bias_patch.tuning.task_settings import KINDS

if TYPE_CHECKING:
    from hf_bias_patch.tuning.run import TuneResult

__all__ = ["command", "run_script"]

_Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar and no table of what trains.")]


def _command(name: str, about: str) -> Callable[..., None]:
    def run(fields: Mapping[str, Any], as_json: AsJson = False, quiet: _Quiet = False) -> None:
        _run(name, fields, as_json, quiet)

    run.__doc__ = about
    return options_of(KINDS[name], run)


_COMMANDS = {
    "glue": _command("glue", "Classification and regression: GLUE, and your own data of that kind."),
    "lm": _command("lm", "Language modelling: causal for models such as GPT-2, masked for models such as BERT."),
    "generation": _command(
        "generation", "Texts from texts, such as summaries: by BART or T5, or by GPT-2 from a prompt."
    ),
}


def command() -> Any:
    """The command `hf-bias-patch tune`, with one command for each kind of task."""
    group = typer.Typer(
        help="Train chosen biases on a task, with Accelerate; on several processes by "
        "`accelerate launch -m hf_bias_patch tune …`. Options of Hugging Face's example scripts are accepted.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings=ANY_WORD,
    )
    for name, function in _COMMANDS.items():
        group.command(name, context_settings=ANY_WORD)(function)
    return typer.main.get_command(group)


def run_script(name: str) -> None:
    """The script of one kind: the same as `hf-bias-patch tune NAME`, for `accelerate launch`."""
    from hf_bias_patch.cli import guarded

    guarded(lambda: command().main(args=[name, *sys.argv[1:]]))


def _run(name: str, fields: Mapping[str, Any], as_json: bool, quiet: bool) -> None:
    from hf_bias_patch.cli.progress import Bar
    from hf_bias_patch.scoring.extra import need
    from hf_bias_patch.tuning.settings import make_settings
    from hf_bias_patch.tuning.watcher import Watcher

    settings = make_settings(KINDS[name], **fields)
    need("accelerate")
    from hf_bias_patch.tuning.run import tune as run

    watcher: Watcher = Watcher() if quiet or as_json else Bar()
    result = run(settings, watcher)
    if as_json:
        typer.echo(json.dumps(result.plain, indent=2))
    elif result.is_main:
        _show(result)
    raise typer.Exit(TERMINATED if result.ended == "terminated" else 0)


def _show(result: TuneResult) -> None:
    from hf_bias_patch.cli.console import stdout, strong, table

    if result.ended == "terminated":
        stdout().print(f"Stopped at step {result.plain['step']}; the state is saved. Continue with --resume.")
        return
    if result.ended == "early":
        stdout().print(f"Stopped early, at step {result.plain['step']}: no better evaluation for a while.")
    if result.metrics:
        stdout().print(f"The best state is that of step {result.plain['best_step']}:")
        rows = table("metric", "value", numbers=("value",))
        for name, value in result.metrics.items():
            rows.add_row(f"[bold]{name}[/]" if name == result.main else name, f"{value:,.2f}")
        stdout().print(rows)
    adapter = ", adapter/ with peft" if result.plain.get("adapter") else ""
    stdout().print(f"Written: {strong(result.folder)} (results.json; model/ loads with stock transformers{adapter})")
