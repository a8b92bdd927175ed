"""From what the user typed to a place on disk: a folder, a file, an embedded checkpoint or a Hub id."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NoReturn

from hf_bias_patch.checkpoint.checkpoint import read_config
from hf_bias_patch.checkpoint.choice import PICKLE, PICKLE_INDEX, stock_choice
from hf_bias_patch.checkpoint.file_names import left_by_name, may_be_variant
from hf_bias_patch.checkpoint.guards import ASSETS
from hf_bias_patch.checkpoint.hashing import sha256_file
from hf_bias_patch.checkpoint.hub_errors import GIVE_A_FOLDER, hub_error
from hf_bias_patch.checkpoint.index import INDEX_SUFFIX
from hf_bias_patch.checkpoint.listing import weight_names
from hf_bias_patch.checkpoint.paths import forget, hub_repo, hub_sha256
from hf_bias_patch.checkpoint.sidecar import is_patch_only
from hf_bias_patch.errors import ArgumentError, CheckpointError, SourceError

__all__ = ["HubModel", "Source", "absolute_name", "arrived_sha256", "locate", "place_name", "resolve", "sha256_of"]

EMBEDDED = "embedded:"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_REVISION = re.compile(r"[\w.-]+(/[\w.-]+)*")
_TIMEOUT = 5.0  # seconds until a Hub that does not answer is given up
_SHARD = re.compile(r"[^.]+-\d+-of-\d+\.\w+")
# One of these is there once a tokenizer or feature extractor was fetched too.
_PREPROCESSING = ("tokenizer.json", "tokenizer_config.json", "vocab.*", "*.model", "preprocessor_config.json")


@dataclass(frozen=True)
class Source:
    """Where a MODEL argument leads.

    Attributes:
        path: an existing folder or safetensors file.
        name: what the user typed; of a Hub id without its revision.
        revision: the commit, for a Hub id or a snapshot in the Hub's cache; None for any other place.
        known_sha256: file name to sha256 where the Hub's cache tells it without reading the file.
    """

    path: Path
    name: str
    revision: str | None = None
    known_sha256: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HubModel:
    """A Hub id of which this machine has no copy.

    Attributes:
        name: `owner/name`.
        revision: branch, tag or commit; None for the main branch.
    """

    name: str
    revision: str | None


def resolve(model: str | os.PathLike[str], *, revision: str | None = None) -> Source:
    """Find a checkpoint. What is on this machine comes first; the Hub is asked only for what is not.

    Args, Raises: as for `locate`; and CheckpointError if a download is not what the Hub says it is.
    """
    found = locate(model, revision=revision)
    if isinstance(found, Source):
        return _completed(found)
    source = _local(_from_hub(found.name, found.revision), found.name)
    for name, said in source.known_sha256.items():  # once, as it arrives; what is in the cache later is believed
        arrived_sha256(source.path, name, said, source.name)
    return source


def locate(model: str | os.PathLike[str], *, revision: str | None = None) -> Source | HubModel:
    """Find a checkpoint without asking the Hub: on this machine, in the Hub's cache too, or a Hub id to be asked for.

    Args:
        model: a folder, a .safetensors file, `embedded:NAME`, or a Hub id such as `owner/name`, or
            `owner/name@REVISION` where no local path has that name.
        revision: branch, tag or commit of a Hub id, where `model` names none; its main branch if neither does.

    Raises:
        ArgumentError: it is not a path or Hub id, but say a model in memory.
        SourceError: it leads nowhere. Of `resolve` also: the Hub cannot be reached, within seconds.
    """
    name = place_name(model)
    path = Path(name)
    if name.startswith(EMBEDDED):
        return Source(_embedded(name), name)
    if name and _exists(path):
        if revision is not None:
            _refuse(f"{name} is a local path and has no revisions", "Leave the revision out")
        return _local(path, name)
    hub_id, at, inside = name.partition("@")
    sound = _HUB_ID.fullmatch(hub_id) and (not at or _REVISION.fullmatch(inside))
    if not isinstance(model, str) or not sound or name.endswith(".safetensors"):
        _refuse(f"{name!r} does not exist, and is not a Hub id either", GIVE_A_FOLDER)
    if at and revision is not None:
        _refuse(
            f"{name} names the revision {inside}, and the revision {revision} was given too", "Leave one of them out"
        )
    revision = inside if at else revision
    cached = _cached(hub_id, revision)
    if cached is not None and _is_complete(cached):
        return _local(cached, hub_id)
    return HubModel(hub_id, revision)


def place_name(place: str | os.PathLike[str]) -> str:
    """A path or Hub id as text.

    Raises:
        ArgumentError: it is neither, but say a model in memory.
    """
    name = os.fspath(place) if isinstance(place, (str, os.PathLike)) else None
    if not isinstance(name, str):
        loaded = hasattr(place, "named_parameters")
        raise ArgumentError(
            f"A path or Hub id was expected, and a {type(place).__name__} was given",
            remedy="To patch a model in memory use `apply`; for anything else save it first" if loaded else "",
        )
    return name


def absolute_name(source: Source) -> str:
    """What `resolve` finds a source by from any folder: its absolute path, or its name and commit."""
    if source.revision is not None:
        return f"{source.name}@{source.revision}" if not Path(source.name).exists() else os.path.abspath(source.name)
    return source.name if source.name.startswith(EMBEDDED) else os.path.abspath(source.name)


def sha256_of(source: Source, names: Iterable[str]) -> dict[str, str]:
    """The sha256 of files of a source by name, read only where the Hub's cache does not tell.

    Raises:
        CheckpointError: a file cannot be read.
    """
    folder = source.path if source.path.is_dir() else source.path.parent
    return {name: source.known_sha256.get(name) or sha256_file(folder / name) for name in names}


def arrived_sha256(folder: Path, name: str, said: str | None, model: str) -> str:
    """The sha256 of a file, read and not believed.

    Args:
        folder: where it lies.
        name: relative to the folder.
        said: what the Hub says it is; None if it does not.
        model: for messages.

    Raises:
        CheckpointError: it cannot be read; or it lies in the Hub's cache and is not what the Hub said it was. It is
            removed from there then.
    """
    found = sha256_file(folder / name)
    if said not in (None, found):
        forget(folder, folder / name)
        raise CheckpointError(
            f"{name} of {model} is damaged: its sha256 is {found}, and the Hub's is {said}",
            why="The download or the disk is at fault; the file was removed from the cache",
            remedy="Try again: it will be downloaded again",
        )
    return found


def _local(path: Path, name: str) -> Source:
    folder = path if path.is_dir() else path.parent
    found = hub_repo(folder)
    return Source(path, name, found[1] if found else None, hub_sha256(folder))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for any file
        return False


def _embedded(name: str) -> Path:
    known = sorted(config.parent.name for config in ASSETS.glob("*/config.json"))
    wanted = name.removeprefix(EMBEDDED)
    if wanted not in known:
        choice = ", ".join(EMBEDDED + other for other in known) or "none"
        _refuse(f"No embedded checkpoint is called {wanted!r}", f"Embedded are: {choice}")
    return ASSETS / wanted


def _from_hub(name: str, revision: str | None) -> Path:
    try:
        return _download(name, revision)
    except SourceError:
        raise
    except Exception as error:  # each version of the client has its own transport, with its own errors
        cached = _cached(name, revision)
        if cached is not None and (_has_weights(cached) or is_patch_only(cached)):
            return cached
        raise hub_error(name, revision, error) from error


def _cached(name: str, revision: str | None) -> Path | None:
    try:
        import huggingface_hub as hub

        # The pattern only keeps a snapshot without, say, ONNX files from counting as incomplete.
        return Path(
            hub.snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=["config.json"])
        )
    except (ImportError, OSError, ValueError):
        return None


def _download(name: str, revision: str | None) -> Path:
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise SourceError(
            f"{name} is not a local path, and the Hub cannot be asked",
            why="huggingface_hub is not installed",
            remedy="pip install huggingface_hub",
        ) from error
    info = hub.HfApi().model_info(name, revision=revision, timeout=_TIMEOUT)
    names = [entry.rfilename for entry in info.siblings or ()]
    if not names:
        raise SourceError(f"{name} holds no files", remedy="Check the name and the revision")
    if "config.json" in names:  # it may say which weights are meant
        hub.hf_hub_download(name, "config.json", revision=revision, etag_timeout=_TIMEOUT)
    config = read_config(cached, required=False)[0] if (cached := _cached(name, revision)) else {}
    files = _wanted(names, config)
    # By the revision's own name, not the commit: the cache then knows what the name stood for.
    return Path(hub.snapshot_download(name, revision=revision, allow_patterns=[glob.escape(file) for file in files]))


def _wanted(names: Iterable[str], config: Mapping[str, Any]) -> list[str]:
    """What to fetch of a repository: the weights that stock transformers loads, and what may be a companion."""
    names = list(names)
    root = [name for name in names if "/" not in name]
    chosen = stock_choice(root, config)
    ending = ".bin" if chosen in (PICKLE, PICKLE_INDEX) else ".safetensors"
    if chosen is None:  # of another name: whichever it is
        weights = {name for name in root if name.endswith((ending, INDEX_SUFFIX))}
    elif chosen.endswith(".index.json"):
        weights = {chosen, *(name for name in root if _SHARD.fullmatch(name) and name.endswith(ending))}
    else:
        weights = {chosen}
    return [
        name for name in names if name in weights or not (left_by_name(name) or (name in root and may_be_variant(name)))
    ]


def _is_complete(folder: Path) -> bool:
    """Whether weights and preprocessing are there: the cache holds half-fetched models too."""
    names = [path.name for path in folder.iterdir()]
    return _has_weights(folder) and any(fnmatch(n, pattern) for n in names for pattern in _PREPROCESSING)


def _completed(found: Source) -> Source:
    """A model of the Hub's cache with its other files, where the Hub has them and answers.

    What transformers fetched is enough to load it. Its card, and what a patch or a training put beside the weights,
    are missing then; of the model in the cache the commit stays.
    """
    from_cache = found.revision is not None and not _exists(Path(found.name))
    if not from_cache or (found.path / "README.md").is_file():
        return found
    return _local(_from_hub(found.name, found.revision), found.name)


def _has_weights(folder: Path) -> bool:
    try:
        names = weight_names(folder)
    except CheckpointError:
        return False
    return all((folder / name).exists() for name in names or [PICKLE]) or (
        not names and (folder / PICKLE_INDEX).exists()
    )


def _refuse(what: str, remedy: str) -> NoReturn:
    raise SourceError(what, remedy=remedy)
