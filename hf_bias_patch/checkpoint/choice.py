"""Which weight file a folder is opened by: the one that `from_pretrained(folder)` loads without `variant=`.

The order is that of `_get_resolved_checkpoint_files` in transformers/modeling_utils.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from hf_bias_patch.checkpoint.index import INDEX_SUFFIX
from hf_bias_patch.checkpoint.no_weights import no_weights
from hf_bias_patch.checkpoint.paths import is_inside
from hf_bias_patch.checkpoint.shorten import listed
from hf_bias_patch.checkpoint.sidecar import is_adapter_weights
from hf_bias_patch.errors import CheckpointError

__all__ = ["MAIN_FILE", "MAIN_INDEX", "PICKLE", "PICKLE_INDEX", "entry_name", "refuse_other_name", "stock_choice"]

MAIN_FILE = "model.safetensors"
MAIN_INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"

_NAMED = "transformers_weights"
"""A key of config.json that names the weights, before any other file."""


def stock_choice(names: Collection[str], config: Mapping[str, Any]) -> str | None:
    """The file that a folder is opened by: one of weights, or the index of several; None where stock finds none.

    Args:
        names: of the files in the folder.
        config: its parsed config.json.

    Raises:
        CheckpointError: config.json names a file that is not inside the folder.
    """
    named = config.get(_NAMED)
    if isinstance(named, str) and named:
        if not is_inside(named):
            raise CheckpointError(
                f"config.json: `{_NAMED}` is {named!r}, which is not inside the folder",
                remedy="Restore the field from the model's original config.json",
            )
        return PurePosixPath(named).as_posix()
    return next((name for name in (MAIN_FILE, MAIN_INDEX, PICKLE, PICKLE_INDEX) if name in names), None)


def refuse_other_name(folder: Path, entry: str, config: Mapping[str, Any]) -> None:
    """Refuse weights that stock transformers would not find in a folder of their own.

    Args:
        folder: where they lie.
        entry: the weight file, or the index of several.
        config: the parsed config.json.

    Raises:
        CheckpointError: it would not.
    """
    if stock_choice([entry], config) == entry:
        return
    name = MAIN_INDEX if entry.endswith(".index.json") else MAIN_FILE
    there = (folder / name).exists()
    raise CheckpointError(
        f"{folder / entry} cannot be patched under this name",
        why=f"from_pretrained(folder) looks for {name}, so it would not load the variant",
        remedy=f"Copy it as {name} into a folder of its own, with config.json" if there else f"Rename it to {name}",
    )


def entry_name(folder: Path, names: Iterable[str], config: Mapping[str, Any], below: Iterable[str] = ()) -> str:
    """The file that a folder is opened by: what stock transformers loads, else the only one there is.

    Args:
        folder: named in messages.
        names: of the files in it.
        config: its parsed config.json.
        below: names of the files one folder deeper, for messages; looked at only where there is no file to open.

    Raises:
        CheckpointError: there is none, or no telling which; or stock transformers loads a PyTorch pickle here.
    """
    names = sorted(names)
    chosen = stock_choice(names, config)
    if chosen in (PICKLE, PICKLE_INDEX):
        _refuse_pickle(folder)
    if chosen is not None:
        return chosen
    for suffix in (INDEX_SUFFIX, ".safetensors"):
        found = [name for name in names if name.endswith(suffix) and not is_adapter_weights(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise CheckpointError(
                f"{folder} holds several weight files and neither {MAIN_FILE} nor {MAIN_INDEX}",
                f"Found {listed(found, 10)}",
                "Give the path of one of them",
            )
    raise no_weights(folder, names, below)


def _refuse_pickle(folder: Path) -> NoReturn:
    raise CheckpointError(
        f"What transformers loads from {folder} is a PyTorch pickle",
        "This needs safetensors files",
        "`hf-bias-patch patch` converts it while it patches, without executing it",
    )
