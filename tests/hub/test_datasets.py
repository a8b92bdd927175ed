"""Rows from a data set on the Hub: the real clients against a server on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from hf_bias_patch.errors import DataError
from hf_bias_patch.scoring.data import read_split
from hf_bias_patch.scoring.tasks import Task, load_task, make_task
from tests.hub.server import Fault, Hub

NAME = "owner/films"
CARD = """---
configs:
- config_name: default
  data_files:
  - split: validation
    path: validation.csv
---
"""


@pytest.fixture
def films(hub: Hub, tmp_path: Path) -> Iterator[Task]:
    """A task whose data is on the Hub; with an empty cache."""
    fields = load_task("sst2").model_dump() | {"name": "films", "hub": {"id": NAME}}
    turned = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": False, "HF_DATASETS_CACHE": tmp_path / "datasets"}
    with mock.patch.multiple("datasets.config", **turned):
        yield make_task(**fields)


@pytest.fixture
def publish(hub: Hub, tmp_path: Path) -> Callable[[int], str]:
    """Commit so many rows to validate on; returns the commit."""

    def add(rows: int) -> str:
        folder = tmp_path / f"films-{rows}"
        folder.mkdir()
        lines = [f"film {number},{number % 2}" for number in range(rows)]
        (folder / "validation.csv").write_text("\n".join(["sentence,label", *lines]) + "\n")
        (folder / "README.md").write_text(CARD)
        return hub.add(NAME, folder)

    return add


def test_a_split_knows_its_commit(films: Task, publish: Callable[[int], str], hub: Hub) -> None:
    first = publish(7)
    found = read_split(films, "validation")
    assert (found.identity.name, found.identity.rows, found.identity.revision) == (NAME, 7, first)
    assert found.identity.is_public
    limited = read_split(films, "validation", limit=3).identity
    assert (limited.rows, limited.limited, limited.is_public) == (3, True, False)
    assert not read_split(films, "validation", limit=7).identity.limited

    second = publish(9)
    assert read_split(films, "validation").identity.revision == second
    pinned = make_task(**films.model_dump() | {"hub": {"id": NAME, "revision": first}})
    found = read_split(pinned, "validation")
    assert (found.identity.rows, found.identity.revision) == (7, first)


def test_a_cache_says_which_commit_it_holds(films: Task, publish: Callable[[int], str], hub: Hub) -> None:
    """What was read counts, not what the Hub has by now."""
    first = publish(7)
    read_split(films, "validation")
    publish(9)
    hub.fail("HEAD /datasets/.*README", *[Fault(status=403)] * 20)
    found = read_split(films, "validation")
    assert hub.faults_left < 20 and (found.identity.rows, found.identity.revision) == (7, first)
    hub.mend()
    with mock.patch("datasets.config.HF_HUB_OFFLINE", True):
        found = read_split(films, "validation")
    assert (found.identity.rows, found.identity.revision) == (7, first)


def test_what_no_cache_has_is_refused(films: Task, hub: Hub) -> None:
    with pytest.raises(DataError, match=r"owner/films cannot be loaded from the Hub"):
        read_split(films, "validation")
