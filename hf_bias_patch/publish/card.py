"""A variant's card: README.md made from the facts beside it. No figure in it is typed by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_bias_patch.checkpoint.durable import replace_file
from hf_bias_patch.checkpoint.links import hub_repo
from hf_bias_patch.checkpoint.side import EVAL_RESULTS
from hf_bias_patch.errors import TargetError
from hf_bias_patch.evidence.certificate import Certificate, Figure
from hf_bias_patch.patching.base_card import BASE_CARD, CARD, base_card, is_as_made, is_own_card, sealed
from hf_bias_patch.patching.summary import CARRIES, FLAGS, by_label, places
from hf_bias_patch.publish.base import BASE, Base, dump_base
from hf_bias_patch.publish.eval_results import eval_results
from hf_bias_patch.publish.facts import Facts, read_facts
from hf_bias_patch.publish.metadata import metadata
from hf_bias_patch.publish.norms import NORMS, dump_norms
from hf_bias_patch.publish.norms_plot import FIGURE, draw_norms

__all__ = ["LOSSY", "card_files", "render", "write_card"]

_PAPER = """@article{namazifar2023role,
  title   = {Role of Bias Terms in Dot-Product Attention},
  author  = {Namazifar, Mahdi and Hazarika, Devamanyu and Hakkani-Tur, Dilek},
  journal = {arXiv preprint arXiv:2302.08626},
  year    = {2023}
}"""


LOSSY = "This model computes something else than its base, on purpose: needed biases are gone or replaced."
"""What a card says first of such a variant."""


def write_card(folder: Path, base: Base | None = None, *, overwrite: bool = False) -> Path:
    """Write README.md into a variant's folder, with its figure; a card of the base that stands there is kept aside.

    Args:
        folder: of a variant.
        base: instead of the one that is kept, and kept from then on; it is not checked here.
        overwrite: whether a card that somebody wrote into may be replaced.

    Returns:
        The file.

    Raises:
        CheckpointError: the folder holds no variant.
        ExtraError: matplotlib is missing.
        TargetError: it cannot be written, or somebody wrote into the one that is there, or the folder belongs to the
            Hub's cache.
    """
    facts = read_facts(folder)
    _refuse_replacing(folder, overwrite)
    files = card_files(folder, replace(facts, base=base) if base else facts)
    try:
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            replace_file(folder / name, content)
        for name in {BASE, EVAL_RESULTS, NORMS, FIGURE} - set(files):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise TargetError(f"{folder / CARD} cannot be written", why=error.strerror or str(error)) from error
    return folder / CARD


def _refuse_replacing(folder: Path, overwrite: bool) -> None:
    if hub_repo(folder) is not None:
        raise TargetError(
            f"{folder} gets no card",
            why="It belongs to the Hub's cache, which other programs rely on",
            remedy="Make a folder of it with `hf-bias-patch pull NAME OUT`",
        )
    if not overwrite and is_own_card(folder) and not is_as_made(folder):
        raise TargetError(
            f"Somebody wrote into {folder / CARD}, which would be lost",
            remedy="Pass --overwrite, or look at the new one with --print",
        )


def card_files(folder: Path, facts: Facts) -> dict[str, bytes]:
    """A card and what belongs to it, the card last: name in the folder → content."""
    files = {BASE: dump_base(facts.base)} if facts.base.on_hub else {}
    if (before := base_card(folder)) is not None:
        files[BASE_CARD] = before
    if facts.norms:
        files |= {NORMS: dump_norms(facts.norms), FIGURE: draw_norms(facts.norms)}
    if (scores := eval_results(facts)) is not None:
        files[EVAL_RESULTS] = scores
    return files | {CARD: render(facts).encode()}


def render(facts: Facts) -> str:
    """The card as Markdown, front matter first. Needs no network, and is the same for the same facts."""
    parts = [
        f"---\n{metadata(facts)}---",
        facts.mark,
        *_opening(facts),
        *_changes(facts),
        *_equal(facts.certificate),
        *_measured(facts.certificate),
        *_results(facts),
        *_use(facts),
        *_limits(facts),
        f"## Citation\n\n```bibtex\n{_PAPER}\n```",
    ]
    return sealed("\n\n".join(parts) + "\n")


def _opening(facts: Facts) -> Iterable[str]:
    base = _base(facts.base)
    if facts.lossy:
        yield f"**{LOSSY}**"
    yield f"# {facts.name}"
    gone = dict.fromkeys(edit.slot.projection for edit in facts.plan.edits if edit.removes)
    without = f" without the {_and(gone)} biases of its attention" if gone else ""
    yield f"{base}{without}, made by hf_bias_patch."
    if facts.certificate is None:
        yield "Nothing was measured: there is no certificate."
    elif facts.certificate.passed:
        measured = "its base" if facts.base.patches == 1 else f"`{facts.certificate.source.name}`"
        yield f"It computes what {measured} computes: {facts.certificate.headline}"


def _changes(facts: Facts) -> Iterable[str]:
    yield "## What was changed"
    rows = []
    for label, edits in by_label(facts.plan).items():
        reasons = "; ".join(dict.fromkeys(edit.slot.verdict.reason for edit in edits if edit.slot.verdict.reason))
        where = CARRIES.get(edits[0].into or "", "nowhere" if edits[0].removes else "stays")
        rows.append((label, where, places(edits), str(len(edits)), reasons))
    yield _table(("action", "where the bias went", "sites", "biases", "verdict"), rows)
    touched = sum(facts.plan.touched.values())
    chain = facts.base.patches > 1
    before = (
        f"the checkpoint before this patch, the last of {facts.base.patches} since the base" if chain else "the base"
    )
    yield (
        f"{len(facts.plan.touched)} of the checkpoint's tensors were touched ({touched:,} bytes), "
        f"{len(facts.plan.absent)} left the file; all others are those of {before}, byte for byte."
    )
    if facts.norms:
        yield f"![Norm of each attention bias, by projection and site, in the base and in this variant]({FIGURE})"


def _equal(certificate: Certificate | None) -> Iterable[str]:
    if certificate is None or not certificate.equal:
        return
    yield "## What stays equal"
    rows = [
        (
            FLAGS.get(claim.flag, claim.flag),
            "yes" if claim.claimed else "no",
            "not measured" if claim.error is None else f"{claim.error:.1e}",
        )
        for claim in certificate.equal
    ]
    yield _table(("", "stays equal", "largest relative change, in float64"), rows)


def _measured(certificate: Certificate | None) -> Iterable[str]:
    if certificate is None:
        return
    yield "## Certificate"
    rows = [(f"algebra, float64, {run.where}", *_figure(figure)) for run in certificate.runs for figure in run.algebra]
    rows += [
        (f"deployed, {certificate.dtype}, {run.where}", *_figure(figure))
        for run in certificate.runs
        for figure in run.deployed
    ]
    yield _table(("figure", "output", "error", "noise floor", "bound"), rows)
    verdict = "It passes." if certificate.passed else f"It does not pass: {' '.join(certificate.reasons)}"
    yield (
        f"{verdict} {certificate.comparisons:,} numbers were compared; {certificate.tolerance_from}. "
        "All evidence is in `bias_patch/certificate.json`."
    )


def _results(facts: Facts) -> Iterable[str]:
    if not facts.results:
        return
    yield "## Scores"
    rows = [
        (result["task"], str(result.get("rows", "")), name, f"{value:.2f}")
        for result in facts.results
        for name, value in result["metrics"].items()
    ]
    yield _table(("task", "rows", "metric", "value"), rows)


def _use(facts: Facts) -> Iterable[str]:
    yield "## How to load it"
    auto = _auto_class(facts.config)
    if facts.patch_only:
        yield "On the Hub it has no weights, but what makes them of the base's, which is fetched and checked by sha256:"
        yield (
            f"```python\nimport hf_bias_patch\nfrom transformers import {auto}\n\n"
            f'model = hf_bias_patch.load("{facts.name}", {auto})\n```'
        )
        yield f"`hf-bias-patch pull {facts.name} OUT` makes a folder of it, which loads without this package."
        return
    trust = ", trust_remote_code=True" if facts.absent else ""
    if facts.absent:
        yield "The biases are not in the file, so it brings a small loader (`modeling_bias_patch.py`):"
    yield f'```python\nfrom transformers import {auto}\n\nmodel = {auto}.from_pretrained("{facts.name}"{trust})\n```'
    yield (
        f"`hf-bias-patch verify {facts.name} --against {facts.base.name}` measures it again, and "
        f"`hf-bias-patch revert {facts.name} OUT` gives back the base's weights, bit for bit{_again(facts.base)}."
    )


def _again(base: Base) -> str:
    """A revert takes one patch back."""
    return (
        f", once `hf-bias-patch revert OUT` took the {base.patches - 1} before it back too" if base.patches > 1 else ""
    )


def _limits(facts: Facts) -> Iterable[str]:
    yield "## Limits"
    lines = ["Equal means: of the same outputs up to rounding, in evaluation. What does not stay equal stands above."]
    lines += list(facts.certificate.notes) if facts.certificate else []
    if licence := _licence(facts.base_card):
        lines.append(f"The base's licence ({licence}) holds for this model too.")
    yield "\n".join(f"- {line}" for line in lines)


def _licence(matter: Mapping[str, Any]) -> str:
    """`mit`, or the name that stands behind `other`."""
    found = matter.get("license") or ()
    names = [found] if isinstance(found, str) else list(found)
    if names == ["other"] and isinstance(name := matter.get("license_name"), str):
        return f"other: {name}"
    return ", ".join(names)


def _and(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _base(base: Base) -> str:
    if not base.on_hub:
        return f"`{base.name}`"
    at = f" at `{base.revision}`" if base.revision else ""
    if base.revision and re.fullmatch("[0-9a-f]{40}", base.revision):
        at = f" at commit `{base.revision[:12]}`"
    return f"[{base.name}](https://hf.co/{base.name}){at}"


def _auto_class(config: Any) -> str:
    named = (config.get("architectures") or [""])[0]
    heads = {
        "ForMaskedLM": "AutoModelForMaskedLM",
        "LMHeadModel": "AutoModelForCausalLM",
        "ForCausalLM": "AutoModelForCausalLM",
        "ForConditionalGeneration": "AutoModelForSeq2SeqLM",
        "ForSequenceClassification": "AutoModelForSequenceClassification",
    }
    return next((auto for ending, auto in heads.items() if named.endswith(ending)), "AutoModel")


def _figure(figure: Figure) -> tuple[str, ...]:
    floor = "" if figure.floor is None else f"{figure.floor:.2g}"
    return figure.output, f"{figure.error:.2g}", floor, f"{figure.bound:.2g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
