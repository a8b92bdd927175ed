"""The certificate: what was measured, on what, and whether it suffices. JSON in and out.

Only evidence is stored. Whether it suffices follows from it (`reasons`, `passed`), when made as when read again.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import computed_field

from hf_bias_patch.evidence import judge
from hf_bias_patch.evidence.stored import Document, Stored
from hf_bias_patch.patching.wording import told_apart

__all__ = [
    "ALGEBRA_BOUND",
    "TOLERANCE",
    "Certificate",
    "Claim",
    "Decoding",
    "Figure",
    "Fork",
    "Party",
    "Run",
    "Tensors",
]

TOLERANCE = 4.0
"""Times the noise floor that a deployed error may be."""

ALGEBRA_BOUND = 1e-9
"""Relative error that the float64 figure must stay below: a thousand times what float64 leaves on deep models, and
a hundred times less than float32 resolves, so that a fold which is right only to float32 shows."""


class Figure(Stored):
    """One measured error.

    Attributes:
        output: which output, or group of outputs.
        worst: the output of that group with the largest error.
        error: max |a - b| over max |reference|; of single sites in the storage dtype (mode `layerwise`), both are root
            mean squares.
        bound: what the error may be.
        floor: the noise floor the bound comes from; None for float64 figures.
        values: numbers compared.
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


class Fork(Stored):
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


class Decoding(Stored):
    """Greedy decoding of both models with the cache of keys and values, token for token.

    Attributes:
        sequences: sequences compared.
        tokens: tokens that agree.
        forks: where sequences part; they are not compared further.
    """

    sequences: int
    tokens: int
    forks: tuple[Fork, ...] = ()


class Run(Stored):
    """What was measured with one attention implementation, or of one attention site.

    Attributes:
        where: such as `sdpa`, or `encoder.3.self`.
        algebra: in float64, the source with the plan applied against the source; empty without a plan.
        deployed: the variant in the storage dtype against the source in float64.
        decoding: of models that generate.
        amplification: of one site, the most that any of its folds multiplies the rounding error of a bias by.
    """

    where: str
    algebra: tuple[Figure, ...] = ()
    deployed: tuple[Figure, ...]
    decoding: Decoding | None = None
    amplification: float | None = None


class Claim(Stored):
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


class Tensors(Stored):
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


class Party(Stored):
    """One of the two checkpoints.

    Attributes:
        name: Hub id, or last part of a local path.
        revision: the commit, of a Hub id.
        sha256: weight file → sha256.
    """

    name: str
    revision: str | None = None
    sha256: dict[str, str]


class Certificate(Document):
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
    runs: tuple[Run, ...]
    equal: tuple[Claim, ...] = ()
    tensors: Tensors | None = None
    differs: tuple[str, ...] = ()
    load_report: tuple[str, ...] = ()
    uncovered: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    versions: dict[str, str]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def algebra(self) -> Figure | None:
        """The first of the two figures: the float64 error that takes the largest share of its bound."""
        return max((figure for run in self.runs for figure in run.algebra), key=lambda f: f.share, default=None)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def deployed(self) -> Figure | None:
        """The second of the two figures: the deployed error that takes the largest share of its bound."""
        return max((figure for run in self.runs for figure in run.deployed), key=lambda f: f.share, default=None)

    @property
    def headline(self) -> str:
        """What a certificate that passes comes to, in a sentence."""
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
        """Numbers of the variant that were compared with the source's."""
        return sum(figure.values for run in self.runs for figure in run.deployed)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it fails, as sentences; empty if it passes."""
        return tuple(judge.reasons(self))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether the variant computes what its source computes, up to rounding."""
        return not self.reasons
