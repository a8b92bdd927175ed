"""A variant published without its weights: the few kilobytes from which its base becomes it again, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from hf_bias_patch.checkpoint.checkpoint import Checkpoint, open_checkpoint
from hf_bias_patch.checkpoint.header import build_header
from hf_bias_patch.checkpoint.sidecar import PATCH, SIDE_FOLDER
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.record import PLAN, UNDO, source_sha256
from hf_bias_patch.patching.revert import restored_sha256
from hf_bias_patch.patching.undo.reader import Undo

__all__ = ["VALUES", "PatchOnly", "extract", "read_patch"]

VALUES = f"{SIDE_FOLDER}/patch.safetensors"
"""The new values of vectors; those that became zeros are left out."""


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    base: str
    revision: str
    base_sha256: dict[str, str]
    variant_sha256: dict[str, str]


@dataclass(frozen=True)
class PatchOnly:
    """What such a folder says.

    Attributes:
        base: Hub id of what was patched.
        revision: its commit.
        base_sha256, variant_sha256: weight file → sha256, before and after.
        plan: what is done to it.
        values: tensor name → new values, in the storage dtype.
    """

    base: str
    revision: str
    base_sha256: Mapping[str, str]
    variant_sha256: Mapping[str, str]
    plan: Plan
    values: Mapping[str, np.ndarray]


def extract(variant: Checkpoint, base: str, revision: str, sha256: Mapping[str, str]) -> dict[str, bytes]:
    """The files that stand for a variant's weights.

    Reads the variant through: everything that the plan does not touch must still be the base's, byte for byte, or the
    patch would make something else of it.

    Args:
        variant: a variant, with its undo file beside it.
        base, revision: Hub id and commit of its base.
        sha256: of the variant's weight files.

    Returns:
        Name in the folder → content.

    Raises:
        CheckpointError: it is not a variant, changed since it was patched, or was edited in place.
    """
    folder = variant.folder
    if not source_sha256(variant.config):
        raise CheckpointError(
            f"{folder} cannot be published without its weights",
            why="It was edited in place, and the sha256 of what it was made from is not known",
            remedy="Patch the base into a folder of its own, or publish the whole variant",
        )
    with Undo(folder / UNDO) as undo:
        for file, expected in undo.manifest.sha256.items():
            if restored_sha256(variant, undo, file) != expected:
                raise CheckpointError(
                    f"{folder} cannot be published without its weights: {file} differs from the base by more than the "
                    "plan's edits",
                    why="Tensors that the patch did not touch changed since",
                    remedy="Publish the whole variant, or go back to it as it was written",
                )
        vectors = [
            name for name, old in undo.manifest.tensors.items() if old.patched_sha256 is not None and not old.updates
        ]
    manifest = _Manifest(
        base=base, revision=revision, base_sha256=source_sha256(variant.config), variant_sha256=dict(sha256)
    )
    return {PATCH: (json.dumps(manifest.model_dump(), indent=1) + "\n").encode(), VALUES: _written(variant, vectors)}


def _written(checkpoint: Checkpoint, vectors: list[str]) -> bytes:
    """A safetensors file of these tensors, without those that are zero: the plan makes them so."""
    values = {name: checkpoint.read(name).tobytes() for name in sorted(vectors)}
    kept = [checkpoint.info(name) for name, content in values.items() if content.strip(b"\0")]
    return build_header(kept, {}) + b"".join(values[info.name] for info in kept)


def read_patch(folder: Path) -> PatchOnly:
    """Read a folder that holds a variant without its weights.

    Raises:
        CheckpointError: it is none, or is damaged.
    """
    try:
        manifest = _Manifest.model_validate_json((folder / PATCH).read_bytes())
    except (OSError, ValidationError) as error:
        why = f"{error.error_count()} problems" if isinstance(error, ValidationError) else error.strerror or str(error)
        raise CheckpointError(f"{folder / PATCH} cannot be read ({why})", remedy="Fetch it again") from None
    try:
        plan = Plan.loads((folder / PLAN).read_bytes(), folder / PLAN)
    except OSError as error:
        raise CheckpointError(f"{folder / PLAN} cannot be read", error.strerror or str(error)) from None
    values = open_checkpoint(folder / VALUES)
    return PatchOnly(
        manifest.base,
        manifest.revision,
        manifest.base_sha256,
        manifest.variant_sha256,
        plan,
        {name: values.read(name) for name in values.tensors},
    )
