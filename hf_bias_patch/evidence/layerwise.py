"""Evidence for a checkpoint larger than memory: each attention site by itself, on made-up layer norm outputs.

What a site does depends only on its own tensors and on the norms before it. So it is enough that each site computes
the same from the same normalised states z, and that nothing else in the file changed. A site's function here is
attention(γ∘z + β), plus the residual γ∘z + β where the norm's output continues beside the attention (post-norm):
then a fold may shift β, as long as the sum stays.

Deployed errors are root mean squares over a site's whole output, as noise floors are (see `compare.RmsMeter`). A site
alone is a stricter test than the whole model: its floor lacks the noise that comes in from the layers before, against
which a fold's own rounding is small. docs/theory.md, "One site by itself", has figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.sites import Norm, Site, Slot, Tensor
from hf_bias_patch.checkpoint.checkpoint import Checkpoint
from hf_bias_patch.checkpoint.dtypes import unit_roundoff
from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.errors import VerifyError
from hf_bias_patch.evidence.certificate import ALGEBRA_BOUND, ErrorFigure, MeasuredRun
from hf_bias_patch.evidence.compare import Meter, RmsMeter
from hf_bias_patch.evidence.full_model import Gathered, algebra_figures, deployed_figures
from hf_bias_patch.evidence.fully_loaded import listed, missing_inside, refuse_ignored
from hf_bias_patch.evidence.pair import Pair, Step
from hf_bias_patch.evidence.tensors import norm_bound
from hf_bias_patch.models.load_for_verify import load_model
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.rewrite import Rewrite
from hf_bias_patch.patching.tensors import TensorReader

if TYPE_CHECKING:
    import torch

__all__ = ["ONE_ROUNDING", "planned_values", "run_layerwise", "run_site", "site_output"]

SEQUENCES = 4
TOKENS = 64  # in each sequence

ONE_ROUNDING = 1 / math.sqrt(12)
"""Root mean square of the error of rounding once, in unit roundoffs of the value, at least: it is anywhere within one
step of the dtype, and a step is one unit roundoff of the value or more."""

Read = Callable[[str], np.ndarray]


def run_layerwise(pair: Pair, seed: int, step: Step) -> Gathered:
    """Measure site by site; holds a few copies of one projection's matrix at a time.

    Raises:
        VerifyError: a projection's weight is no plain tensor, or transformers leaves out what is under test.
        FamilyError: no family says where the attention sites are.
    """
    found = Gathered(no_algebra=pair.no_plan)
    doubts = [doubt for side in (pair.source, pair.variant) if (doubt := _refuse_ignored(side, pair))]
    variant = _with_absent(pair.variant_files, pair.source_files)
    for index, site in enumerate(find_sites(pair.source_files.config, pair.source_files.tensors)):
        step(f"site {site.name}")
        found.runs.append(run_site(pair.source_files, site, pair.plan, variant, pair.dtype, [seed, index]))
    found.probes = [
        f"{SEQUENCES} sequences of {TOKENS} random normalised states a site (as many others for what cross-attention "
        "reads)"
    ]
    found.notes = ["Checked site by site: no whole model was run, so claims and decoding were not measured."]
    found.notes += [*doubts, *_closest(found.runs)]
    return found


def _refuse_ignored(side: Source, pair: Pair) -> str:
    """Refuse a model that leaves out what is under test; or a note on what cannot be told without running it."""
    try:
        loaded = load_model(side, pair.dtype, "eager", device="meta")
    except VerifyError as error:
        return f"Whether transformers uses all tensors under test was not checked: {error.why or error.what}."
    refuse_ignored(loaded, side.name, pair.under_test if side is pair.source else pair.under_test_in_variant)
    missing = missing_inside(loaded)
    if not missing:
        return ""
    which = "source" if side is pair.source else "variant"
    return f"The {which} lacks parameters of the base model, which loaders make up: {listed(missing)}."


def _closest(runs: Sequence[MeasuredRun]) -> Iterator[str]:
    """The site that comes closest to its bound, or exceeds it by most, and what amplifies rounding there."""
    run = max(runs, key=lambda run: run.deployed[0].share, default=None)
    if run is None or not run.deployed[0].floor:
        return
    times = run.deployed[0].error / run.deployed[0].floor
    why = (
        f", where a fold multiplies the rounding error of its bias by {run.amplification:.3g}"
        if run.amplification
        else ""
    )
    yield f"Largest against its noise floor: {run.where}, {times:.2g} times{why}."


def run_site(
    source: Checkpoint, site: Site, plan: Plan | None, variant: Read, dtype: str, seed: list[int]
) -> MeasuredRun:
    """Measure one site.

    Args:
        source: what the plan is for.
        site: of it.
        plan: None if it is not known.
        variant: the values of the variant's tensors in the storage dtype, by name.
        dtype: the storage dtype.
        seed: of the site's inputs.
    """
    states = _states(source, site, seed)
    double = _Double(source)
    reference = site_output(site, double.read, states, "F64")
    algebra: tuple[ErrorFigure, ...] = ()
    bound, amplification = ALGEBRA_BOUND, None
    if plan is not None:
        plan = _of_site(plan, site)
        bound = max(bound, norm_bound(plan.edits))
        amplification = max((edit.amplification for edit in plan.edits if edit.amplification), default=None)
        planned = site_output(site, planned_values(plan, double), states, "F64")
        algebra = algebra_figures(_metered(Meter(), planned, reference), bound)
    floor = _metered(RmsMeter(), site_output(site, source.read, states, dtype), reference)
    output = site_output(site, variant, states, dtype)
    # In float64 there is no noise to compare with, and the largest error must be below the algebra's bound.
    error = _metered(RmsMeter() if dtype != "F64" else Meter(), output, reference)
    least = ONE_ROUNDING * unit_roundoff(dtype)
    deployed = deployed_figures(error, floor, dtype, bound, least)
    return MeasuredRun(where=site.name, algebra=algebra, deployed=deployed, amplification=amplification)


def _metered(meter: Meter, values: torch.Tensor, reference: torch.Tensor) -> Meter:
    meter.add("output", values, reference)
    return meter


@dataclass(frozen=True)
class _States:
    """Normalised states z of a site's own tokens, and of the tokens it reads: float64, shape (sequences, tokens,
    width)."""

    own: np.ndarray
    memory: np.ndarray


def _states(source: Checkpoint, site: Site, seed: list[int]) -> _States:
    random = np.random.default_rng(seed)
    own = _normalised(random, _width(source, site.slots["query"]))
    if site.kind == "self":
        return _States(own, own)
    return _States(own, _normalised(random, _width(source, site.slots["key"])))


def _width(source: Checkpoint, slot: Slot) -> int:
    if slot.weight is None:
        raise VerifyError("A projection has no plain weight tensor (quantised?), so its site cannot be computed")
    shape = source.tensors[slot.weight].shape
    return shape[0] if slot.conv1d else shape[1]


def _normalised(random: np.random.Generator, width: int) -> np.ndarray:
    values = random.standard_normal((SEQUENCES, TOKENS, width))
    values -= values.mean(-1, keepdims=True)
    values /= np.sqrt((values**2).mean(-1, keepdims=True))
    return values


def site_output(site: Site, read: Read, states: _States, dtype: str) -> torch.Tensor:
    """What a site adds to the residual stream, the residual included where a fold may shift it.

    Scores are scaled by 1/√head_dim and masked causally in a decoder's self-attention. A model may scale or mask
    otherwise; none of the identities depends on it. Of a site that has no keys or values of its own (LUKE's further
    queries), it is what its maps give; of one without an output map, the mixed values.

    Args:
        site: the site.
        read: gives a tensor's values by name; zeros for a bias that is absent.
        states: its inputs.
        dtype: that everything is computed in, one of `F64`, `F32`, `F16`, `BF16`.

    Returns:
        float64, shape (sequences, tokens, width).
    """
    import torch

    there = [slot for name in ("query", "key", "value") if (slot := site.slots[name]).weight is not None]
    projected = [_project(slot, read, states, dtype) for slot in there]
    if len(there) < 3:
        return torch.cat(projected, -1).double()
    query, key, value = projected
    head_dim = query.shape[-1] // site.heads
    query, key, value = (part.view(*part.shape[:2], -1, head_dim).transpose(1, 2) for part in (query, key, value))
    group = site.heads // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = query @ key.transpose(-1, -2) / math.sqrt(head_dim)
    if site.kind == "self" and site.stack == "decoder":
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(-2)
    output = _linear(site.slots["output"], read, mixed) if site.slots["output"].weight is not None else mixed
    norm = site.slots["query"].norm
    if norm is not None and norm.residual:
        output = output + _normed(norm, read, states.own, dtype)
    return output.double()


def _project(slot: Slot, read: Read, states: _States, dtype: str) -> torch.Tensor:
    z = states.own if slot.projection == "query" else states.memory
    inputs = _tensor(z, dtype) if slot.norm is None else _normed(slot.norm, read, z, dtype)
    return _linear(slot, read, inputs)


def _normed(norm: Norm, read: Read, z: np.ndarray, dtype: str) -> torch.Tensor:
    # A layer norm computes in high precision and rounds its output, whatever dtype it works for.
    return _tensor(z * read(norm.weight).astype(np.float64) + read(norm.bias).astype(np.float64), dtype)


def _linear(slot: Slot, read: Read, inputs: torch.Tensor) -> torch.Tensor:
    assert slot.weight is not None
    weight = slot.rows.take(read(slot.weight), axis=1 if slot.conv1d else 0)
    matrix = _as_torch(weight, inputs.dtype)
    output = inputs @ (matrix if slot.conv1d else matrix.T)
    if slot.bias is not None:
        output = output + _as_torch(slot.view.take(read(slot.bias)), inputs.dtype)
    return output


def _tensor(values: np.ndarray, dtype: str) -> torch.Tensor:
    import torch

    names = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    return torch.from_numpy(values).to(names[dtype])


def _as_torch(values: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Values in any float dtype as a tensor; exact if `dtype` is theirs or wider."""
    import torch

    if values.dtype.itemsize == 2 and values.dtype != np.float16:  # bfloat16, which torch cannot take from numpy
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16).to(dtype)
    return torch.from_numpy(values).to(dtype)


