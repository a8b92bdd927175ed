"""`hf-bias-patch study`: a study, unless the first word is a command on studies."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from hf_bias_patch.cli.study import study
from hf_bias_patch.cli.study_compare import compare

__all__ = ["studies"]

_STUDY = "MODEL"
_EPILOG = (
    "`hf-bias-patch study compare DIR1 DIR2 …` puts studies of several models side by side; its options: "
    "`hf-bias-patch study compare --help`. A model in a folder named compare is ./compare."
)


class _Studies(TyperGroup):
    """Becomes the study itself where no other command is named, so that its usage, help and errors read as its own."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """See `click.Command.make_context`."""
        if args and args[0] != _STUDY and args[0] in self.commands:
            return super().make_context(info_name, args, parent, **extra)
        return self.commands[_STUDY].make_context(info_name, args, parent, **extra)


studies = typer.Typer(cls=_Studies, help=study.__doc__, add_completion=False)
studies.command(_STUDY, epilog=_EPILOG)(study)
studies.command("compare")(compare)
