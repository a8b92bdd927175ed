"""The command line: one module a command. The only place that prints or sets exit codes.

Exit codes: 0 done, 1 evidence that speaks against it (a certificate that does not pass, a table that a probe refutes),
2 a request that is refused, 130 interrupted.
Command modules import what they run inside their functions, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import typer

from hf_bias_patch.cli.card import card
from hf_bias_patch.cli.families import families
from hf_bias_patch.cli.inspect import inspect
from hf_bias_patch.cli.late import add_late
from hf_bias_patch.cli.options import ANY_SPELLING
from hf_bias_patch.cli.patch import patch
from hf_bias_patch.cli.pull import pull
from hf_bias_patch.cli.push import push
from hf_bias_patch.cli.revert import revert
from hf_bias_patch.cli.study import studies
from hf_bias_patch.cli.survey import census, survey
from hf_bias_patch.cli.verify import verify
from hf_bias_patch.cli.words import with_options
from hf_bias_patch.errors import BiasPatchError
from hf_bias_patch.version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    name="hf-bias-patch",
    help="Find the attention biases of a Hugging Face checkpoint, remove them, and prove that it computes the same.",
    no_args_is_help=True,
    add_completion=False,
    context_settings=ANY_SPELLING | {"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Options before the command."""


for command in (inspect, patch, verify, revert, families, card, push, pull, survey):
    app.command()(command)
app.command("census", hidden=True)(census)
app.add_typer(studies, name="study")
add_late(app, "evaluate", "Score a model on a task, without training it.")
add_late(app, "tune", "Train chosen biases on a task, with Accelerate.")
add_late(app, "compare", "Train each of several choices with the same data and budget, and compare.")


def main() -> None:
    """Run the command line; every error of this package ends as a message, never as a traceback."""
    guarded(app)


def guarded(command: Callable[[], object]) -> None:
    """Call a command; every error of this package ends as a message and exit code 2."""
    try:
        command()
    except BiasPatchError as error:
        from hf_bias_patch.cli.console import plain, stderr

        stderr().print("[bold red]error:[/] ", end="")
        stderr().print(plain(with_options(str(error))), markup=False, highlight=False)
        sys.exit(2)
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
