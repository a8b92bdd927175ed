"""What every test relies on: no network, two cores left to others, and shapes checked where they are declared."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before numpy, torch and transformers are imported anywhere: they read these once.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

# A shell that starts this in the background has it ignore interrupts, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Shapes in the signatures of the algebra are promises; under test they are kept.
install_import_hook("hf_bias_patch.patching.algebra", "beartype.beartype")

# A shared machine may pause any example; a slow one is no failure.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


def _tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, str]]:
    """Every file in a folder, hidden ones too: relative name → sha256."""
    return _tree


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """A tiny checkpoint as transformers saves it: `saved("bert", "F32", shard="20KB", head=None)`.

    The folders are shared, and no test may change them: at the end they are compared.
    """
    made: dict[tuple[object, ...], Path] = {}
    trees: dict[Path, dict[str, str]] = {}

    def make(name: str, dtype: str = "F32", *, shard: str | int = "1GB", head: Any = None) -> Path:
        from tests.models import DTYPES, fresh

        key = (name, dtype, shard, head)
        if key not in made:
            folder = tmp_path_factory.mktemp(name)
            fresh(name, head, DTYPES[dtype]).save_pretrained(folder, max_shard_size=shard)
            made[key], trees[folder] = folder, _tree(folder)
        return made[key]

    yield make
    assert all(_tree(folder) == before for folder, before in trees.items()), "a source was modified"
