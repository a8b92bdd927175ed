"""Real SIGKILLs, at random moments of real edits and real recoveries, on a real disk."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hf_bias_patch.checkpoint.inplace import recover
from hf_bias_patch.checkpoint.journal import JOURNAL

# Edits there and back again until it is killed.
EDITOR = """
import pickle
from pathlib import Path
from hf_bias_patch.checkpoint.inplace import ByteEdit, edit_in_place
folder = Path(sys.argv[1])
there, back = pickle.loads(Path(sys.argv[2]).read_bytes())
print("ready", flush=True)
while True:
    for edits, replace in (there, back):
        edit_in_place(folder, [ByteEdit(*edit) for edit in edits], replace)
"""

RECOVERY = """
from pathlib import Path
from hf_bias_patch.checkpoint.inplace import recover
print("ready", flush=True)
recover(Path(sys.argv[1]))
print("done", flush=True)
"""


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        yield child


@pytest.fixture
def script(make_scene: Callable[..., Any], tmp_path: Path) -> tuple[Any, Path]:
    """A scene of half a megabyte, and the edit there and back for a child to read."""
    import pickle

    scene = make_scene(size=30_000)
    there = [(edit.file, edit.offset, edit.data) for edit in scene.edits]
    back = [(edit.file, edit.offset, bytes(len(edit.data))) for edit in scene.edits]
    undo = {name: scene.old.get(name) for name in scene.replace}
    path = tmp_path / "script"
    path.write_bytes(pickle.dumps(((there, scene.replace), (back, undo))))
    return scene, path


def whole(scene: Any) -> bool:
    """Old or new; going back leaves the made folders, empty."""
    state = scene.state()
    return state in (scene.old, scene.new, {**scene.old, "side": b"/", "side/more": b"/"})


def test_killed_at_random_moments(script: tuple[Any, Path], run_python: Callable[..., list[str]]) -> None:
    scene, path = script
    draw = random.Random(0)
    recovered = 0
    for attempt in range(200):
        if attempt >= 16 and recovered >= 4:  # how many kills come in time depends on how fast the machine is just now
            break
        with started(run_python(EDITOR, scene.folder, path)) as child:
            time.sleep(draw.uniform(0, 0.06))
            child.kill()
        if not (scene.folder / JOURNAL).exists():
            recover(scene.folder)
        elif draw.random() < 0.5:
            # Kill the recovery as well, a few times, then let it finish.
            for _ in range(draw.randint(1, 3)):
                with started(run_python(RECOVERY, scene.folder)) as child:
                    time.sleep(draw.uniform(0, 0.01))
                    child.kill()
            recover(scene.folder)
            recovered += 1
        else:
            assert recover(scene.folder)
            recovered += 1
        assert whole(scene)
        assert not (scene.folder / JOURNAL).exists()
    assert recovered >= 4


def test_a_living_editor_is_not_recovered_from(script: tuple[Any, Path], run_python: Callable[..., list[str]]) -> None:
    """Its journal is there, and its lock says that it is still at work."""
    from hf_bias_patch.errors import TargetError

    scene, path = script
    refused = 0
    with started(run_python(EDITOR, scene.folder, path)) as child:
        until = time.monotonic() + 10
        while refused < 3 and time.monotonic() < until:
            try:
                recover(scene.folder)
            except TargetError as error:
                assert "another process" in str(error)
                refused += 1
        child.kill()
    assert refused == 3
    recover(scene.folder)
    assert whole(scene)
