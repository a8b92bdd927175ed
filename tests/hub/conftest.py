"""A Hub on this machine, and the client of this process turned to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import huggingface_hub.constants as constants
import pytest

from tests.hub.server import Hub


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """An empty Hub. The client asks it as nobody, with an empty cache, and does not wait between its tries."""
    hub = Hub()
    turned = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_TOKEN_PATH": str(tmp_path / "no-token"),
    }
    with mock.patch.multiple(constants, **turned), mock.patch.dict(os.environ), mock.patch("time.sleep"):
        os.environ.pop("HF_TOKEN", None)
        yield hub
    hub.stop()


@pytest.fixture
def login(hub: Hub) -> None:
    """As the user `owner`."""
    os.environ["HF_TOKEN"] = "hf_right"
