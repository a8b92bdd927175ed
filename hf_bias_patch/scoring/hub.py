"""Raw rows from a data set on the Hub, or from the cache of an earlier look at it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from hf_bias_patch.errors import DataError
from hf_bias_patch.scoring.extra import need
from hf_bias_patch.scoring.identity import DataIdentity
from hf_bias_patch.scoring.tables import Row
from hf_bias_patch.scoring.tasks import Hub, Task

__all__ = ["hub_rows"]

_TIMEOUT = 5.0  # seconds to wait for the Hub
_OPTIONS = "--files, or for tune --train-file and --validation-file"


def hub_rows(task: Task, split: str) -> tuple[Iterable[Row], DataIdentity]:
    """The rows of a split on the Hub, and their identity but for their number. What is in the cache needs no network.

    Raises:
        DataError: the task is not on the Hub, the Hub cannot be reached, or has no such data; raised within seconds.
    """
    hub = task.hub
    if hub is None:
        raise DataError(f"{task.name} is not on the Hub", remedy=f"Give a local file ({_OPTIONS})")
    reachable, commit = _look(hub)
    name = task.splits.get(split, split)
    with _offline(not reachable):
        try:
            found = need("datasets").load_dataset(hub.id, hub.config, revision=commit or hub.revision, split=name)
        except Exception as error:  # each version of these libraries has its own errors
            _refuse(task, hub, reachable, error)
    return iter(found), DataIdentity("hub", hub.id, name, 0, hub.config, _commit_of(found))


def _look(hub: Hub) -> tuple[bool, str | None]:
    """Whether the Hub answers, and the commit of the data there.

    One request with a time limit; `load_dataset` would retry for minutes.
    """
    client = need("huggingface_hub")
    if need("huggingface_hub.constants").HF_HUB_OFFLINE or need("datasets").config.HF_HUB_OFFLINE:
        return False, None
    try:
        return True, client.HfApi().dataset_info(hub.id, revision=hub.revision, timeout=_TIMEOUT).sha
    except client.errors.HfHubHTTPError:
        return True, None  # it answers, if only to say no; `load_dataset` will get the same answer and may have a cache
    except Exception:  # of the transport: no route, no name, too slow
        return False, None


def _commit_of(dataset: Any) -> str | None:
    """The commit that was really read, which may be an older one from the cache: its folder there is called so."""
    folders = {Path(file["filename"]).parent.name for file in dataset.cache_files}
    found = folders.pop() if len(folders) == 1 else ""
    return found if re.fullmatch("[0-9a-f]{40}", found) else None


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """Keep the libraries from asking the network."""
    config, constants = need("datasets").config, need("huggingface_hub.constants")
    before = config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    if wanted:
        config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _refuse(task: Task, hub: Hub, reachable: bool, error: Exception) -> NoReturn:
    cause = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    at = f"{hub.id} ({hub.config})" if hub.config else hub.id
    what = (
        f"{at} cannot be loaded from the Hub"
        if reachable
        else f"The Hub cannot be reached for {at}, and it is not in the cache"
    )
    raise DataError(
        what,
        why=cause,
        remedy=f"Give a local file of {task.name} ({_OPTIONS}; columns: {', '.join(task.text)}"
        f"{f' and {task.label}' if task.label else ''}), or fetch it where there is a network "
        f"(`hf download {hub.id} --repo-type dataset`)",
    ) from error
