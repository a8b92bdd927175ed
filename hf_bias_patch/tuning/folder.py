"""The run folder: settings, environment, what trains, metrics, results and the trained model.

settings.json      the settings of the run
environment.json   versions, device, processes
trained.json       every tensor that trains, with its count of parameters
metrics.jsonl      a line every few steps, and one for each evaluation
state/             to resume from
best-00000020.safetensors   the trained tensors as they were at the best evaluation, after 20 steps
trained.safetensors   the trained tensors as they ended: kilobytes where biases train
model/             the model as it ended, for stock transformers
adapter/           the same as a peft adapter of its base, where peft can express it
results.json       scores, counts, times; written last
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

from hf_bias_patch.checkpoint.durable import replace_file
from hf_bias_patch.errors import TargetError
from hf_bias_patch.evidence.certificate import Certificate
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.scoring.tasks import Task, dump_task
from hf_bias_patch.tuning.state import forget_state
from hf_bias_patch.version import __version__

__all__ = ["RunFolder", "check_folder", "environment", "folder_name", "open_folder"]

_SETTINGS = "settings.json"
_RESULTS = "results.json"
_NEW = ".new"  # behind the name of a file that is being written


@dataclass(frozen=True)
class RunFolder:
    """An existing run folder. Only the main process writes to it."""

    path: Path

    @property
    def state(self) -> Path:
        """The folder of the state to resume from."""
        return self.path / "state"

    def best(self, step: int) -> Path:
        """The trained tensors as they were at an evaluation that was the best so far, after `step` steps.

        Named by its step, so that a state never finds tensors that are newer than it is.
        """
        return self.path / f"best-{step:08}.safetensors"

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
        new = self.path / (name + _NEW)
        new.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
        os.replace(new, self.path / name)

    def write_patch(self, plan: Plan, certificate: Certificate | None) -> None:
        """Keep the patch that the run began with."""
        for name, content in (("plan.json", plan), ("certificate.json", certificate)):
            if content is not None:
                replace_file(self.path / name, content.dumps().encode())

    def write_task(self, task: Task) -> None:
        """Keep a task of the user's own data, for `evaluate` to score the model on."""
        files = {split: str(Path(path).absolute()) for split, path in task.files.items()}
        replace_file(self.path / "task.yaml", dump_task(task.model_copy(update={"files": files})).encode())

    def keep_best(self, step: int) -> None:
        """Delete the best tensors of all steps but one."""
        for path in self.path.glob("best-*.safetensors*"):
            if path != self.best(step):
                path.unlink(missing_ok=True)

    def log(self, line: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def forget_tensors(self) -> None:
        """Delete all tensors but the model's, once a run has ended: four fifths of its disk space."""
        forget_state(self.state)
        for path in (*self.path.glob("best-*.safetensors"), self.trained):
            path.unlink(missing_ok=True)

    def forget_results(self) -> None:
        """Delete results.json, before the model that it is about is written again."""
        (self.path / _RESULTS).unlink(missing_ok=True)

    def forget_after(self, step: int, evaluated: int) -> None:
        """Delete from metrics.jsonl what is run again after a resume: later steps, and later evaluations.

        Args:
            step: the last one that stays.
            evaluated: the last step whose evaluation stays.
        """
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        lines = [json.loads(text) for text in path.read_text("utf-8").splitlines() if text.endswith("}")]
        kept = [line for line in lines if line["step"] <= (step if "loss" in line else evaluated)]
        new = path.with_suffix(".new")
        new.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")
        os.replace(new, path)


def check_folder(path: Path, settings: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that this run may not use. Nothing is written.

    Args:
        path: the folder.
        settings: of this run, as JSON values.
        resume: continue the run that is there.
        overwrite: replace the run that is there.

    Raises:
        TargetError: the folder holds a run of other settings; or of the same ones, and neither `resume` nor
            `overwrite` is given; or it holds something else, or cannot be written to.
    """
    known = _settings_in(path)
    there = next((place for place in (path, *path.absolute().parents) if place.exists()), path)
    if not os.access(there, os.W_OK):
        raise TargetError(f"{there} cannot be written to", remedy="Name another folder")
    if known is None:
        if path.exists() and not _is_empty(path):
            raise TargetError(
                f"{path} exists and is not a run folder of hf_bias_patch",
                why="Nothing in it was changed",
                remedy="Name another folder",
            )
    elif not overwrite:
        _refuse_other(path, known, settings, resume)


def open_folder(path: Path, settings: Mapping[str, Any], *, resume: bool, overwrite: bool) -> RunFolder:
    """Make a run folder, or open that of an earlier run of the same settings. Arguments and errors: `check_folder`."""
    check_folder(path, settings, resume=resume, overwrite=overwrite)
    folder = RunFolder(path)
    try:
        if overwrite and path.exists():
            _empty(folder)
        path.mkdir(parents=True, exist_ok=True)
        folder.write(_SETTINGS, settings)
    except OSError as error:
        raise TargetError(f"{path} cannot be made or written to: {error}", remedy="Name another folder") from None
    return folder


def folder_name(task: str) -> str:
    """What the folder of a task's runs is called: a task of a YAML file by the name of the file, without its folder."""
    return Path(task).name.replace(":", "-")


def environment(device: str, processes: int, mixed_precision: str) -> dict[str, Any]:
    """What a result may depend on besides the settings."""
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


def _empty(folder: RunFolder) -> None:
    """Delete what a run left: results and state first, so that half a run is never taken for a whole one.

    Its settings stay: a folder whose deletion was cut short is still that of a run.
    """
    folder.forget_results()
    forget_state(folder.state)
    for part in folder.path.iterdir():
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part)
        elif part.name != _SETTINGS:
            part.unlink()


def _is_empty(path: Path) -> bool:
    """Whether a folder is empty, or holds only what a run leaves that was killed while it made its folder."""
    return path.is_dir() and all(part.name == _SETTINGS + _NEW for part in path.iterdir())


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
            why="Nothing in it was changed",
            remedy="Name another folder, or add --overwrite",
        )
    if not resume:
        raise TargetError(
            f"{path} holds a run of these settings already",
            why="Nothing in it was changed",
            remedy="Add --resume to continue it, or --overwrite to start again",
        )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
