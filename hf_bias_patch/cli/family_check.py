"""`hf-bias-patch families --check` and `--draft`: family table and numbers compared, and family files from numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from hf_bias_patch.errors import RecipeError

if TYPE_CHECKING:
    from hf_bias_patch.family_check.draft.run import Draft
    from hf_bias_patch.family_check.draft.several import Drafts
    from hf_bias_patch.family_check.sweep import Swept

__all__ = ["print_check", "print_drafts"]


def print_check(names: Sequence[str], vary: bool, pairs: bool, jobs: int, timeout: float, as_json: bool) -> NoReturn:
    """Check model types (all, if none is named), print what was found, and exit.

    Args:
        names, vary, pairs: see `cases`.
        jobs, timeout: of the sweep.
        as_json: print JSON.
    """
    from hf_bias_patch.family_check.cases import cases, types_to_check
    from hf_bias_patch.family_check.sweep import sweep

    found = []
    for swept in sweep(cases(types_to_check(names), vary=vary, pairs=pairs), jobs, timeout):
        found.append(swept)
        if not as_json:
            _print_swept(swept)
    if as_json:
        typer.echo(json.dumps([swept.plain() for swept in found], indent=2, ensure_ascii=False))
    else:
        _sum_up(found)
    raise typer.Exit(1 if any(swept.open for swept in found) else 0)


def _print_swept(swept: Swept) -> None:
    """One result of a check."""
    from hf_bias_patch.family_check.reasons.untouched import summary

    line = f"{swept.case}: {swept.agreed} agreed"
    line += f", {len(swept.classes)} classes" if swept.classes else ""
    if swept.differences:
        kinds = [difference.kind for difference in swept.differences]
        line += "".join(f", {kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    problem = "not checked" if swept.built else "could not be built"
    line += f", {problem}: {swept.problem}" if swept.problem else ""
    _say(line + (f" ({swept.reason})" if swept.reason else ""))
    for told in summary(swept.untouched):
        _say(f"  {told}")
    groups: dict[tuple[str, str], list[str]] = {}
    for item in swept.differences:
        groups.setdefault((item.kind, item.table), []).append(f"    numbers on {item.slot}: {item.numbers}")
    for (kind, table), numbers in groups.items():
        _say("\n".join([f"  {kind}, the table says: {table}", *numbers]))


def _say(text: str) -> None:
    from hf_bias_patch.cli.console import stdout

    stdout().print(text, markup=False, soft_wrap=True)


def _sum_up(found: Sequence[Swept]) -> None:
    defaults = [swept for swept in found if not swept.case.changes]
    published = [swept for swept in found if swept.case.checkpoint]
    varied = [swept for swept in found if swept.case.changes and not swept.case.checkpoint]
    problems = [swept for swept in defaults if swept.problem]
    unknown = [swept.case.model_type for swept in problems if not swept.reason]
    _say(
        f"\nmodel types: {len(defaults)}; {_counts(defaults)}; {len(problems)} types not checked, "
        f"{len(unknown)} of them for no known reason{': ' if unknown else ''}{', '.join(unknown)}" + _shares(defaults)
    )
    _say(_about_classes(defaults))
    for title, changed in (("configs of published checkpoints", published), ("changes of the config", varied)):
        if changed:
            _say(_about_changes(title, changed))


def _about_classes(found: Sequence[Swept]) -> str:
    """How many classes were looked at, and which could not be."""
    read, unknown, explained = (
        sum(len(getattr(swept, name)) for swept in found) for name in ("classes", "no_family", "explained")
    )
    lost = sorted(name for swept in found for name in swept.not_built)
    return (
        f"{read} classes of these types, each saved by itself and read again; {unknown} more are of no family; "
        f"{explained} unseen biases are explained; {len(lost)} could not be built"
        + (f": {', '.join(lost)}" if lost else "")
    )


def _counts(found: Sequence[Swept]) -> str:
    kinds = [difference.kind for swept in found for difference in swept.differences]
    agreed = sum(swept.agreed for swept in found)
    return f"{agreed} biases agreed, " + ", ".join(
        f"{kinds.count(kind)} {kind}" for kind in ("wrong", "missed", "unseen")
    )


def _about_changes(what: str, varied: Sequence[Swept]) -> str:
    """What became of the changes, with the names of those that prove nothing."""
    lines = [f"{len(varied)} {what}: {_counts(varied)}"]
    for title, chosen in (
        ("wrong", [swept for swept in varied if swept.wrong]),
        ("not checked", [swept for swept in varied if swept.problem and swept.built]),
        ("could not be built", [swept for swept in varied if not swept.built]),
    ):
        lines += [f"{len(chosen)} {title}" + "".join(f"\n  {swept.case}" for swept in chosen)]
    return "\n".join(lines)


def _shares(found: Sequence[Swept]) -> str:
    """How much of what the numbers show the table knows, as a line of its own."""
    closable, slots, unknown = (
        sum(getattr(swept, name) for swept in found) for name in ("closable", "slots", "unknown")
    )
    missed = sum(difference.kind == "missed" for swept in found for difference in swept.differences)
    if not closable + missed or not slots:
        return ""
    return (
        f"\nthe table knows {closable / (closable + missed):.1%} of the {closable + missed} biases that the numbers "
        f"show to be redundant or foldable; its verdict is unknown for {unknown} of all {slots}"
    )


def print_drafts(names: Sequence[str], output: Path | None, jobs: int, timeout: float) -> NoReturn:
    """Draft model types, write their files into a folder or print them, check them, and exit.

    Args:
        names: model types.
        output: where the files go; printed, if None.
        jobs, timeout: of the check.
    """
    from hf_bias_patch.family_check.cases import types_to_check
    from hf_bias_patch.family_check.draft.several import Drafts

    if not names:
        raise RecipeError("--draft needs model types", remedy="Name them: `hf-bias-patch families --draft bert`")
    types_to_check(names)
    with Drafts() as drafts:
        for draft in drafts.draft(names):
            _tell(draft)
        for name, why in drafts.failed.items():
            _say(f"{name}: not drafted, since no small model of it runs: {why}")
        _give(drafts, output)
        checked = []
        for swept in drafts.check(names, jobs=jobs, timeout=timeout):
            checked.append(swept)
            if not swept.case.changes or swept.differences or swept.problem:
                _print_swept(swept)
    wrong = sum(len(swept.wrong) for swept in checked)
    missed = sum(len(swept.differences) for swept in checked) - wrong
    held = {swept.case.model_type for swept in checked if swept.agreed or swept.differences}
    for name in sorted(set(names) - held - drafts.failed.keys()):
        said = "its draft could not be compared with any bias: stock transformers reads none at these sites"
        _say(f"{name}: {said}")
    _say(f"\n{len(checked)} configs checked: {wrong} wrong, {missed} missed or unseen")
    raise typer.Exit(1 if wrong or drafts.failed else 0)


def _tell(draft: Draft) -> None:
    if draft.joins:
        said = f"the same as the family {draft.joins}: add it to the model types of families/{draft.joins}.toml"
    else:
        said = f"families/{draft.name}.toml" if draft.text else "nothing drafted"
    lines = [f"{draft.model_type}: {said}", *(f"  look: {text}" for text in draft.look)]
    _say("\n".join(lines))


def _give(drafts: Drafts, output: Path | None) -> None:
    if output is None:
        for name, text in drafts.files.items():
            typer.echo(f"\n# families/{name}.toml\n{text}")
        return
    for path in drafts.write(output):
        _say(f"wrote {path}")
