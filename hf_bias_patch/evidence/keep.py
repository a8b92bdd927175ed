"""Keeps a certificate where it belongs: beside the plan, in the variant that it speaks of."""

from __future__ import annotations

import os
from pathlib import Path

from hf_bias_patch.checkpoint.durable import replace_file
from hf_bias_patch.checkpoint.guards import refuse_place
from hf_bias_patch.checkpoint.sidecar import SIDE_FOLDER
from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.errors import TargetError
from hf_bias_patch.evidence.certificate import Certificate
from hf_bias_patch.evidence.models import folder_of
from hf_bias_patch.patching.record import CERTIFICATE, PLAN

__all__ = ["is_writable", "keep"]


def keep(certificate: Certificate, variant: Source) -> bool:
    """Write a certificate into its variant, in the place of an earlier one.

    A checkpoint that was not patched, is read-only, or lies in the Hub's cache stays as it is.

    Returns:
        Whether it was written.

    Raises:
        TargetError: the disk is full.
    """
    place = folder_of(variant) / CERTIFICATE
    if not (folder_of(variant) / PLAN).is_file() or not is_writable(folder_of(variant)):
        return False
    try:
        # A file of its own, even where there was a link: what that leads to is somebody else's.
        replace_file(place, certificate.dumps().encode())
    except OSError as error:
        raise TargetError(f"{place} cannot be written", why=error.strerror or str(error)) from error
    return True


def is_writable(folder: Path) -> bool:
    """Whether a model's side folder may be written to: it is no read-only one, and none that others rely on."""
    try:
        refuse_place(folder)
    except TargetError:
        return False
    return os.access(folder / SIDE_FOLDER, os.W_OK)
