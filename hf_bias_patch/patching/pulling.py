"""Fetches a variant or fine-tuned model from the Hub into a folder, or rebuilds it from its base, and checks it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hf_bias_patch.checkpoint.checkpoint import Checkpoint, open_model
from hf_bias_patch.checkpoint.copying import copy_whole
from hf_bias_patch.checkpoint.folder import new_folder
from hf_bias_patch.checkpoint.hub_files import open_hub_files
from hf_bias_patch.checkpoint.index import parse_object
from hf_bias_patch.checkpoint.listing import companion_files, files_beside
from hf_bias_patch.checkpoint.sidecar import ADAPTER, ADAPTER_WEIGHTS, is_adapter_alone, is_patch_only, side_files
from hf_bias_patch.checkpoint.source import Source, arrived_sha256, locate, place_name, resolve
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.patching.patch_only import read_patch
from hf_bias_patch.patching.rebuild import fetch_base, rebuild
from hf_bias_patch.patching.record import TRAINING, is_patched

__all__ = ["pull"]


def pull(
    variant: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    announce: Callable[[int], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Make a folder of a published variant or fine-tuned model.

    Args:
        variant: a Hub id (`owner/name@REVISION`), or a folder that was fetched from there.
        out: the folder to make; appears whole or not at all.
        base: what a patch alone is applied to; by default the base that it names, fetched at the commit it names.
        overwrite: whether an existing `out` may be replaced.
        announce: called with the number of bytes to write, before anything is written.
        progress: called with the number of bytes written since the last call.

    Returns:
        The folder.

    Raises:
        SourceError: variant or base lead nowhere, or the Hub cannot be reached.
        CheckpointError: it is not a variant; a file is damaged; the base is not what was patched; or the outcome is not
            what was published.
        TargetError: `out` cannot be written.
    """
    source = _find(variant)
    out = Path(place_name(out))
    if source.path.is_dir() and is_patch_only(source.path):
        rebuild(
            source,
            resolve(base) if base is not None else fetch_base(read_patch(source.path)),
            out,
            overwrite=overwrite,
            announce=announce,
            progress=progress,
        )
        return out
    if is_adapter_alone(source.path):
        _pull_adapter(source, out, overwrite)
        return out
    checkpoint = open_model(source.path)
    _refuse_others(source.name, checkpoint.config, (checkpoint.folder / TRAINING).is_file())
    for name in checkpoint.files:
        arrived_sha256(checkpoint.folder, name, source.known_sha256.get(name), source.name)
    if announce is not None:
        announce(sum((checkpoint.folder / name).stat().st_size for name in checkpoint.files))
    _copy(checkpoint, out, overwrite, progress)
    return out


def _find(variant: str | os.PathLike[str]) -> Source:
    """Download it, unless its files say that it is neither a variant nor fine-tuned."""
    found = locate(variant)
    if isinstance(found, Source):
        return resolve(variant)
    files = open_hub_files(found.name, found.revision)
    has_config = "config.json" in files.sizes or ADAPTER not in files.sizes
    config = parse_object(Path(found.name, "config.json"), files.small("config.json")) if has_config else {}
    _refuse_others(found.name, config, TRAINING in files.sizes)
    return resolve(variant)


def _refuse_others(name: str, config: Mapping[str, Any], trained: bool) -> None:
    if not (trained or is_patched(config)):
        raise CheckpointError(
            f"{name} was neither patched nor fine-tuned by hf_bias_patch",
            remedy=f"Fetch other models with `hf download {name}`",
        )


def _pull_adapter(source: Source, out: Path, overwrite: bool) -> None:
    """A peft adapter is fetched as it is: it names its base."""
    folder = source.path
    _refuse_others(source.name, {}, (folder / TRAINING).is_file())
    arrived_sha256(folder, ADAPTER_WEIGHTS, source.known_sha256.get(ADAPTER_WEIGHTS), source.name)
    paths = [Path(ADAPTER_WEIGHTS), *files_beside(folder, {ADAPTER_WEIGHTS}), *side_files(folder)]
    with new_folder(out, overwrite=overwrite, inputs=[folder]) as made:
        for path in paths:
            copy_whole(folder / path, made / path)


def _copy(checkpoint: Checkpoint, out: Path, overwrite: bool, progress: Callable[[int], None] | None) -> None:
    weights = [Path(name) for name in sorted(checkpoint.weight_names)]
    rest = [*companion_files(checkpoint), *side_files(checkpoint.folder)]
    with new_folder(out, overwrite=overwrite, inputs=[checkpoint.folder]) as folder:
        for path in (*weights, *rest):
            counted = progress if path.as_posix() in checkpoint.files else None
            copy_whole(checkpoint.folder / path, folder / path, counted)
