"""The two checkpoints to compare, and the plan that leads from one to the other."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any, NamedTuple

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.refusals import refuse_countless
from hf_bias_patch.architecture.sites import Site
from hf_bias_patch.architecture.uncovered import uncovered_biases
from hf_bias_patch.architecture.wrapped import refuse_wrapped
from hf_bias_patch.checkpoint.checkpoint import Checkpoint, open_checkpoint
from hf_bias_patch.checkpoint.pickled import is_pickled, pickle_files
from hf_bias_patch.checkpoint.source import Source, resolve, sha256_of
from hf_bias_patch.errors import BiasPatchError, FamilyError, VerifyError
from hf_bias_patch.evidence.ancestors import Patch, ancestor, history
from hf_bias_patch.evidence.certificate import Party
from hf_bias_patch.evidence.storage import dtype_to_verify
from hf_bias_patch.evidence.working_source import place_beside, typed_as
from hf_bias_patch.models.source_files import folder_of
from hf_bias_patch.patching.on_disk import readable
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.planner import make_plan
from hf_bias_patch.patching.record import PLAN, block_of, source_sha256
from hf_bias_patch.patching.request import difference_of
from hf_bias_patch.version import __version__

__all__ = ["Pair", "Step", "before_patch", "open_pair", "opened_pair", "versions"]

Step = Callable[[str], None]
"""Told what is being done, as each step begins."""


@dataclass(frozen=True)
class Pair:
    """What `verify` compares.

    Attributes:
        variant, source: where the two lie; for a source that is a pickle, its conversion.
        variant_files, source_files: their files.
        variant_party, source_party: what the certificate says of them.
        dtype: the storage dtype, one of `FLOATS`.
        plan: what leads from source to variant, made anew from the variant's recipe; None if that is not known.
        no_plan: why there is none; empty where there is one.
        chain: the plans of several patches that lead from source to variant, in order; empty unless there are several.
        absent: biases that the variant says have left it.
        lossy: whether the variant says of itself that it changes the function on purpose.
        misfit: why the plan that lies in the variant is not its own; empty where it is, or there is none.
    """

    variant: Source
    source: Source
    variant_files: Checkpoint
    source_files: Checkpoint
    variant_party: Party
    source_party: Party
    dtype: str
    plan: Plan | None
    no_plan: str
    chain: tuple[Plan, ...]
    absent: frozenset[str]
    lossy: bool
    misfit: str = ""

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """The source's attention sites, under the names of its files; none where no family knows them."""
        if self.plan and self.plan.sites:
            return self.plan.sites
        try:
            return find_sites(self.source_files.config, self.source_files.tensors)
        except FamilyError:
            return ()

    @property
    def uncovered(self) -> tuple[str, ...]:
        """Tensors of the source that look like attention biases and are at none of the sites."""
        return uncovered_biases(self.sites, self.source_files.tensors)

    @property
    def in_maps(self) -> frozenset[str]:
        """Biases and weights of the sites."""
        slots = [slot for site in self.sites for slot in site.slots.values()]
        return frozenset(name for slot in slots for name in (slot.bias, slot.weight) if name)

    @property
    def under_test(self) -> frozenset[str]:
        """Tensors that both models must have loaded: of each site, and those that the plan touches."""
        norms = [name for site in self.sites for slot in site.slots.values() for name in slot.vectors]
        return self.in_maps | {*norms, *(self.plan.touched if self.plan else ())}

    @property
    def under_test_in_variant(self) -> frozenset[str]:
        """Those of them that the variant holds; a bias that left the file cannot be left over by a loader."""
        return self.under_test & self.variant_files.tensors.keys()

    @property
    def touched(self) -> set[str] | None:
        """Tensors that a chain of patches may have changed; None where nothing tells."""
        if not self.chain:
            return None
        return {name for plan in self.chain for name in (*plan.touched, *plan.absent)}


@contextmanager
def opened_pair(variant: Source, source: Source, step: Step) -> Iterator[Pair]:
    """As `open_pair`; a source that is a PyTorch pickle is converted first, beside the variant and for the time being.

    One whose config.json names no model type gets that of the variant there, for stock loads nothing without.

    Raises:
        SourceError, CheckpointError, VerifyError: as for `open_pair`; also for a pickle that cannot be converted.
        TargetError: the disk is full.
    """
    if is_pickled(folder_of(source)):
        step("converting the source to safetensors")
    place = place_beside(folder_of(variant))
    known = open_checkpoint(variant.path).config.get("model_type")
    with readable(source, place / "source") as (files, _), typed_as(files, known, place) as typed:
        yield open_pair(variant, typed, step, given=source)


