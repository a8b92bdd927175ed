"""Commands whose options are made from settings: built only when they are called.

Settings take a quarter of a second to import; `hf-bias-patch --help` does not wait for that.
"""

from __future__ import annotations

from importlib import import_module

import typer

__all__ = ["add_late"]

_EVERYTHING = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def add_late(app: typer.Typer, name: str, about: str) -> None:
    """Add a command that hands all its arguments to what `hf_bias_patch.cli.NAME.command()` makes."""

    def run(context: typer.Context) -> None:
        made = import_module(f"hf_bias_patch.cli.{name}").command()
        code = made.main(args=list(context.args), prog_name=context.command_path, standalone_mode=False)
        raise typer.Exit(code or 0)

    app.command(name, help=about, add_help_option=False, context_settings=dict(_EVERYTHING))(run)
