"""Evidence from running whole models: source and variant, float64 and storage dtype, each attention implementation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from hf_bias_patch.architecture.sites import Site
from hf_bias_patch.checkpoint.dtypes import unit_roundoff
from hf_bias_patch.errors import BiasPatchError, VerifyError
from hf_bias_patch.evidence.certificate import (
    ALGEBRA_BOUND,
    TOLERANCE,
    Claim,
    DecodingComparison,
    ErrorFigure,
    MeasuredRun,
)
from hf_bias_patch.evidence.claims import measure_claims
from hf_bias_patch.evidence.compare import Meter, collect, measure
from hf_bias_patch.evidence.decoding import Decoded, compare_decoded, decode
from hf_bias_patch.evidence.fully_loaded import listed, refuse_ignored, refuse_made_up
from hf_bias_patch.evidence.outputs import Outputs
from hf_bias_patch.evidence.pair import Pair, Step
from hf_bias_patch.evidence.tensors import norm_bound
from hf_bias_patch.models.inputs.choose import ChosenInputs, multimodal_inputs, text_inputs
from hf_bias_patch.models.load import Loaded
from hf_bias_patch.models.load_for_verify import TORCH_NAMES, load_model
from hf_bias_patch.models.names import sites_in_memory
from hf_bias_patch.patching.in_memory import apply
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.recipe import Recipe

__all__ = [
    "Deployed",
    "Gathered",
    "ModelVerifier",
    "UnsupportedError",
    "algebra_figures",
    "deployed_figures",
    "run_whole",
]

Sites = tuple[Site, ...] | None

Deployed = tuple[Meter, list[Decoded]]
"""What a model in the storage dtype gave: its errors against the reference, and what it decoded."""


@dataclass
class Gathered:
    """What running the models gave; the fields of the certificate of the same names."""

    runs: list[MeasuredRun] = field(default_factory=list)
    equal: list[Claim] = field(default_factory=list)
    if_dropped: float | None = None
    no_algebra: str = ""
    probes: list[str] = field(default_factory=list)
    load_report: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def run_whole(pair: Pair, attention: Sequence[str], texts: Sequence[str] | None, seed: int, step: Step) -> Gathered:
    """Measure everything, with one model in memory at a time.

    Raises:
        VerifyError: a model cannot be loaded or run.
    """
    runner = ModelVerifier(pair, texts, seed, step)
    refused: list[VerifyError] = []
    for kind in attention:
        try:
            runner.measure(kind)
        except UnsupportedError as error:
            refused.append(error)
            # Without the name of the source: a certificate may be published, and the path is nobody's business.
            reason = (error.why or error.what).partition(". ")[0].rstrip(".")
            runner.found.notes.append(f"{kind} attention was left out: {reason}.")
    if not runner.found.runs:
        raise refused[0] if refused else VerifyError("No attention implementation was given")
    return runner.found


class UnsupportedError(VerifyError):
    """The source cannot be loaded with this attention implementation, so nobody can deploy it that way."""


class ModelVerifier:
    """Measures one pair; what is chosen or found on the way (inputs, notes) is kept for the next step."""

    def __init__(self, pair: Pair, texts: Sequence[str] | None, seed: int, step: Step) -> None:
        self.pair, self.texts, self.seed, self.step = pair, texts, seed, step
        self.found = Gathered(no_algebra=pair.no_plan)
        self.inputs = ChosenInputs(())
        self.source_report: tuple[str, ...] = ()
        self.bound = max(ALGEBRA_BOUND, norm_bound(pair.plan.edits) if pair.plan else 0.0)

    def measure(self, kind: str) -> None:
        """One attention implementation: a row of the certificate."""
        reference, algebra = self.in_float64(kind)
        source = self.deployed(kind, reference, of_source=True)
        variant = self.deployed(kind, reference, of_source=False)
        self.found.runs.append(self.compared(kind, algebra, source, variant))

    def compared(self, kind: str, algebra: Sequence[ErrorFigure], source: Deployed, variant: Deployed) -> MeasuredRun:
        """What source and variant gave in the storage dtype, beside each other."""
        (floor, ours), (error, theirs) = source, variant
        figures = deployed_figures(error, floor, self.pair.dtype, self.bound)
        decoding = self._decoding(floor, ours, theirs) if self.inputs.prompts else None
        return MeasuredRun(where=kind, algebra=tuple(algebra), deployed=figures, decoding=decoding)

    def in_float64(self, kind: str) -> tuple[list[Outputs], Sequence[ErrorFigure]]:
        """The reference, and the algebra against it."""
        self.step(f"source in float64, {kind}")
        try:
            loaded = load_model(self.pair.source, "F64", kind)
        except VerifyError as error:
            raise UnsupportedError(error.what, why=error.why, remedy=error.remedy) from error
        refuse_ignored(loaded, self.pair.source.name, self.pair.under_test)
        model = loaded.model
        reference = self._reference(model)
        if not self.found.runs:
            refuse_made_up(loaded, self.pair.source.name, self.inputs.batches)
        if self.pair.plan is None or self.found.no_algebra:
            return reference, ()
        self.step(f"plan applied in float64, {kind}")
        recipe = self.pair.plan.recipe.storing_zeros()
        sites = sites_in_memory(model, self.pair.source_files, self.pair.plan.sites)
        try:
            with apply(model, recipe, sites=sites) as patched:
                algebra = algebra_figures(measure(patched, self.inputs.batches, reference), self.bound)
        except BiasPatchError as error:
            self.found.no_algebra = f"The plan cannot be applied in float64: {str(error).rstrip('.')}"
            return reference, ()
        if not self.found.equal:
            self._measure_once(model, recipe, reference, sites)
        return reference, algebra

    def _reference(self, model: Any) -> list[Outputs]:
        """The source's outputs in float64, on inputs chosen the first time."""
        if self.inputs.batches:
            return cast("list[Outputs]", _running(self.pair.source.name, collect, model, self.inputs.batches))
        text = text_inputs(model, self.pair.source, self.texts, self.seed)
        try:
            self.inputs = text or self._multimodal_inputs(model)
            reference = _running(self.pair.source.name, collect, model, self.inputs.batches)
        except VerifyError as error:
            if text is None:
                raise
            # It takes token ids, but something beside them as well.
            try:
                self.inputs = self._multimodal_inputs(model)
                reference = _running(self.pair.source.name, collect, model, self.inputs.batches)
            except VerifyError:
                raise error from None
            self.found.notes.append(f"On token ids alone the model does not run: {error.why or error.what}.")
        self.found.probes = self.inputs.names
        self.found.notes += self.inputs.notes
        return cast("list[Outputs]", reference)

    def _multimodal_inputs(self, model: Any) -> ChosenInputs:
        import torch

        return multimodal_inputs(model, self.texts, self.seed, getattr(torch, TORCH_NAMES[self.pair.dtype]))

    def _measure_once(self, model: Any, recipe: Recipe, reference: list[Outputs], sites: Sites) -> None:
        """What does not depend on the attention implementation: the claims, and what dropping would do."""
        assert self.pair.plan is not None
        self.step("what stays equal, in float64")
        if recipe.fold:
            dropped = recipe.model_copy(update={"fold": {}, "drop": tuple(recipe.fold), "fill": {}})
            with apply(model, dropped, sites=sites) as worse:
                self.found.if_dropped = measure(worse, self.inputs.batches, reference).main()
        used = model.config._attn_implementation
        model.set_attn_implementation("eager")
        self.found.equal = self._claims(model, recipe, self.pair.plan, sites)
        model.set_attn_implementation(used)

    def _claims(self, model: Any, recipe: Recipe, plan: Plan, sites: Sites) -> list[Claim]:
        try:
            return measure_claims(model, recipe, plan.equal, self.inputs.batches, self.bound, sites)
        except Exception as error:
            if self.inputs.form is not None:
                raise
            # Code of any model type may come upon anything; a claim that was not measured fails nothing.
            self.found.notes.append(f"What stays equal was not measured: {type(error).__name__}: {error}")
            return []

    def deployed(self, kind: str, reference: list[Outputs], *, of_source: bool) -> Deployed:
        """One of the two checkpoints in the storage dtype, against the reference."""
        side = self.pair.source if of_source else self.pair.variant
        self.step(f"{'source' if of_source else 'variant'} in {self.pair.dtype}, {kind}")
        loaded = load_model(side, self.pair.dtype, kind)
        if of_source:
            self.source_report = loaded.report
            if not self.found.runs:
                self.found.notes += _of_loading(loaded)
        else:
            refuse_ignored(loaded, side.name, self.pair.under_test_in_variant)
            self.found.load_report = tuple(line for line in loaded.report if line not in self.source_report)
        return self.run(loaded.model, side.name, reference, of_source=of_source)

    def run(self, model: Any, name: str, reference: list[Outputs], *, of_source: bool) -> Deployed:
        """A model in the storage dtype on all inputs."""
        meter = _running(name, measure, model, self.inputs.batches, reference)
        return meter, self._decode(model, name, of_source)

    def _decode(self, model: Any, name: str, of_source: bool) -> list[Decoded]:
        if self.inputs.form is None:
            return []
        try:
            return cast("list[Decoded]", _running(name, decode, model, self.inputs.form, self.inputs.prompts))
        except VerifyError as error:
            if not of_source:
                raise
            self.inputs = replace(self.inputs, prompts=())
            self.found.notes.append(f"Greedy decoding was left out, since the source itself cannot: {error.why}")
            return []

    def _decoding(self, floor: Meter, ours: list[Decoded], theirs: list[Decoded]) -> DecodingComparison:
        least = ALGEBRA_BOUND if self.pair.dtype == "F64" else unit_roundoff(self.pair.dtype)
        noise = max(floor.errors["logits"], least * floor.scales["logits"])
        return compare_decoded(self.inputs.prompts, ours, theirs, noise)


