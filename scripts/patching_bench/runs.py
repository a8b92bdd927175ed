"""Runs arms in turn, each from a clean start, and measures time, memory and what else the machine did."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from patching_bench.arms import WORKER, Arm, Inputs, arms, own

SCRIPTS = Path(__file__).resolve().parent.parent
PACKAGES = (SCRIPTS.parent, SCRIPTS)
CALM = 0.3  # of a core: what others may use before a run counts as disturbed; writeback needs some of it


@dataclass(frozen=True)
class Sample:
    """One run of an arm.

    Attributes:
        seconds: from start to end of the process.
        cpu_seconds: user and system time of it and its children.
        peak_bytes: the most memory it held (`ru_maxrss`), and at least the benchmark's own, inherited.
        foreign_cores: how many cores everything else on the machine used meanwhile.
        figures: what a worker said of itself.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    foreign_cores: float
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def calm(self) -> bool:
        """Whether the machine did little else meanwhile."""
        return self.foreign_cores <= CALM


@dataclass(frozen=True)
class Failure:
    """Why an arm has no figures."""

    arm: str
    why: str


def run(arm: Arm, out: Path, patience: float) -> Sample | Failure:
    """Run an arm once, from a clean start."""
    _await_calm(patience)
    shutil.rmtree(out, ignore_errors=True)
    _warm(arm.reads)
    os.sync()
    needed = sum(path.stat().st_blocks * 512 for path in arm.reads.iterdir())
    subprocess.run(own("touch", str(needed + (512 << 20))), check=True, stdout=subprocess.DEVNULL, env=environment())
    sample = _measured(arm, out)
    if arm.after and isinstance(sample, Sample):
        subprocess.run(_filled(arm.after, out), check=True, stdout=subprocess.DEVNULL, env=environment())
    shutil.rmtree(out, ignore_errors=True)
    return sample


def _measured(arm: Arm, out: Path) -> Sample | Failure:
    busy, start = _busy_seconds(), time.perf_counter()
    # A file takes the output: a pipe would have to be emptied before the child can be waited for.
    log = out.with_name("output.txt")
    with open(log, "wb") as output:
        child = subprocess.Popen(_filled(arm.command, out), stdout=output, stderr=output, env=environment())
        _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    lines = log.read_text("utf-8", "replace").strip().splitlines() or [""]
    if child.returncode:
        return Failure(arm.name, lines[-1])
    cpu = usage.ru_utime + usage.ru_stime
    foreign = _busy_seconds() - busy - cpu
    figures = json.loads(lines[-1]) if arm.command[: len(WORKER)] == WORKER else {}
    return Sample(seconds, cpu, usage.ru_maxrss * 1024, max(0.0, foreign / seconds), figures)


def _filled(command: Sequence[str], out: Path) -> list[str]:
    return [part.replace("{out}", str(out)) for part in command]


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [*map(str, PACKAGES), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}


def _await_calm(patience: float) -> None:
    """Wait until the machine is idle, but not for longer than `patience` seconds."""
    give_up = time.monotonic() + patience
    while time.monotonic() < give_up:
        busy = _busy_seconds()
        time.sleep(2)
        if _busy_seconds() - busy < 2 * CALM:
            break


def _warm(folder: Path) -> None:
    buffer = bytearray(8 << 20)
    for path in sorted(folder.iterdir()):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _busy_seconds() -> float:
    """CPU seconds that all processes together have used since the machine started."""
    fields = [int(text) for text in Path("/proc/stat").read_text("ascii").splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def measure(
    inputs: Inputs, workdir: Path, repeats: int, patience: float
) -> tuple[dict[str, list[Sample]], list[Failure]]:
    """Run all arms `repeats` times, each time in another order."""
    chosen = arms(inputs)
    samples: dict[str, list[Sample]] = {arm.name: [] for arm in chosen}
    failures: dict[str, Failure] = {}
    for repetition in range(repeats):
        order = random.Random(repetition).sample(chosen, len(chosen))
        for arm in order:
            if arm.name in failures:
                continue
            outcome = run(arm, workdir / "out", patience)
            if isinstance(outcome, Failure):
                failures[arm.name] = outcome
            else:
                samples[arm.name].append(outcome)
                print(
                    f"{repetition + 1}/{repeats} {arm.name}: {outcome.seconds:.2f} s",
                    file=sys.stderr,
                    flush=True,
                )
    return {name: found for name, found in samples.items() if found}, list(failures.values())
