"""`hf-bias-patch families --draft`: what small models show of a type, as a family file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from hf_bias_patch.family_check.draft.run import Draft
    from hf_bias_patch.family_check.draft.several import Drafts
    from hf_bias_patch.family_check.sweep import Swept

__all__ = ["print_drafts"]


def print_drafts(
    names: Sequence[str], output: Path | None, jobs: int, timeout: float, show: Callable[[Swept], None]
) -> None:
    """Draft model types, write their files into a folder or print them, and hold them against the numbers.

    Args:
        names: model types.
        output: where the files go; printed, if None.
        jobs, timeout: of the check.
        show: prints one result of it.
    """
    from hf_bias_patch.cli.console import stdout
    from hf_bias_patch.family_check.draft.several import Drafts

    with Drafts() as drafts:
        for draft in drafts.draft(names):
            _tell(draft)
        for name, why in drafts.failed.items():
            stdout().print(f"{name}: not drafted, no small model of it runs: {why}", markup=False, soft_wrap=True)
        _give(drafts, output)
        checked = []
        for swept in drafts.check(names, jobs=jobs, timeout=timeout):
            checked.append(swept)
            if not swept.case.changes or swept.differences or swept.problem:
                show(swept)
    wrong = sum(len(swept.wrong) for swept in checked)
    missed = sum(len(swept.differences) for swept in checked) - wrong
    held = {swept.case.model_type for swept in checked if swept.agreed or swept.differences}
    for name in sorted(set(names) - held - drafts.failed.keys()):
        said = "its draft was held against no bias: stock transformers reads none at these sites"
        stdout().print(f"{name}: {said}", markup=False, soft_wrap=True)
    stdout().print(f"\n{len(checked)} configs checked: {wrong} wrong, {missed} missed or unseen", markup=False)
    raise typer.Exit(1 if wrong or drafts.failed else 0)


def _tell(draft: Draft) -> None:
    from hf_bias_patch.cli.console import stdout

    if draft.joins:
        said = f"the same as the family {draft.joins}: add it to the model types of families/{draft.joins}.toml"
    else:
        said = f"families/{draft.name}.toml" if draft.text else "nothing drafted"
    lines = [f"{draft.model_type}: {said}", *(f"  look: {text}" for text in draft.look)]
    stdout().print("\n".join(lines), markup=False, soft_wrap=True)


def _give(drafts: Drafts, output: Path | None) -> None:
    from hf_bias_patch.cli.console import stdout

    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    for name, text in drafts.files.items():
        if output is None:
            typer.echo(f"\n# families/{name}.toml\n{text}")
        else:
            (output / f"{name}.toml").write_text(text, "utf-8")
            stdout().print(f"wrote {output / name}.toml", markup=False, soft_wrap=True)
