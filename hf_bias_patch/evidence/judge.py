"""Decides whether the evidence in a certificate suffices: one sentence for each reason why not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hf_bias_patch.patching.wording import told_apart

if TYPE_CHECKING:
    from hf_bias_patch.evidence.certificate import Certificate, Figure, Run

__all__ = ["reasons"]

SHOWN = 5


def reasons(certificate: Certificate) -> Iterator[str]:
    """Why a certificate fails; nothing if it passes."""
    if certificate.lossy:
        yield "The plan changes the function on purpose (drop or fill), so the variant is no equal of its source."
    if not certificate.comparisons or not all(run.deployed for run in certificate.runs):
        yield "Nothing was compared, which proves nothing."
    if any(figure.values <= 0 for run in certificate.runs for figure in (*run.algebra, *run.deployed)):
        yield "An output of one model has no counterpart in the other."
    if not certificate.no_algebra and not all(run.algebra for run in certificate.runs):
        yield "The float64 figure is missing."
    for run in certificate.runs:
        yield from _of_run(run)
    yield from _of_claims(certificate)
    if certificate.tensors and certificate.tensors.wrong:
        planned = certificate.tensors.planned is not None
        what = "The file does not hold what the plan gives" if planned else "The file differs from the source's"
        yield _listed(what, certificate.tensors.wrong)
    yield from (f"{what}." for what in certificate.differs)
    if certificate.load_report:
        yield _listed("Loading the variant does not go like loading the source", certificate.load_report)


def _of_run(run: Run) -> Iterator[str]:
    for figure in run.algebra:
        if not figure.passed:
            error, bound = told_apart(figure.error, figure.bound)
            yield (
                f"{run.where}, {_place(figure)}: the float64 error {error} is above {bound}, so the plan does not keep "
                "the function."
            )
    for figure in run.deployed:
        if not figure.passed:
            yield f"{run.where}, {_place(figure)}: {_too_far(figure)}{_amplified(run)}"
    if run.decoding and not run.decoding.sequences:
        yield f"{run.where}: no sequence was decoded, which proves nothing."
    for fork in run.decoding.forks if run.decoding else ():
        if not fork.tie:
            gap, noise = told_apart(fork.gap, 2 * fork.floor)
            yield (
                f"{run.where}, {fork.prompt}, row {fork.row}: token {fork.step + 1} differs, and the two best logits "
                f"lie {gap} apart, which is above {noise}, the noise of two logits."
            )


def _amplified(run: Run) -> str:
    """What a site's folds have to do with its error, where they can."""
    if run.amplification is None or run.amplification <= 1:
        return ""
    return f" A fold at this site multiplies the rounding error of its bias by {run.amplification:.3g}."


def _too_far(figure: Figure) -> str:
    if figure.bound != figure.bound or figure.bound == float("inf"):
        return "the source itself gives NaN or infinite values in the storage dtype, so there is no noise floor."
    if figure.error == float("inf"):
        return "the variant gives NaN or infinite values, or an output of another shape."
    floor = f", noise floor {figure.floor:.2g}" if figure.floor is not None else ""
    error, bound = told_apart(figure.error, figure.bound)
    return f"the deployed error {error} is above {bound}{floor}."


def _of_claims(certificate: Certificate) -> Iterator[str]:
    for claim in certificate.equal:
        if claim.claimed and claim.error is not None and not claim.held:
            error, bound = told_apart(claim.error, claim.bound)
            flag = claim.flag.replace("_", " ")
            yield f"The plan says that {flag} stay equal, but they differ by {error}, which is above {bound}."


def _place(figure: Figure) -> str:
    return figure.output if figure.output == figure.worst else f"{figure.output} (worst: {figure.worst})"


def _listed(what: str, items: tuple[str, ...]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return f"{what}: {'; '.join(items[:SHOWN])}{more}."
