"""Everything that is compared."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

SYNC = "cp + sync"
RECORD = "cp, sha256 beside"
NAIVE = "naive: load, edit, save"
FOLDS = ("key", "key,value", "key,value,query")
WORKER = (sys.executable, "-m", "patching_bench.worker")


@dataclass(frozen=True)
class Arm:
    """One thing to measure.

    Attributes:
        name: what the table calls it.
        command: what is run; `{out}` stands for the folder to write.
        reads: files brought into the page cache first.
        after: a command that undoes it, not measured.
    """

    name: str
    command: tuple[str, ...]
    reads: Path
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inputs:
    """The made-up checkpoints: whole, to edit in place, in the Hub's cache, in many shards."""

    source: Path
    editable: Path
    snapshot: Path
    sharded: Path
    shards: int


def arms(inputs: Inputs) -> list[Arm]:
    """Everything that is compared, in the order of the table."""
    source, editable = str(inputs.source), str(inputs.editable)
    found = [
        Arm("cp", ("cp", "-r", source, "{out}"), inputs.source),
        Arm(SYNC, _shell('cp -r "$0" "$1" && sync "$1"/* "$1"', source), inputs.source),
        Arm(RECORD, own("copy-and-hash", source, "{out}"), inputs.source),
        Arm(NAIVE, own("naive", source, "{out}"), inputs.source),
    ]
    for fold in FOLDS:
        found.append(Arm(f"patch {fold}", own("patch", source, "{out}", fold), inputs.source))
    found += [
        Arm(
            "patch key,value, Hub cache",
            own("patch", str(inputs.snapshot), "{out}", "key,value"),
            inputs.source,
        ),
    ]
    back = own("revert", editable, "{out}")
    for fold in FOLDS:
        command = own("in-place", editable, "{out}", fold)
        found.append(Arm(f"in place {fold}", command, inputs.editable, back))
    command_line = (sys.executable, "-m", "hf_bias_patch")
    return [
        *found,
        Arm("--help", (*command_line, "--help"), inputs.sharded),
        Arm("inspect", (*command_line, "inspect", source), inputs.source),
        Arm(
            f"inspect {inputs.shards:,} shards",
            (*command_line, "inspect", str(inputs.sharded)),
            inputs.sharded,
        ),
    ]


def own(task: str, *arguments: str) -> tuple[str, ...]:
    return (*WORKER, task, *arguments)


def _shell(script: str, source: str) -> tuple[str, ...]:
    return ("sh", "-c", script, source, "{out}")
