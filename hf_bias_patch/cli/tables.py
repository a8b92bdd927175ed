"""Plans as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape

from hf_bias_patch.architecture.uncovered import told
from hf_bias_patch.cli.console import nbytes
from hf_bias_patch.cli.console import table as empty_table
from hf_bias_patch.patching.folds import FOLDS
from hf_bias_patch.patching.preserved import FLAGS
from hf_bias_patch.patching.summary import by_label, places, stays

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hf_bias_patch.patching.plan import Plan

__all__ = ["equal_line", "equal_words", "plan_lines"]


def plan_lines(plan: Plan) -> Iterator[RenderableType]:
    """A plan: its edits by kind, what they touch, what stays equal."""
    groups = by_label(plan)
    columns = {
        "action": list(groups),
        "destination": [FOLDS[to].words if (to := edits[0].destination) else "" for edits in groups.values()],
        "sites": [places(edits) for edits in groups.values()],
        "amplification": [_range([edit.amplification for edit in edits]) for edits in groups.values()],
        "conditioning": [_range([edit.conditioning for edit in edits]) for edits in groups.values()],
        "rounding loss": [_range([edit.loss for edit in edits]) for edits in groups.values()],
    }
    filled = {name: cells for name, cells in columns.items() if any(cells)}
    table = empty_table(*filled)
    for row in zip(*filled.values(), strict=True):
        table.add_row(*row)
    yield table
    zero = sum(edit.zero and edit.removes for edit in plan.edits)
    if zero:
        yield f"{zero} of these biases are zero already."
    absent = f"; {len(plan.absent)} tensors leave the file" if plan.absent else ""
    yield f"Touches {len(plan.touched)} tensors, {nbytes(sum(plan.touched.values()))}{absent}."
    yield equal_line(plan)
    if plan.recipe.left_out:
        yield f"Left out, and so kept ({len(plan.recipe.left_out)} of the biases asked for):"
        yield from (f"  {escape(line)}" for line in stays(plan.recipe.left_out))
    if plan.uncovered:
        yield escape(told(plan.uncovered))
    if plan.lossy:
        yield "[bold yellow]Lossy:[/] this recipe changes what the model computes, as asked."
    yield ""


def equal_line(plan: Plan) -> str:
    """What stays equal, in one line."""
    flags = plan.equal.model_dump()
    same = [name for flag, name in FLAGS.items() if flags[flag]]
    return equal_words(same, [name for flag, name in FLAGS.items() if not flags[flag]])


def equal_words(same: Sequence[str], other: Sequence[str]) -> str:
    """What stays equal, and what may change."""
    parts = [f"Stays equal: [green]{', '.join(same)}[/]."] if same else []
    return " ".join([*parts, f"May change: [yellow]{', '.join(other)}[/]."] if other else parts)


def _range(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = f"{min(known):.2g}", f"{max(known):.2g}"
    return low if low == high else f"{low} to {high}"
