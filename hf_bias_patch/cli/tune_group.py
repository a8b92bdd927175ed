"""`hf-bias-patch tune`: the group of its commands, which are made from the settings only when one is called."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

__all__ = ["tune"]


class _Late(TyperGroup):
    """Settings take a quarter of a second to import, which `hf-bias-patch --help` need not wait for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return ["glue", "lm", "generation"]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.list_commands(ctx):
            return None
        from hf_bias_patch.cli.tune import command

        return command(cmd_name)


tune = typer.Typer(
    cls=_Late,
    help="Train chosen biases on a task, with Accelerate; on several processes by "
    "`accelerate launch -m hf_bias_patch tune …`.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@tune.callback()
def _options() -> None:
    """Makes it a group, although no command is known yet."""
