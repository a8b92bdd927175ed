"""Refuses, before a patch writes anything, what could not be verified afterwards."""

from __future__ import annotations

import os
from collections.abc import Collection

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.refusals import refuse_countless
from hf_bias_patch.checkpoint.checkpoint import Checkpoint
from hf_bias_patch.checkpoint.remote import open_anywhere
from hf_bias_patch.checkpoint.source import Source, resolve
from hf_bias_patch.errors import FamilyError, VerifyError
from hf_bias_patch.evidence.fully_loaded import refuse_ignored
from hf_bias_patch.evidence.storage import dtype_to_verify
from hf_bias_patch.models.load import Loaded
from hf_bias_patch.models.load_for_verify import load_model
from hf_bias_patch.models.memory import require_to_verify
from hf_bias_patch.patching.plan import Plan

__all__ = ["refuse_plan_ahead", "refuse_storage_ahead"]

_WITHOUT = "To patch without a certificate, add --no-verify"


def refuse_storage_ahead(model: str | os.PathLike[str]) -> None:
    """Refuse a checkpoint if its files show that no variant of it can be verified. Reads no values, downloads nothing.

    Args:
        model: as for `patch`.

    Raises:
        VerifyError: see `dtype_to_verify`.
        SourceError, CheckpointError: it cannot be opened.
    """
    found = open_anywhere(model)
    try:
        dtype_to_verify(found.name, found.checkpoint)
    except VerifyError as error:
        raise _with_a_way_on(error) from None


def refuse_plan_ahead(model: str | os.PathLike[str], plan: Plan, *, texts: int = 0, layerwise: bool = False) -> None:
    """Refuse a plan that could not be verified once it is written: memory is too small, or stock does not load the
    source, or leaves out what the plan is about. The model is loaded without its values.

    Args:
        model: as for `patch`, and on this machine.
        plan: made for it.
        texts: how many texts the check will run.
        layerwise: whether it will go site by site.

    Raises:
        VerifyError: it could not be verified.
    """
    source = resolve(model)
    files = open_anywhere(model).checkpoint
    try:
        if not layerwise:
            require_to_verify(files, plan, texts, source.name)
        refuse_countless(files.config, files.tensors)
        if files.config.get("model_type"):  # without one, stock loads it only beside its variant's config.json
            loaded = _without_values(source, dtype_to_verify(source.name, files))
            if loaded is not None:
                refuse_ignored(loaded, source.name, _under_test(files, plan))
    except VerifyError as error:
        raise _with_a_way_on(error) from error.__cause__


def _without_values(source: Source, dtype: str) -> Loaded | None:
    """The model on the device `meta`; None for one that cannot be made there, though it may well load."""
    try:
        return load_model(source, dtype, "sdpa", device="meta")
    except VerifyError as error:
        if "meta" in error.why or isinstance(error.__cause__, NotImplementedError):
            return None
        refused = error
    try:
        return load_model(source, dtype, "eager", device="meta")
    except VerifyError:
        raise refused from None


def _under_test(files: Checkpoint, plan: Plan) -> Collection[str]:
    """The tensors of the sites, and those that the plan touches."""
    try:
        sites = plan.sites or find_sites(files.config, files.tensors)
    except FamilyError:
        sites = ()
    slots = [slot for site in sites for slot in site.slots.values()]
    return {name for slot in slots for name in (*slot.vectors, slot.weight) if name} | set(plan.touched)


def _with_a_way_on(error: VerifyError) -> VerifyError:
    return VerifyError(error.what, error.why, f"{error.remedy}. {_WITHOUT}" if error.remedy else _WITHOUT)
