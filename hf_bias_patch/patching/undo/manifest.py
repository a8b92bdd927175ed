"""The list of contents of an undo file."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict

from hf_bias_patch.attention.layout import View
from hf_bias_patch.checkpoint.dtypes import numpy_dtype

__all__ = ["MANIFEST", "Manifest", "OldTensor", "OldUpdate"]

MANIFEST = "manifest.json"
"""Its member in the archive."""


class OldUpdate(BaseModel):
    """The part of a matrix that a bias was folded into; b and d of the update are members of their own."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    view: View
    conv1d: bool


class OldTensor(BaseModel):
    """What a tensor was: its member in the archive, and checksums of its bytes before and after.

    A matrix was kept in blocks of `step` rows, which is a matter of memory and may differ between versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    member: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    patched_sha256: str | None
    updates: tuple[OldUpdate, ...] = ()
    step: int = 1

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's values."""
        return math.prod(self.shape) * numpy_dtype(self.dtype).itemsize


class Manifest(BaseModel):
    """Contents of the archive.

    `sha256` is of the source's weight files; empty after an edit in place, which never reads them whole.
    `headers` maps weight files whose header changed to the member with the old one.
    `files` maps other files that changed or went to members; `created` are files the source did not have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = 1
    sha256: dict[str, str] = {}
    tensors: dict[str, OldTensor] = {}
    headers: dict[str, str] = {}
    files: dict[str, str] = {}
    created: tuple[str, ...] = ()
