"""The certificate: what was measured, on what, and whether it suffices. JSON in and out.

Only evidence is stored. Whether it suffices follows from it (`reasons`, `passed`), when made as when read again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import computed_field

from hf_bias_patch.evidence.evidence_file import EvidenceFile, EvidencePart
from hf_bias_patch.patching.wording import told_apart

__all__ = [
    "ALGEBRA_BOUND",
    "TOLERANCE",
    "Certificate",
    "Claim",
    "DecodingComparison",
    "ErrorFigure",
    "Fork",
    "MeasuredRun",
    "Party",
    "TensorComparison",
]

TOLERANCE = 4.0
"""Times the noise floor that a deployed error may be."""

ALGEBRA_BOUND = 1e-9
"""Relative error that the float64 figure must stay below: a thousand times what float64 leaves on deep models, and
a hundred times less than float32 resolves, so that a fold which is right only to float32 shows."""

_SHOWN = 5
"""Names in a reason, at most."""


class ErrorFigure(EvidencePart):
    """One measured error.

    Attributes:
        output: which output, or group of outputs.
        worst: the output of that group with the largest error.
        error: max |a - b| over max |reference|; of single sites in the storage dtype (mode `layerwise`), both are root
            mean squares.
        bound: what the error may be.
        floor: the noise floor the bound comes from; None for float64 figures.
        values: how many values were compared.
    """

    output: str
    worst: str
    error: float
    bound: float
    floor: float | None = None
    values: int

    @property
    def passed(self) -> bool:
        """Whether the error is within a finite bound. NaN is not."""
        return math.isfinite(self.bound) and self.error <= self.bound

    @property
    def share(self) -> float:
        """The error as a share of its bound; infinite where there is no telling."""
        if not self.passed and not (math.isfinite(self.error) and math.isfinite(self.bound) and self.bound > 0):
            return math.inf
        return self.error / self.bound if self.bound > 0 else 0.0


class Fork(EvidencePart):
    """Where two greedy decodings part.

    Attributes:
        prompt: which prompts.
        row: which of them, from 0.
        step: number of tokens that agree before.
        gap: difference of the original's two largest logits there.
        floor: noise floor of a logit, absolute.
        tie: whether the gap lies within what noise can turn over (twice the floor, one for each logit).
    """

    prompt: str
    row: int
    step: int
    gap: float
    floor: float
    tie: bool


class DecodingComparison(EvidencePart):
    """Greedy decoding of both models with the cache of keys and values, token for token.

    Attributes:
        sequences: sequences compared.
        tokens: tokens that agree.
        forks: where sequences part; they are not compared further.
    """

    sequences: int
    tokens: int
    forks: tuple[Fork, ...] = ()


class MeasuredRun(EvidencePart):
    """What was measured with one attention implementation, or of one attention site.

    Attributes:
        where: such as `sdpa`, or `encoder.3.self`.
        algebra: in float64, the source with the plan applied against the source; empty without a plan.
        deployed: the variant in the storage dtype against the source in float64.
        decoding: of models that generate.
        amplification: of one site, the most that any of its folds multiplies the rounding error of a bias by.
    """

    where: str
    algebra: tuple[ErrorFigure, ...] = ()
    deployed: tuple[ErrorFigure, ...]
    decoding: DecodingComparison | None = None
    amplification: float | None = None


class Claim(EvidencePart):
    """One flag of what stays equal.

    Attributes:
        flag: its name.
        claimed: what the plan says.
        error: relative error measured in float64; None where it could not be measured.
        bound: what the error may be for the flag to hold.
        how: how it was measured, or why not.

    In JSON, `held` says whether it stayed equal; certificates of version 0.1.0 may call that `measured`, which is not
    read back, as nothing that follows from the evidence is.
    """

    flag: str
    claimed: bool
    error: float | None = None
    bound: float = ALGEBRA_BOUND
    how: str

    @computed_field  # type: ignore[prop-decorator]
    @property
    def held(self) -> bool | None:
        """Whether it stayed equal; None where it could not be measured."""
        return None if self.error is None else self.error <= self.bound


class TensorComparison(EvidencePart):
    """The variant's file contents against the source's.

    Attributes:
        compared: tensors compared.
        identical: tensors with the same bytes in both.
        planned: tensors that the plan changes or takes away; None without a plan.
        exact: of those, the ones that are, byte for byte, what the plan gives here.
        wrong: what differs from what the plan gives, each as `NAME: how`.
    """

    compared: int
    identical: int
    planned: int | None = None
    exact: int = 0
    wrong: tuple[str, ...] = ()


class Party(EvidencePart):
    """One of the two checkpoints.

    Attributes:
        name: Hub id, or last part of a local path.
        revision: the commit, of a Hub id.
        sha256: weight file → sha256.
    """

    name: str
    revision: str | None = None
    sha256: dict[str, str]


class Certificate(EvidenceFile):
    """Measured evidence that a variant computes what its source computes.

    Attributes:
        format: of this JSON.
        mode: whether whole models were run, or each attention site by itself.
        variant, source: the two checkpoints.
        dtype: the storage dtype, of most floating bytes in the source.
        seed: of the random inputs.
        probes: the inputs, in words.
        tolerance: times the noise floor that deployed errors may be.
        tolerance_from: where floor, tolerance and bounds come from.
        lossy: whether the plan changes the function on purpose; such a variant never passes.
        recipe: of the plan; None without one.
        no_algebra: why there is no float64 figure; empty where there is one.
        if_dropped: the float64 error if the same biases were dropped instead of folded: what the test can see.
        runs: the measurements.
        equal: what stays equal, claimed and measured.
        tensors: the file contents compared; None where they cannot be.
        differs: what differs beside the tensors, and must not: the plan from its recipe, config.json, the tokenizer; as
            sentences without their full stops.
        load_report: what did not fit when loading the variant, and did fit for the source.
        uncovered: tensors of the source that look like attention biases and are at no attention site: the patch and
            this certificate say nothing of their roles. Their bytes are compared like those of any other tensor.
        notes: what a reader should know and what fails nothing.
        versions: of all software involved.
    """

    WHAT = "certificate"
    REMEDY = "Verify the variant again"

    format: Literal[1] = 1
    mode: Literal["whole", "layerwise"]
    variant: Party
    source: Party
    dtype: str
    seed: int
    probes: tuple[str, ...]
    tolerance: float = TOLERANCE
    tolerance_from: str
    lossy: bool
    recipe: dict[str, Any] | None = None
    no_algebra: str = ""
    if_dropped: float | None = None
    runs: tuple[MeasuredRun, ...]
    equal: tuple[Claim, ...] = ()
    tensors: TensorComparison | None = None
    differs: tuple[str, ...] = ()
    load_report: tuple[str, ...] = ()
    uncovered: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    versions: dict[str, str]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def algebra(self) -> ErrorFigure | None:
        """The first of the two figures: the float64 error that takes the largest share of its bound."""
        return max((figure for run in self.runs for figure in run.algebra), key=lambda f: f.share, default=None)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def deployed(self) -> ErrorFigure | None:
        """The second of the two figures: the deployed error that takes the largest share of its bound."""
        return max((figure for run in self.runs for figure in run.deployed), key=lambda f: f.share, default=None)

    @property
    def headline(self) -> str:
        """What was measured, in a sentence, of a certificate that passes."""
        figure = self.deployed
        assert figure is not None, "a certificate that passes has compared something"
        if figure.floor is None:
            error, bound = told_apart(figure.error, figure.bound)
            return f"the variant's error is {error}, not above {bound}."
        return (
            f"in {self.dtype} the variant's error is {figure.error:.2g}; "
            f"the source's own rounding makes {figure.floor:.2g}."
        )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def comparisons(self) -> int:
        """How many values of the variant were compared with the source's."""
        return sum(figure.values for run in self.runs for figure in run.deployed)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it fails, as sentences; empty if it passes."""
        return tuple(_reasons(self))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether the variant computes what its source computes, up to rounding."""
        return not self.reasons


def _reasons(certificate: Certificate) -> Iterator[str]:
    """Why a certificate fails; nothing if it passes."""
    if certificate.lossy:
        yield "The plan changes the function on purpose (drop or fill), so the variant is not equal to its source."
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


def _of_run(run: MeasuredRun) -> Iterator[str]:
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


def _amplified(run: MeasuredRun) -> str:
    """How much the folds of a site amplify its error; empty where they do not."""
    if run.amplification is None or run.amplification <= 1:
        return ""
    return f" A fold at this site multiplies the rounding error of its bias by {run.amplification:.3g}."


def _too_far(figure: ErrorFigure) -> str:
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


def _place(figure: ErrorFigure) -> str:
    return figure.output if figure.output == figure.worst else f"{figure.output} (worst: {figure.worst})"


def _listed(what: str, items: tuple[str, ...]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return f"{what}: {'; '.join(items[:_SHOWN])}{more}."
