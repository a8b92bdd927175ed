"""Loads checkpoints, and variants of either storage, as transformers models."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_bias_patch.checkpoint.checkpoint import open_checkpoint
from hf_bias_patch.checkpoint.leftovers import working_folder
from hf_bias_patch.checkpoint.sidecar import is_patch_only
from hf_bias_patch.checkpoint.source import Source, resolve
from hf_bias_patch.errors import BiasPatchError
from hf_bias_patch.models.classes import class_for
from hf_bias_patch.patching.patch_only import read_patch
from hf_bias_patch.patching.rebuild import fetch_base, rebuild
from hf_bias_patch.patching.record import BLOCK, block_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Loaded", "Shapes", "load", "load_reported", "quiet", "refusing"]


def load(path: str | os.PathLike[str], auto_class: Any = None, **kwargs: Any) -> PreTrainedModel:
    """Load a variant, or any other checkpoint, as a transformers model.

    A variant that was published without its weights is made of its base first, in the Hub's cache, for as long as
    loading takes; `pull` makes a folder that stays.

    Args:
        path: a folder, `embedded:NAME` or a Hub id (`owner/name@REVISION`).
        auto_class: a transformers Auto class, such as `AutoModelForMaskedLM`, or a model class; by default the
            class the checkpoint was saved from (`architectures` in its config.json).
        kwargs: passed on to `from_pretrained`, such as `dtype`.

    Returns:
        The model in evaluation mode. Biases that are absent from a variant are no parameters of it.

    Raises:
        SourceError, CheckpointError: the path leads nowhere, or config.json names no class that can be loaded; or as
            for `pull`.
    """
    source = resolve(path)
    if source.path.is_dir() and is_patch_only(source.path):
        with _rebuilt(source) as variant:
            return _load(variant, auto_class, kwargs)
    return _load(source.path if source.path.is_dir() else source.path.parent, auto_class, kwargs)


@contextmanager
def _rebuilt(published: Source) -> Iterator[Path]:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)  # on the disk that the base is on
    cache.mkdir(parents=True, exist_ok=True)
    with working_folder(cache, "rebuilt") as place:
        variant = place / "variant"
        rebuild(published, fetch_base(read_patch(published.path)), variant)
        yield variant


def _load(folder: Path, auto_class: Any, kwargs: dict[str, Any]) -> PreTrainedModel:
    import transformers

    trusted = bool(kwargs.get("trust_remote_code"))
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
    stock = class_for(config, auto_class, str(folder), trusted)
    absent = set(block_of({BLOCK: getattr(config, BLOCK, None)}).get("absent", ()))
    # A stock loader adds them again, as zeros that may be trained: once saved, they are parameters like any other.
    if absent and not absent & set(open_checkpoint(folder).tensors):
        from hf_bias_patch.patching.absent import without_biases

        stock = without_biases(stock)
    loaded: PreTrainedModel = stock.from_pretrained(folder, **kwargs)
    return loaded


Shapes = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
"""Parameter → the shape of its stored values, and the one that the model has."""


@dataclass(frozen=True)
class Loaded:
    """A model as it was loaded.

    Attributes:
        model: a transformers model.
        missing: parameters and buffers that the checkpoint lacks, under the model's names.
        unexpected: tensors of the checkpoint that the model has no use for.
        mismatched: parameters whose stored values have another shape.
        errors: what else went wrong.
    """

    model: Any
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: Shapes = field(default_factory=dict)
    errors: tuple[str, ...] = ()

    @property
    def report(self) -> tuple[str, ...]:
        """What did not fit, as `missing NAME`, `unexpected NAME` and `error TEXT`; best empty."""
        errors = (*(f"mismatched {name}" for name in self.mismatched), *self.errors)
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "error": errors}
        return tuple(f"{kind} {name}" for kind, names in kinds.items() for name in names)


def load_reported(folder: Path, auto_class: Any = None, **kwargs: Any) -> Loaded:
    """As `load`, with the report of what did not fit; in a block of `refusing`.

    Args:
        folder: of the checkpoint.
        auto_class, kwargs: as for `load`.
    """
    loaded: Any = load(folder, auto_class, output_loading_info=True, **kwargs)
    model, info = loaded
    missing, unexpected, errors = (
        tuple(sorted(map(str, info.get(key) or ()))) for key in ("missing_keys", "unexpected_keys", "error_msgs")
    )
    shapes = {str(name): (tuple(stored), tuple(own)) for name, stored, own in sorted(info.get("mismatched_keys") or ())}
    return Loaded(model, missing, unexpected, shapes, errors)


@contextmanager
def refusing(error: type[BiasPatchError], name: str, how: str = "", remedy: Callable[[], str] = str) -> Iterator[None]:
    """A block that loads a model, quietly; whatever transformers raises in it is told as an error of this package.

    Args:
        error: which.
        name: of the checkpoint.
        how: it is loaded, with a space before it.
        remedy: asked for one where nothing better is known.

    Raises:
        BiasPatchError: transformers cannot load it.
    """
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BiasPatchError:
        raise
    except Exception as problem:  # transformers raises whatever comes up inside it
        if "ignore_mismatched_sizes" in str(problem):  # it says no more than "look at the above report"
            raise error(
                f"The tensors of {name} do not have the shapes that config.json asks for",
                remedy="Use the config.json that was saved with these weights",
            ) from problem
        why = f"{type(problem).__name__}: {str(problem).strip()}"
        raise error(f"{name} cannot be loaded{how}", why=why, remedy=remedy()) from problem


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from writing load reports and progress bars."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