def _of_loading(loaded: Loaded) -> Iterator[str]:
    """Where the source and its class do not fit each other, as notes: the certificate does not fail for it."""
    name = type(loaded.model).__name__
    if loaded.missing:
        yield f"The source lacks parameters of {name}, which are the same in both models: {listed(loaded.missing)}."
    if loaded.unexpected:
        yield f"{name} does not use all of the source's tensors, which were compared byte for byte: " + (
            f"{listed(loaded.unexpected)}."
        )


def algebra_figures(meter: Meter, bound: float) -> tuple[ErrorFigure, ...]:
    """Float64 figures of every group of outputs."""
    return tuple(
        ErrorFigure(output=group, worst=meter.worst(group)[1], error=meter.worst(group)[0], bound=bound, values=values)
        for group, values in _counted(meter)
    )


def deployed_figures(
    error: Meter, floor: Meter, dtype: str, algebra_bound: float, least: float | None = None
) -> tuple[ErrorFigure, ...]:
    """Deployed figures of every group of outputs, each bounded by its own noise floor.

    In float64 there is no floor, and the bound is the algebra's. NaN in the source leaves no finite bound.

    Args:
        error, floor: the variant's and the source's errors in the storage dtype, against the source in float64.
        dtype: the storage dtype.
        algebra_bound: of float64 figures.
        least: a floor below it is chance (values that happen to be exact) and counts as it; by default one rounding
            of the largest value.
    """
    least = unit_roundoff(dtype) if least is None else least
    figures = []
    for group, values in _counted(error):
        noise = floor.worst(group)[0] if group in floor.groups() else math.inf
        bound = algebra_bound if dtype == "F64" else TOLERANCE * max(noise, least)
        if not math.isfinite(noise):
            bound = math.inf
        worst, name = error.worst(group)
        shown = None if dtype == "F64" else noise
        figures.append(ErrorFigure(output=group, worst=name, error=worst, bound=bound, floor=shown, values=values))
    return tuple(figures)


def _counted(meter: Meter) -> list[tuple[str, int]]:
    """Group → how many values were compared in all of its outputs; 0 where one of them has no counterpart."""
    return [
        (group, min(meter.values[name] for name in names) and sum(meter.values[name] for name in names))
        for group, names in meter.groups().items()
    ]


def _running(name: str, run: Any, *args: Any) -> Any:
    try:
        return run(*args)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, BiasPatchError):
            raise
        raise VerifyError(f"{name} cannot be run on the inputs", why=f"{type(error).__name__}: {error}") from error
