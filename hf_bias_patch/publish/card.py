"""A model's card: README.md made from the facts beside it. No figure in it is typed by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hf_bias_patch.checkpoint.durable import replace_file
from hf_bias_patch.checkpoint.paths import hub_repo
from hf_bias_patch.checkpoint.sidecar import EVAL_RESULTS, SIDE_FOLDER
from hf_bias_patch.errors import TargetError
from hf_bias_patch.evidence.certificate import Certificate, Figure
from hf_bias_patch.patching.base_card import BASE_CARD, CARD, base_card, is_as_made, is_own_card, sealed
from hf_bias_patch.patching.folds import FOLDS
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.preserved import FLAGS
from hf_bias_patch.patching.record import BASE, BEFORE, CERTIFICATE, frozen_slots
from hf_bias_patch.patching.summary import by_label, places, stays
from hf_bias_patch.patching.wording import told_apart
from hf_bias_patch.publish.base import Base, dump_base
from hf_bias_patch.publish.eval_results import eval_results
from hf_bias_patch.publish.facts import Facts, data_of, read_facts
from hf_bias_patch.publish.loading_section import loading
from hf_bias_patch.publish.markdown import link, table
from hf_bias_patch.publish.metadata import metadata
from hf_bias_patch.publish.norms import NORMS, dump_norms
from hf_bias_patch.publish.norms_plot import FIGURE, draw_norms
from hf_bias_patch.publish.proof import refuse_other_weights
from hf_bias_patch.publish.training_sections import removed, tasks, training_sections

__all__ = ["card_files", "lossy_notice", "render", "write_card"]

_PAPER = """@article{namazifar2023role,
  title   = {Role of Bias Terms in Dot-Product Attention},
  author  = {Namazifar, Mahdi and Hazarika, Devamanyu and Hakkani-Tur, Dilek},
  journal = {arXiv preprint arXiv:2302.08626},
  year    = {2023}
}"""


_LOSSY_BEFORE = "Needed biases were taken away or replaced before this model was fine-tuned, on purpose."
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
        CheckpointError: the folder holds no variant and no fine-tuned model; or what was measured is of other weights
            than lie there.
        ExtraError: matplotlib is missing.
        TargetError: it cannot be written, or somebody wrote into the one that is there, or the folder belongs to the
            Hub's cache.
    """
    facts = read_facts(folder)
    _refuse_replacing(folder, overwrite)
    refuse_other_weights(folder, facts)
    files = card_files(folder, facts.of(base) if base else facts)
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
    parts = [f"---\n{metadata(facts)}---", facts.mark, *_opening(facts)]
    if facts.training is not None:
        parts += training_sections(facts.training, facts.before, facts.base, frozen_slots(facts.config))
    if facts.before is not None:
        parts += [
            "## The patch before the training",
            *_changes(facts.before.plan, "the source"),
            *_evidence(facts.before.certificate, "###", BEFORE),
        ]
    if facts.plan is not None:
        parts += ["## What was changed", *_changes(facts.plan, _what_was_patched(facts)), *_figure_of_norms(facts)]
        parts += _evidence(facts.certificate, "##", SIDE_FOLDER)
    parts += [*_results(facts), *loading(facts), *_limits(facts), f"## Citation\n\n```bibtex\n{_PAPER}\n```"]
    return sealed("\n\n".join(parts) + "\n")


def _opening(facts: Facts) -> Iterable[str]:
    if facts.lossy:
        yield f"**{lossy_notice(facts)}**"
    yield f"# {facts.name}"
    what, its_base = link(facts.base), "its base"
    if facts.training is not None and facts.base.trained:
        after = f", after {removed(facts.before.plan)} were removed" if facts.before else ""
        what, its_base = f"{what}, fine-tuned on {tasks(facts.training)}{after}", "the fine-tuned model"
    if facts.plan is None:
        yield f"{what}, made by hf_bias_patch."
        return
    then = "; then " if facts.base.trained else " "
    without = f"{then}without {removed(facts.plan)}" if any(edit.removes for edit in facts.plan.edits) else ""
    yield f"{what}{without}, made by hf_bias_patch."
    if facts.certificate is None:
        yield "Nothing was measured: there is no certificate."
    elif not facts.certificate.passed:
        yield "**Its certificate does not pass: that it computes the same is not proven.**"
    else:
        measured = its_base if facts.base.patches == 1 else f"`{facts.certificate.source.name}`"
        yield f"It computes what {measured} computes: {facts.certificate.headline}"


