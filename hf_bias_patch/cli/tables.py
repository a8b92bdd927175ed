"""Plans as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hf_bias_patch.cli.console import nbytes
from hf_bias_patch.cli.console import table as empty_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hf_bias_patch.patching.plan import Edit, Plan

__all__ = ["FLAGS", "equal_line", "plan_lines"]

FLAGS = {
    "logits": "logits",
    "hidden_states": "hidden states",
    "attention_weights": "attention weights",
    "with_dropout": "training with dropout",
    "lora": "existing LoRA adapters",
    "kv_cache": "existing KV caches",
}
_CARRIES = {"nothing": "cancels in softmax", "output": "output bias", "weight": "own weight", "norm": "norm bias"}


def plan_lines(plan: Plan) -> Iterator[RenderableType]:
    """A plan: its edits by kind, what they touch, what stays equal."""
    groups = _by_label(plan)
    columns = {
        "action": list(groups),
        "goes to": [_CARRIES.get(edits[0].into or "", "") for edits in groups.values()],
        "sites": [_places(edits) for edits in groups.values()],
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
    if plan.lossy:
        yield "[bold yellow]Lossy:[/] this recipe changes what the model computes, as asked."
    yield ""


def equal_line(plan: Plan) -> str:
    """What stays equal, in one line."""
    flags = plan.equal.model_dump()
    same = ", ".join(name for flag, name in FLAGS.items() if flags[flag]) or "nothing"
    other = ", ".join(name for flag, name in FLAGS.items() if not flags[flag])
    return f"Stays equal: [green]{same}[/]." + (f" Not: [yellow]{other}[/]." if other else "")


def _by_label(plan: Plan) -> dict[str, list[Edit]]:
    groups: dict[str, list[Edit]] = {}
    for edit in plan.edits:
        groups.setdefault(edit.label, []).append(edit)
    return groups


def _places(edits: list[Edit]) -> str:
    """Site names, their layers joined: `encoder self 0-5`."""
    groups: dict[str, list[int]] = {}
    for edit in edits:
        stack, layer, kind = edit.site.split(".")
        groups.setdefault(f"{stack} {kind}", []).append(int(layer))
    return ", ".join(f"{name} {_runs(layers)}" for name, layers in groups.items())


def _runs(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _range(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = f"{min(known):.2g}", f"{max(known):.2g}"
    return low if low == high else f"{low} to {high}"
