"""The two checkpoints to compare, and the plan that leads from one to the other."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from hf_bias_patch.checkpoint.checkpoint import Checkpoint, open_checkpoint
from hf_bias_patch.checkpoint.dtypes import FLOATS
from hf_bias_patch.checkpoint.hashing import sha256_file
from hf_bias_patch.checkpoint.pickled import is_pickled
from hf_bias_patch.checkpoint.source import Source, resolve
from hf_bias_patch.errors import BiasPatchError, VerifyError
from hf_bias_patch.evidence.certificate import Party
from hf_bias_patch.evidence.models import folder_of
from hf_bias_patch.evidence.tensors import storage_dtype
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.planner import make_plan
from hf_bias_patch.patching.record import BLOCK, PLAN
from hf_bias_patch.version import __version__

__all__ = ["Pair", "Step", "open_pair", "versions"]

Step = Callable[[str], None]
"""Told what is being done, as each step begins."""


@dataclass(frozen=True)
class Pair:
    """What `verify` compares.

    Attributes:
        variant, source: where the two lie.
        variant_files, source_files: their files; the source's are None if they are a pickle.
        variant_party, source_party: what the certificate says of them.
        dtype: the storage dtype, one of `FLOATS`.
        plan: what leads from source to variant, made anew from the variant's recipe; None if that is not known.
        no_plan: why there is none; empty where there is one.
        lossy: whether the variant says of itself that it changes the function on purpose.
    """

    variant: Source
    source: Source
    variant_files: Checkpoint
    source_files: Checkpoint | None
    variant_party: Party
    source_party: Party
    dtype: str
    plan: Plan | None
    no_plan: str
    lossy: bool


def open_pair(variant: str | os.PathLike[str] | Source, against: str | os.PathLike[str] | Source, step: Step) -> Pair:
    """Open both, hash their weights and find the plan.

    Raises:
        SourceError, CheckpointError: one of them leads nowhere or is damaged.
        VerifyError: the weights are stored in a form that has no float64 counterpart.
    """
    new, old = (place if isinstance(place, Source) else resolve(place) for place in (variant, against))
    files = open_checkpoint(new.path)
    old_files = None if is_pickled(folder_of(old)) else open_checkpoint(old.path)
    dtype = _dtype(old, old_files or files)
    step("sha256 of the weights")
    source, made_for = _named_source(files, _party(old, old_files))
    plan, no_plan, lossy = _find_plan(files, old_files, made_for)
    return Pair(new, old, files, old_files, _party(new, files), source, dtype, plan, no_plan, lossy)


def _dtype(source: Source, files: Checkpoint) -> str:
    dtype = storage_dtype(files)
    if dtype not in FLOATS or files.config.get("quantization_config"):
        raise VerifyError(
            f"{source.name} is stored as {'quantised weights' if dtype in FLOATS else dtype or 'no floating tensors'}",
            why="It has no float64 counterpart to compare with",
            remedy=f"Verify a checkpoint stored as one of {', '.join(FLOATS)}",
        )
    return dtype


def _party(source: Source, files: Checkpoint | None) -> Party:
    folder = folder_of(source)
    names = list(files.files) if files else sorted(path.name for path in folder.glob("pytorch_model*.bin"))
    sha256 = {name: source.known_sha256.get(name) or sha256_file(folder / name) for name in names}
    # A certificate may be published; the folders of the machine it was made on are nobody's business.
    name = source.path.resolve().name if os.path.exists(source.name) else source.name
    return Party(name=name, revision=source.revision, sha256=sha256)


def _find_plan(files: Checkpoint, source: Checkpoint | None, made_for: bool | None) -> tuple[Plan | None, str, bool]:
    """The plan, why there is none, and whether it (or what came before it) is lossy."""
    lossy = bool(_block(files).get("lossy"))
    path = files.folder / PLAN
    if not path.is_file():
        return None, f"The variant has no {PLAN}, so there is no plan to apply in float64", lossy
    stored = Plan.loads(path.read_bytes(), path)
    if made_for is False:
        why = "The variant's plan was made for another checkpoint than this one (its sha256 differs)"
        return None, why, stored.lossy or lossy
    if source is None:
        return None, "The source is a pickle, whose tensors are not read one by one", stored.lossy
    try:
        plan = make_plan(source.config, source, stored.recipe, stored.sites or None)
    except BiasPatchError as error:
        why = f"The variant's recipe cannot be planned for this source: {str(error).rstrip('.')}"
        return None, why, stored.lossy
    if _outline(plan) != _outline(stored):
        return None, "The variant's plan is not what its recipe gives for this source", stored.lossy or plan.lossy
    return plan, "", stored.lossy or plan.lossy


def _block(files: Checkpoint) -> dict[str, Any]:
    """What the variant's config.json says of its making; empty for other checkpoints."""
    block = files.config.get(BLOCK)
    return block if isinstance(block, dict) else {}


def _named_source(files: Checkpoint, party: Party) -> tuple[Party, bool | None]:
    """The source under the name the variant knows it by, and whether it is the one the variant was made from.

    None if the variant does not say (an edit in place reads too little of a file to know its sha256).
    """
    known = _block(files).get("source") or {}
    if not known.get("sha256"):
        return party, None
    if sorted(known["sha256"].values()) != sorted(party.sha256.values()):
        return party, False
    # It may lie anywhere now, under any name: restored for a comparison, say.
    return party.model_copy(update={"name": known.get("name") or party.name, "revision": known.get("revision")}), True


def _outline(plan: Plan) -> list[tuple[str, str]]:
    return [(edit.site, edit.label) for edit in plan.edits]


def versions() -> dict[str, str]:
    """Versions of all software that takes part in the evidence."""
    found = {"hf_bias_patch": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in ("torch", "transformers", "numpy", "safetensors"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
