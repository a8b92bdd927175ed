"""A training run in a subprocess, which ends when this process does."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from hf_bias_patch.errors import TuneError
from hf_bias_patch.tuning.folder import check_folder
from hf_bias_patch.tuning.stop_signal import TERMINATED, StopSignal
from hf_bias_patch.tuning.task_settings import TaskSettings

__all__ = ["result_of", "run_in_subprocess"]

_PRELOAD = ["torch", "transformers", "datasets", "peft", "accelerate", "hf_bias_patch.tuning.run"]
_LOOK = 0.2  # seconds between looks at whether this process shall stop


def result_of(settings: TaskSettings) -> dict[str, Any]:
    """The results of a run. If they are not in its folder, it is run, or resumed, in a subprocess.

    So each run has a peak of memory of its own.

    Raises:
        TargetError: the folder holds something else, or a run of other settings.
        TuneError: the process was killed.
        Exception: what `tune` raises.
    """
    check_folder(settings.output_dir, settings.plain(), resume=True, overwrite=False)
    results = settings.output_dir / "results.json"
    if not results.exists():
        run_in_subprocess(settings.model_copy(update={"resume": True}))
    return json.loads(results.read_text("utf-8"))


def run_in_subprocess(settings: TaskSettings) -> None:
    """Run `tune` in a subprocess; its results are in the run folder.

    SIGTERM and an interrupt are handed on. A run whose parent was killed ends as by SIGTERM: else it would still be
    running when the same command is started again.

    Raises:
        TuneError: the process was killed.
        SystemExit: SIGTERM; the run saved its state.
        Exception: what `tune` raises.
    """
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(_PRELOAD)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_tune, args=(settings, sender))
    with StopSignal() as stop:
        process.start()
        sender.close()
        try:
            while process.is_alive() and not stop.received:
                process.join(_LOOK)
        finally:
            process.terminate()  # does nothing where it has ended
            process.join()
    if stop.received:
        raise SystemExit(TERMINATED)
    _raise_what_came(receiver, process.exitcode, settings)


def _raise_what_came(receiver: Connection, code: int | None, settings: TaskSettings) -> None:
    try:
        error = receiver.recv()
    except EOFError:
        raise TuneError(
            f"The run {settings.output_dir} was killed (exit code {code})",
            why="Too little memory may be the cause",
            remedy="Run the same command again: it continues from the last saved state",
        ) from None
    if error is not None:
        raise error


def _leave_the_group() -> None:
    """Leave the process group of `accelerate launch`, one of whose processes started this one; keep its GPU."""
    rank = os.environ.pop("LOCAL_RANK", None)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    if rank is not None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[int(rank)] if int(rank) < len(visible) and visible[0] else rank


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "this process was started by another"
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)  # heard by the training loop, which saves its state


def _tune(settings: TaskSettings, sender: Connection) -> None:
    _leave_the_group()
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    from hf_bias_patch.tuning.run import tune

    error = None
    try:
        tune(settings)
    except KeyboardInterrupt:  # the other process says so
        return
    except Exception as caught:
        error = caught
    with suppress(BrokenPipeError):  # where all processes are stopped at once
        sender.send(error)