def open_pair(
    variant: str | os.PathLike[str] | Source,
    against: str | os.PathLike[str] | Source,
    step: Step,
    given: Source | None = None,
) -> Pair:
    """Open both, hash their weights and find the plan.

    Args:
        variant, against: the two, as safetensors.
        step: told what is being done.
        given: what `against` was made from.

    Raises:
        SourceError, CheckpointError: one of them leads nowhere or is damaged.
        VerifyError: the two are of different architectures, or the weights are stored in a form that has no float64
            counterpart.
    """
    new, old = (place if isinstance(place, Source) else resolve(place) for place in (variant, against))
    files, old_files = open_checkpoint(new.path), open_checkpoint(old.path)
    _refuse_others(new, files, old, old_files.config)
    for opened in (files, old_files):
        refuse_wrapped(opened.config, opened.tensors)
        refuse_countless(opened.config, opened.tensors)
    dtype = dtype_to_verify(old.name, old_files)
    step("sha256 of the weights")
    sha256 = sha256_of(old, old_files.files)
    patches = history(files)
    depth = _depth(files, patches, old_files, sha256.values())
    if given is not None and is_pickled(folder_of(given)):
        sha256 = sha256_of(given, pickle_files(given.path))
    chain = tuple(patch.plan for patch in reversed(patches[:depth])) if depth and depth > 1 else ()
    found = _find_plan(files, old_files, depth, chain)
    return Pair(
        variant=new,
        source=old,
        variant_files=files,
        source_files=old_files,
        variant_party=_party(new, sha256_of(new, files.files)),
        source_party=_named(files, _party(given or old, sha256), depth),
        dtype=dtype,
        plan=found.plan,
        no_plan=found.no_plan,
        chain=chain,
        absent=frozenset(block_of(files.config).get("absent") or ()),
        lossy=found.lossy,
        misfit=found.misfit,
    )


def before_patch(source: Source, plan: Plan) -> Pair:
    """A checkpoint that is not patched yet, beside itself: for measuring in memory what a plan would make of it.

    Args:
        source: as safetensors.
        plan: made for it.

    Raises:
        VerifyError: the weights are stored in a form that has no float64 counterpart.
    """
    files = open_checkpoint(source.path)
    party = _party(source, {})
    no_plan = "Nothing is written yet"
    return Pair(
        source,
        source,
        files,
        files,
        party,
        party,
        dtype_to_verify(source.name, files),
        plan,
        no_plan,
        (),
        frozenset(),
        lossy=False,
    )


def _refuse_others(variant: Source, files: Checkpoint, source: Source, config: Mapping[str, Any]) -> None:
    """Refuse two checkpoints that no patch could lead from one to the other."""
    for key in ("model_type", "architectures"):
        new, old = (_said(place.get(key)) for place in (files.config, config))
        if new and old and new != old:
            raise VerifyError(
                f"{variant.name} is a {new} and {source.name} a {old}",
                why="Two different architectures have no outputs in common to compare",
                remedy="Compare with the checkpoint that the variant was made from",
            )


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _party(source: Source, sha256: dict[str, str]) -> Party:
    # A certificate may be published; the folders of the machine it was made on are nobody's business.
    name = source.path.resolve().name if os.path.exists(source.name) else source.name
    return Party(name=name, revision=source.revision, sha256=sha256)


def _depth(files: Checkpoint, patches: list[Patch], source: Checkpoint, sha256: Collection[str]) -> int | None:
    """How many patches lie between source and variant; 0 if the source is no ancestor, None if nothing tells."""
    if patches:
        return ancestor(patches, source, sha256) or 0
    known = source_sha256(files.config)
    return int(sorted(known.values()) == sorted(sha256)) if known else None


class _Found(NamedTuple):
    """What `Pair` says of the plan, under the same names."""

    plan: Plan | None
    no_plan: str
    lossy: bool
    misfit: str = ""


def _find_plan(files: Checkpoint, source: Checkpoint, depth: int | None, chain: tuple[Plan, ...]) -> _Found:
    lossy = bool(block_of(files.config).get("lossy"))
    path = files.folder / PLAN
    if not path.is_file():
        return _Found(None, f"The variant has no {PLAN}, so there is no plan to apply in float64", lossy)
    stored = Plan.loads(path.read_bytes(), path)
    lossy = lossy or stored.lossy
    recipe = block_of(files.config).get("recipe")
    if recipe is not None and recipe != stored.recipe.plain():
        return _misfit("its recipe is another than that in config.json", lossy)
    if chain:
        return _Found(None, _in_steps(chain), lossy)
    if depth not in (1, None):
        why = "The variant's plan was made for another checkpoint than this one (its checksums differ)"
        return _Found(None, why, lossy)
    try:
        plan = make_plan(source.config, source, stored.recipe, stored.sites or None)
    except BiasPatchError as error:
        return _misfit(f"its recipe cannot be planned for this source: {str(error).rstrip('.')}", lossy)
    if difference := difference_of(stored, plan, source):
        return _misfit(f"it is not what its recipe gives for this source: {difference}", lossy or plan.lossy)
    return _Found(plan, "", lossy or plan.lossy)


def _misfit(why: str, lossy: bool) -> _Found:
    what = f"{PLAN} is not the plan that leads from the source to the variant: {why}"
    return _Found(None, what, lossy, what)


def _in_steps(chain: tuple[Plan, ...]) -> str:
    steps = [", ".join(dict.fromkeys(edit.label for edit in plan.edits)) for plan in chain]
    return (
        f"The variant was made from this checkpoint in {len(chain)} patches ({'; then '.join(steps)}), and the plan of "
        "each fits only the checkpoint that it was made for. Verify them one by one for the float64 figure: without "
        "--against, a variant is compared with what its last patch was made from"
    )


def _named(files: Checkpoint, party: Party, depth: int | None) -> Party:
    """The source under the name the variant knows it by: it may lie anywhere now, restored for a comparison, say."""
    known = block_of(files.config).get("source") or {}
    if depth != 1:
        return party
    return party.model_copy(update={"name": known.get("name") or party.name, "revision": known.get("revision")})


def versions() -> dict[str, str]:
    """Versions of all software that takes part in the evidence."""
    found = {"hf_bias_patch": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in ("torch", "transformers", "numpy", "safetensors"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
