"""The run folder: what was asked, where it ran, what trains, how it went, what came out.

settings.json      what was asked for
environment.json   versions, device, processes
trained.json       every tensor that trains, with its count
metrics.jsonl      a line each few steps, and one each evaluation
state/             to resume from
best.safetensors   the trained tensors as they were at the best evaluation
best.json          when that was, and its metrics
trained.safetensors   the trained tensors as they ended: kilobytes, where biases train
model/             the model as it ended, for stock transformers
adapter/           the same as an adapter of its base, for peft, where peft can express it
results.json       the last word
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hf_bias_patch.errors import TargetError
from hf_bias_patch.version import __version__

__all__ = ["RunFolder", "check_folder", "environment", "folder_name", "open_folder"]

_SETTINGS = "settings.json"


@dataclass(frozen=True)
class RunFolder:
    """A run folder that is there. Written to by the main process only."""

    path: Path

    @property
    def state(self) -> Path:
        """Where the state to resume from lies."""
        return self.path / "state"

    @property
    def best(self) -> Path:
        """The trained tensors as they were at the best evaluation."""
        return self.path / "best.safetensors"

    @property
    def trained(self) -> Path:
        """The trained tensors as they ended."""
        return self.path / "trained.safetensors"

    @property
    def model(self) -> Path:
        """The model as it ended."""
        return self.path / "model"

    @property
    def adapter(self) -> Path:
        """The same as an adapter of its base."""
        return self.path / "adapter"

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file, whole or not at all."""
        _write(self.path / name, value)

    def write_best(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep the metrics of the best evaluation so far."""
        self.write("best.json", {"step": step, "metrics": dict(metrics)})

    def best_metrics(self) -> dict[str, float]:
        """The metrics of the best evaluation of a run that is resumed."""
        return json.loads((self.path / "best.json").read_text("utf-8"))["metrics"]

    def log(self, line: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def forget_tensors(self) -> None:
        """Take away all tensors but the model's, of a run that has ended: four fifths of what it takes on disk."""
        shutil.rmtree(self.state, ignore_errors=True)
        for path in (self.best, self.trained):
            path.unlink(missing_ok=True)

    def forget_after(self, step: int) -> None:
        """Take lines of later steps out of metrics.jsonl: they are run again after a resume."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        lines = [line for line in path.read_text("utf-8").splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line).get("step", 0) <= step]
        new = path.with_suffix(".new")
        new.write_text("".join(line + "\n" for line in kept), "utf-8")
        os.replace(new, path)


def check_folder(path: Path, settings: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that this run may not use. Nothing is written.

    Args:
        path: the folder.
        settings: of this run, as JSON values.
        resume: go on with what is there.
        overwrite: what is there may be taken away, if it is a run.

    Raises:
        TargetError: there is a run of other settings; or one of the same, and neither `resume` nor `overwrite`; or
            the folder holds something else, or cannot be written to.
    """
    known = _settings_in(path)
    there = next((place for place in (path, *path.absolute().parents) if place.exists()), path)
    if not os.access(there, os.W_OK):
        raise TargetError(f"{there} cannot be written to", remedy="Name another folder")
    if known is None:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise TargetError(
                f"{path} is there, and holds no run", why="Nothing in it is touched", remedy="Name another folder"
            )
    elif not overwrite:
        _refuse_other(path, known, settings, resume)


def open_folder(path: Path, settings: Mapping[str, Any], *, resume: bool, overwrite: bool) -> RunFolder:
    """Make a run folder, or open that of an earlier run of the same settings. Arguments and errors: `check_folder`."""
    check_folder(path, settings, resume=resume, overwrite=overwrite)
    folder = RunFolder(path)
    try:
        if overwrite and path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        folder.write(_SETTINGS, settings)
    except OSError as error:
        raise TargetError(f"{path} cannot be made or written to: {error}", remedy="Name another folder") from None
    return folder


def folder_name(task: str) -> str:
    """What the folder of a task's runs is called.

    Of a YAML file by its own name: behind its whole path the runs would lie beside it, or nowhere.
    """
    return Path(task).name.replace(":", "-")


def environment(device: str, processes: int, mixed_precision: str) -> dict[str, Any]:
    """What a result may depend on beside the settings."""
    packages = ("torch", "transformers", "accelerate", "datasets", "peft", "numpy")
    return {
        "hf_bias_patch": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: found for name in packages if (found := _version(name))},
        "device": device,
        "processes": processes,
        "mixed_precision": mixed_precision,
    }


def _settings_in(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads((path / _SETTINGS).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TargetError(f"{path / _SETTINGS} cannot be read: {error}", remedy="Name another folder") from None


def _refuse_other(path: Path, known: Mapping[str, Any], settings: Mapping[str, Any], resume: bool) -> None:
    plain = json.loads(json.dumps(settings))
    if differing := [name for name in sorted({*known, *plain}) if known.get(name) != plain.get(name)]:
        first = differing[0]
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise TargetError(
            f"{path} holds a run of other settings: {first} was {known.get(first)!r}, now {plain.get(first)!r}{more}",
            why="Nothing in it is touched",
            remedy="Name another folder, or add --overwrite",
        )
    if not resume:
        raise TargetError(
            f"{path} holds a run of these settings already",
            why="Nothing in it is touched",
            remedy="Add --resume to go on with it, or --overwrite to begin anew",
        )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _write(path: Path, value: Any) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
    os.replace(new, path)
