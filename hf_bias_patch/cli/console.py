"""Where commands print: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import sys
from collections.abc import Container
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ByteBar", "CountBar", "clear_beside", "nbytes", "plain", "stderr", "stdout", "strong", "table"]

_PIPED_WIDTH = 160  # a pipe has no width; tables for a file or a pager must not be squeezed into 80 columns


@cache
def stdout() -> Console:
    """The console for results."""
    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False, soft_wrap=False)


@cache
def stderr() -> Console:
    """The console for progress and errors."""
    return Console(stderr=True, highlight=False)


def table(*columns: str, numbers: Container[str] = (), title: str | None = None) -> Table:
    """An empty table. Where it is too wide for the console, cells are folded; nothing is cut off.

    Args:
        columns: their headings.
        numbers: those of them to align on the right.
        title: stands above it.
    """
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", caption_justify="left")
    for name in columns:
        made.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    return made


class _Bar:
    """A progress bar on stderr, which appears once there is something to show."""

    def __init__(self, *columns: ProgressColumn) -> None:
        self._progress = Progress(*columns, console=stderr(), transient=True)
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._progress.stop()


class ByteBar(_Bar):
    """A progress bar in bytes, which appears once its total is known."""

    def __init__(self, label: str) -> None:
        done = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
        super().__init__(*done, TransferSpeedColumn(), TimeRemainingColumn())
        self._label = label

    def start(self, total: int) -> None:
        """Show the bar."""
        self._task = self._progress.add_task(self._label, total=total)
        self._progress.start()

    def advance(self, count: int) -> None:
        """Count bytes done."""
        if self._task is not None:
            self._progress.advance(self._task, count)


class CountBar(_Bar):
    """A progress bar of measurements; in a log, where none can be drawn, a line when something else begins."""

    def __init__(self) -> None:
        super().__init__(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        self._label = ""

    def show(self, done: float, known: int, label: str) -> None:
        """Say how many are done, of how many (0: not known yet), and what is running."""
        if self._task is None:
            self._task = self._progress.add_task("", total=None)
            self._progress.start()
        self._progress.update(self._task, completed=done, total=known or None, description=escape(label))
        if label != self._label and not stderr().is_terminal:
            stderr().print(f"{done:.0f} of {known}: {label}" if known else label, markup=False)
        self._label = label


def strong(text: object) -> str:
    """Markup for a path or name that stands out, whatever brackets it has."""
    return f"[bold]{escape(str(text))}[/]"


def plain(text: str) -> str:
    """Text of a stranger's file without what would steer the terminal, or cannot be written: escaped, and so seen."""
    return "".join(
        letter if letter == "\n" or letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def nbytes(count: int) -> str:
    """A number of bytes for people, such as `3.5 MiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def clear_beside(out: Path, console: Console) -> None:
    """Remove what killed runs left beside a folder, and name it."""
    from hf_bias_patch.checkpoint.leftovers import clear_leftovers

    for folder in clear_leftovers(out.resolve().parent):
        console.print(f"Removed {folder}: the working folder of a run that was killed.", soft_wrap=True)
