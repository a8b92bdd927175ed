"""Certificates and training records as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.markup import escape

from hf_bias_patch.architecture.uncovered import told
from hf_bias_patch.cli.console import table as empty_table
from hf_bias_patch.cli.tables import equal_words
from hf_bias_patch.patching.preserved import FLAGS
from hf_bias_patch.patching.wording import told_apart

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from hf_bias_patch.evidence.certificate import Certificate, Claim, DecodingComparison, ErrorFigure
    from hf_bias_patch.evidence.training import Training

__all__ = ["certificate_lines", "evidence_lines"]


def evidence_lines(found: Certificate | Training) -> Iterator[RenderableType]:
    """What `verify` found: the certificate of a patch, or the training record of a fine-tuned model."""
    from hf_bias_patch.evidence.training import Training

    return training_lines(found) if isinstance(found, Training) else certificate_lines(found)


def training_lines(training: Training) -> Iterator[RenderableType]:
    """A training record: what trained, what stayed, the verdict."""
    kept, counts = training.kept, training.parameters
    yield f"Fine-tuned from {training.source.name} on {training.task['name']}."
    yield f"Trained: {counts['trained']:,} of {counts['total']:,} parameters, in {len(training.tensors)} tensors."
    if kept is not None:
        yield f"Unchanged: {kept.identical} tensors ({kept.parameters:,} parameters) are bit-identical to the source's."
        yield f"Changed: {len(kept.changed)} tensors; new: {len(kept.new)}."
    if kept is not None and kept.removed:
        yield f"Removed before the training and still gone: {len(kept.removed)} biases."
    yield ""
    if training.passed:
        yield "[bold green]PASSED[/]: nothing but what trained differs from the source."
        return
    yield "[bold red]NOT PROVEN[/]"
    yield from (f"  {reason}" for reason in training.reasons)


def certificate_lines(certificate: Certificate) -> Iterator[RenderableType]:
    """A certificate: the two figures, decoding, what stays equal, the verdict."""
    yield _figures(certificate)
    if certificate.no_algebra:
        yield f"No algebra figure: {certificate.no_algebra}."
    for run in certificate.runs:
        if run.decoding is not None:
            yield f"Greedy decoding, {run.where}: {_decoding(run.decoding)}"
    if certificate.tensors is not None:
        tensors = certificate.tensors
        exact = f", {tensors.exact} of the {tensors.planned} planned ones exactly as planned" if tensors.planned else ""
        yield f"Tensors: {tensors.identical} of {tensors.compared} identical byte for byte{exact}."
    if certificate.equal:
        yield _equal(certificate.equal)
    if certificate.uncovered:
        yield f"[dim]Note:[/] {escape(told(certificate.uncovered))}"
    for note in certificate.notes:
        yield f"[dim]Note:[/] {note}"
    yield ""
    if certificate.passed:
        yield f"[bold green]PASSED[/]: {certificate.headline}"
        return
    lossy = " (the recipe is lossy, as asked)" if certificate.lossy else ""
    yield f"[bold red]NOT EQUAL[/]{lossy}"
    yield from (f"  {reason}" for reason in certificate.reasons)


def _figures(certificate: Certificate) -> Table:
    numbers = ("error", "noise floor", "bound")
    table = empty_table("figure", "where", "output", *numbers, "", numbers=numbers)
    kinds = {"algebra": "algebra, float64", "deployed": f"deployed, {certificate.dtype}"}
    found = [(kind, run.where, figure) for run in certificate.runs for kind in kinds for figure in getattr(run, kind)]
    if certificate.mode == "layerwise":
        by_kind = [[one for one in found if one[0] == kind] for kind in kinds]
        worst = [(max(figures, key=lambda one: one[2].share), len(figures)) for figures in by_kind if figures]
        found = [(kind, f"{where}, worst of {count} sites", figure) for (kind, where, figure), count in worst]
    for kind, where, figure in found:
        table.add_row(kinds[kind], where, *_row(figure))
    return table


def _row(figure: ErrorFigure) -> tuple[str, ...]:
    floor = "" if figure.floor is None else f"{figure.floor:.2g}"
    mark = "[green]ok[/]" if figure.passed else "[red]too far[/]"
    error, bound = told_apart(figure.error, figure.bound)
    return figure.output, error, floor, bound, mark


def _decoding(decoding: DecodingComparison) -> str:
    ties = sum(fork.tie for fork in decoding.forks)
    text = f"{decoding.tokens} tokens of {decoding.sequences} sequences agree"
    if ties:
        text += f"; {ties} parted at a tie within the noise floor"
    if len(decoding.forks) > ties:
        text += f"; [red]{len(decoding.forks) - ties} parted[/]"
    return f"{text}."


def _equal(claims: tuple[Claim, ...]) -> str:
    same: list[str] = []
    other: list[str] = []
    for claim in claims:
        seen = "not measured" if claim.error is None else f"{claim.error:.1g}"
        (same if claim.claimed else other).append(f"{FLAGS[claim.flag]} ({seen})")
    return f"{equal_words(same, other)} In brackets: the largest change in float64, on the short inputs."
