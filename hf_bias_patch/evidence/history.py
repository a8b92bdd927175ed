"""What a variant says of the patches that made it, and which of its ancestors a given checkpoint is.

Each patch keeps, in its undo file, checksums of what it touched, before and after, and the side files of the patch
before it. So the chain can be followed from the variant to the checkpoint that was patched first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from hf_bias_patch.checkpoint.checkpoint import Checkpoint
from hf_bias_patch.checkpoint.durable import read_range
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.record import PLAN, UNDO
from hf_bias_patch.patching.undo.reader import Undo

__all__ = ["Patch", "ancestor", "history"]


@dataclass(frozen=True)
class Patch:
    """One patch, as its side files tell of it.

    Attributes:
        plan: what it did.
        sha256: of the weight files it was made from; empty for an edit in place, which never reads them whole.
        before: touched tensor → sha256 of its bytes before.
        after: the same after; None for a tensor that left the file.
    """

    plan: Plan
    sha256: Mapping[str, str]
    before: Mapping[str, str]
    after: Mapping[str, str | None]


def history(variant: Checkpoint) -> list[Patch]:
    """The patches that made a variant, the last one first; as far back as its side files can be read."""
    found: list[Patch] = []
    if not (variant.folder / PLAN).is_file() or not (variant.folder / UNDO).is_file():
        return found
    with suppress(CheckpointError), Undo(variant.folder / UNDO) as undo:
        found += _follow(Plan.loads((variant.folder / PLAN).read_bytes(), PLAN), undo)
    return found


def _follow(plan: Plan, undo: Undo) -> Iterator[Patch]:
    tensors = undo.manifest.tensors
    yield Patch(
        plan,
        undo.manifest.sha256,
        {name: old.sha256 for name, old in tensors.items()},
        {name: old.patched_sha256 for name, old in tensors.items()},
    )
    members = undo.manifest.files
    if PLAN in members and UNDO in members:
        with suppress(CheckpointError), undo.nested(UNDO) as earlier:
            yield from _follow(Plan.loads(undo.content(members[PLAN]), PLAN), earlier)


def ancestor(patches: list[Patch], source: Checkpoint, sha256: Collection[str]) -> int | None:
    """How many of a variant's patches a checkpoint lies before.

    Args:
        patches: of the variant, the last one first.
        source: the checkpoint.
        sha256: of its weight files.

    Returns:
        1 if it is what the last patch was made from, 2 if another patch lies between, and so on; None if it is none
        of the variant's ancestors.
    """
    checksum = _checksums(source)
    for index, patch in enumerate(patches):
        if patch.sha256:
            same = sorted(patch.sha256.values()) == sorted(sha256)
        else:
            same = all(checksum(name) == known for name, known in _before(patches, index).items())
        if same:
            return index + 1
    return None


def _before(patches: list[Patch], index: int) -> dict[str, str | None]:
    """Checksums of tensors as they were before one of the patches, as far as any patch knows them."""
    known: dict[str, str | None] = {}
    for older in reversed(patches[index + 1 :]):
        known |= older.after
    known |= patches[index].before
    for newer in reversed(patches[:index]):
        known = {**newer.before, **known}
    return known


def _checksums(checkpoint: Checkpoint) -> Callable[[str], str | None]:
    """Tensor name → sha256 of its bytes, or None if the checkpoint has none of that name; each read once."""
    known: dict[str, str | None] = {}

    def checksum(name: str) -> str | None:
        if name not in known:
            known[name] = _sha256(checkpoint, name) if name in checkpoint.tensors else None
        return known[name]

    return checksum


def _sha256(checkpoint: Checkpoint, name: str) -> str:
    info, digest = checkpoint.tensors[name], hashlib.sha256()
    for piece in read_range(checkpoint.folder / checkpoint.file_of(name), info.start, info.nbytes):
        digest.update(piece)
    return digest.hexdigest()
