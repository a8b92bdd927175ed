"""A source whose config.json names no model type, as stock transformers can load it: with the type that is known."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hf_bias_patch.checkpoint.checkpoint import open_checkpoint
from hf_bias_patch.checkpoint.copying import target_error
from hf_bias_patch.checkpoint.leftovers import working_folder
from hf_bias_patch.checkpoint.listing import companion_files
from hf_bias_patch.checkpoint.source import Source

__all__ = ["typed_as"]


@contextmanager
def typed_as(source: Source, model_type: str | None, place: Path) -> Iterator[Source]:
    """The source itself, or the same files beside a config.json that has a model type.

    Args:
        source: safetensors.
        model_type: for a config.json that names none; None where it is not known.
        place: a folder for what is needed for the time being.

    Raises:
        CheckpointError: the source cannot be opened.
        TargetError: the disk is full.
    """
    files = open_checkpoint(source.path)
    if not files.config_bytes or files.config.get("model_type") or not model_type:
        yield source
        return
    with working_folder(place, "typed") as folder:
        others = (path.as_posix() for path in companion_files(files))
        for name in (*files.weight_names, *others):
            _give(files.folder / name, folder / name)
        (folder / "config.json").unlink()
        (folder / "config.json").write_text(json.dumps({**files.config, "model_type": model_type}), "utf-8")
        yield replace(source, path=folder)


def _give(old: Path, new: Path) -> None:
    """The same file at another place: by a link where the disk allows it."""
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(old.resolve(), new)
    except OSError:
        try:
            shutil.copyfile(old, new)
        except OSError as error:
            raise target_error(new, error, old.stat().st_size) from error