def lossy_notice(facts: Facts) -> str:
    """What the card of a lossy model says first."""
    return _LOSSY_BEFORE if facts.training is not None and not (facts.plan and facts.plan.lossy) else LOSSY


def _what_was_patched(facts: Facts) -> str:
    if facts.base.patches > 1:
        return f"the checkpoint before this patch, the last of {facts.base.patches} since the base"
    return "the fine-tuned model" if facts.base.trained else "the base"


def _changes(plan: Plan, before: str) -> Iterable[str]:
    rows = []
    for label, edits in by_label(plan).items():
        folds = [edit for edit in edits if edit.action == "fold"]
        reasons = "; ".join(dict.fromkeys(edit.slot.verdict.reason for edit in folds if edit.slot.verdict.reason))
        destination = edits[0].destination
        where = FOLDS[destination].words if destination else "nowhere" if edits[0].removes else "stays"
        rows.append((label, where, places(edits), str(len(edits)), reasons))
    yield table(("action", "where the bias went", "sites", "biases", "verdict"), rows)
    touched = sum(plan.touched.values())
    yield (
        f"{len(plan.touched)} of the checkpoint's tensors were touched ({touched:,} bytes), "
        f"{len(plan.absent)} left the file; all others are those of {before}, byte for byte."
    )
    if plan.recipe.left_out:
        yield "These biases could not be folded within the bounds, and were left as they are:"
        yield "\n".join(f"- {line}" for line in stays(plan.recipe.left_out))


def _figure_of_norms(facts: Facts) -> Iterable[str]:
    if facts.norms:
        yield f"![Norm of each attention bias, by projection and site, in the base and in this variant]({FIGURE})"


def _evidence(certificate: Certificate | None, level: str, folder: str) -> Iterable[str]:
    """What a certificate says, under headings of that level; it lies in that folder."""
    if certificate is None:
        return
    if certificate.equal:
        yield f"{level} What stays equal"
        yield _equal(certificate)
    yield f"{level} Certificate"
    yield from _measured(certificate, f"{folder}/{Path(CERTIFICATE).name}")


def _equal(certificate: Certificate) -> str:
    rows = [
        (
            FLAGS.get(claim.flag, claim.flag),
            "yes" if claim.claimed else "no",
            "not measured" if claim.error is None else f"{claim.error:.1e}",
        )
        for claim in certificate.equal
    ]
    return table(("", "stays equal", "largest relative change, in float64"), rows)


def _measured(certificate: Certificate, place: str) -> Iterable[str]:
    rows = [(f"algebra, float64, {run.where}", *_figure(figure)) for run in certificate.runs for figure in run.algebra]
    rows += [
        (f"deployed, {certificate.dtype}, {run.where}", *_figure(figure))
        for run in certificate.runs
        for figure in run.deployed
    ]
    yield table(("figure", "output", "error", "noise floor", "bound"), rows)
    verdict = "It passes." if certificate.passed else f"It does not pass: {' '.join(certificate.reasons)}"
    yield (
        f"{verdict} {certificate.comparisons:,} numbers were compared; {certificate.tolerance_from}. "
        f"All evidence is in `{place}`."
    )


def _results(facts: Facts) -> Iterable[str]:
    if not facts.results:
        return
    yield "## Scores"
    rows = [
        (result["task"], _data(result), name, f"{value:.2f}")
        for result in facts.results
        for name, value in result["metrics"].items()
    ]
    yield table(("task", "data", "metric", "value"), rows)
    for result in facts.results:
        if settings := result.get("decode"):
            said = ", ".join(f"{name} {value}" for name, value in settings.items())
            yield f"Texts of {result['task']} were generated with {said}."


def _data(result: Mapping[str, Any]) -> str:
    if (data := data_of(result)) is not None:
        return str(data)
    return f"data unknown, {result['rows']:,} rows" if result.get("rows") else "data unknown"


def _limits(facts: Facts) -> Iterable[str]:
    yield "## Limits"
    lines = []
    if facts.certificate or facts.before:
        lines.append(
            "Equal means: the same outputs up to rounding, in evaluation. What does not stay equal stands above."
        )
    if facts.training:
        lines.append("The scores are of one run: another seed gives others.")
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


def _figure(figure: Figure) -> tuple[str, ...]:
    floor = "" if figure.floor is None else f"{figure.floor:.2g}"
    error, bound = told_apart(figure.error, figure.bound)
    return figure.output, error, floor, bound