def _with_absent(variant: Checkpoint, source: Checkpoint) -> Read:
    """The variant's values; zeros for tensors of the source that have left it."""

    def read(name: str) -> np.ndarray:
        return variant.read(name) if name in variant.tensors else np.zeros(source.tensors[name].shape)

    return read


class _Double:
    """A checkpoint as if it were stored in float64 (a `planner.TensorReader`); nothing is held."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.tensors: Mapping[str, Tensor] = {
            name: _Info("F64", info.shape) for name, info in checkpoint.tensors.items()
        }

    def read(self, name: str) -> np.ndarray:
        return self._checkpoint.read(name).astype(np.float64)

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        return self._checkpoint.rows(name, start, stop).astype(np.float64)


@dataclass(frozen=True)
class _Info:
    dtype: str
    shape: tuple[int, ...]


def _of_site(plan: Plan, site: Site) -> Plan:
    """The part of a plan that is about one site. Edits never reach into another site's tensors."""
    return plan.model_copy(update={"edits": tuple(edit for edit in plan.edits if edit.site == site.name)})


def planned_values(plan: Plan, tensors: TensorReader) -> Read:
    """The values after a plan, in the dtypes of `tensors`: of a checkpoint, those that a patched file would hold."""
    rewrite = Rewrite(plan, tensors)

    def read(name: str) -> np.ndarray:
        if name in rewrite.vectors:
            return rewrite.vectors[name]
        if name in rewrite.matrices:
            return np.concatenate([block.new for block in rewrite.blocks(name)])
        return tensors.read(name)

    return read
