"""What a model's folder says of it: plan, certificate, training record, base, norms, scores, the card of its base."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_bias_patch.attention.model_type import saved_class
from hf_bias_patch.checkpoint.durable import replace_file
from hf_bias_patch.checkpoint.index import parse_object
from hf_bias_patch.checkpoint.sidecar import ADAPTER, SIDE_FOLDER, is_adapter_alone
from hf_bias_patch.checkpoint.source import resolve
from hf_bias_patch.errors import CheckpointError, TargetError
from hf_bias_patch.evidence.certificate import Certificate
from hf_bias_patch.evidence.retrace import weight_files
from hf_bias_patch.evidence.training import PatchBefore, Training, patch_before, patch_of, read_training
from hf_bias_patch.patching.base_card import base_card, front_matter, mark_of
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.record import PLAN, TRAINING, UNDO, block_of
from hf_bias_patch.publish.base import Base, base_of
from hf_bias_patch.publish.norms import NORMS, Norm, measure_norms, read_norms
from hf_bias_patch.scoring.identity import DataIdentity

__all__ = ["RESULTS", "Facts", "add_results", "data_of", "read_facts"]

RESULTS = f"{SIDE_FOLDER}/results"
"""Scores of the variant, as `hf-bias-patch evaluate --json` prints them, one file each."""


@dataclass(frozen=True)
class Facts:
    """Everything that a card states.

    Attributes:
        name: of the folder, or on the Hub.
        mark: by which its card is known as its own.
        config: config.json.
        plan: of the patch; None for a model that was fine-tuned last.
        certificate: what was measured of that patch; None if nothing was.
        training: the record of a model that was fine-tuned, before that patch if there is one; None for others.
        before: the patch that the fine-tuning began with; None if it began with none.
        base: what was patched or fine-tuned.
        norms: of its biases; empty where they are not known.
        base_card: front matter of the base's card; empty if it had none.
        adapter: adapter_config.json of a peft adapter; None for a whole model.
        results: scores.
        patch_only: whether the card is for a repository without the weights.
    """

    name: str
    mark: str
    config: Mapping[str, Any]
    plan: Plan | None
    certificate: Certificate | None
    training: Training | None
    before: PatchBefore | None
    base: Base
    norms: tuple[Norm, ...]
    base_card: Mapping[str, Any]
    adapter: Mapping[str, Any] | None
    results: tuple[dict[str, Any], ...]
    patch_only: bool = False

    def of(self, base: Base) -> Facts:
        """The same with another base, which gives its card's front matter where the model brought none."""
        return replace(self, base=base, base_card=self.base_card or base.card)

    @property
    def absent(self) -> bool:
        """Whether biases left the file, so that the checkpoint needs its own loader."""
        return bool(block_of(self.config).get("absent"))

    @property
    def lossy(self) -> bool:
        """Whether a patch made it compute something else on purpose: the last one, or an earlier one."""
        plans = (self.plan, self.before.plan if self.before else None)
        return any(plan is not None and plan.lossy for plan in plans) or bool(block_of(self.config).get("lossy"))

    @property
    def architecture(self) -> str:
        """The class of transformers that it was saved from; empty if config.json names none."""
        return saved_class(self.config)


def read_facts(folder: Path) -> Facts:
    """Read the facts of a variant or a fine-tuned model. Its weights need not be there.

    Raises:
        CheckpointError: the folder holds neither, or a file of it is damaged.
    """
    adapter = _read(folder / ADAPTER) if is_adapter_alone(folder) else None
    file = folder / "config.json" if adapter is None else folder / SIDE_FOLDER / "config.json"
    if not file.is_file():
        raise _no_variant(folder, file.name)
    config = _read(file)
    patched, training = patch_of(folder), read_training(folder)
    if patched is None and training is None:
        raise _saved_anew(folder) if block_of(config) else _no_variant(folder, f"{PLAN} and no {TRAINING}")
    base = base_of(folder, config)
    theirs = front_matter(base_card(folder) or b"")
    return Facts(
        name=_name(folder),
        mark=mark_of(folder),
        config=config,
        plan=patched.plan if patched else None,
        certificate=patched.certificate if patched else None,
        training=training,
        before=patch_before(folder),
        base=base,
        norms=_norms(folder, patched.plan) if patched else (),
        base_card=theirs or base.card or (training.inherited if training else {}),
        adapter=adapter,
        results=tuple(_result(path) for path in sorted((folder / RESULTS).glob("*.json"))),
    )


def _read(file: Path) -> dict[str, Any]:
    return parse_object(file, file.read_bytes())


def _name(folder: Path) -> str:
    """What a folder is called; of `run/model` it is the run that has the telling name."""
    folder = folder.resolve()
    in_run = (folder.parent / "settings.json").is_file()
    return f"{folder.parent.name}/{folder.name}" if in_run else folder.name


def _no_variant(folder: Path, missing: str) -> CheckpointError:
    return CheckpointError(
        f"{folder} holds no patched and no fine-tuned model",
        why=f"It has no {missing}",
        remedy="Make one with `hf-bias-patch patch MODEL OUT` or `hf-bias-patch tune`"
        + (f"; a run's model is in {folder / 'model'}" if (folder / "model").is_dir() else ""),
    )


def _saved_anew(folder: Path) -> CheckpointError:
    return CheckpointError(
        f"{folder} was saved anew since it was patched, and its plan and certificate did not come along",
        why="What another program trained or wrote computes something else, and nothing here says what was done",
        remedy="Publish the variant as it was patched, or train it with `hf-bias-patch tune`, which keeps a record",
    )


def _norms(folder: Path, plan: Plan) -> tuple[Norm, ...]:
    """Measured where the old values are at hand, else as they were measured before."""
    if (folder / UNDO).is_file():
        with suppress(CheckpointError):  # it was trained on since, so that the old values cannot be had
            return measure_norms(folder, plan)
    return read_norms(folder / NORMS) if (folder / NORMS).is_file() else ()


def add_results(folder: Path, paths: Iterable[Path]) -> None:
    """Keep scores beside a model, one file for each task and data; those that were there of the same go.

    Raises:
        CheckpointError: a file holds no scores, or those of another model, or the folder no variant; nothing is kept.
        TargetError: they cannot be written.
    """
    read_facts(folder)
    found = [_own_result(folder, path) for path in paths]
    try:
        for result in found:
            (folder / RESULTS).mkdir(exist_ok=True)
            task = re.sub(r"[^\w.-]+", "-", result["task"])[:60].lstrip(".") or "task"
            data = data_of(result)
            of = "" if data is None else f".{hashlib.sha256(str(data).encode()).hexdigest()[:8]}"
            replace_file(folder / RESULTS / f"{task}{of}.json", (json.dumps(result, indent=2) + "\n").encode())
    except OSError as error:
        raise TargetError(f"{folder / RESULTS} cannot be written", why=error.strerror or str(error)) from error


def _own_result(folder: Path, path: Path) -> dict[str, Any]:
    """Scores in a file, if they are of the weights in a folder; an older file does not say of which they are."""
    result = _result(path)
    measured = result.get("model")
    if measured is not None and measured.get("sha256") != weight_files(resolve(folder)):
        raise CheckpointError(
            f"{path} holds scores of another model ({measured.get('name')})",
            why="The sha256 of its weights is not that of the weights here",
            remedy=f"Score this one: `hf-bias-patch evaluate {folder} --task {result['task']} --json`",
        )
    return result


def data_of(result: Mapping[str, Any]) -> DataIdentity | None:
    """Which data scores are of, those of `evaluate` or of a run's results.json; None where an older file says nothing.

    Raises:
        ValueError: what it says is no identity.
    """
    found = result.get("data") or result.get("validation_data")
    return None if found is None else DataIdentity.of_plain(found)


def _line(text: Any) -> str:
    """A name in one line.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError
    return " ".join(text.split())


def _result(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
        metrics = {_line(name): float(value) for name, value in found["metrics"].items()}
        result = {**found, "task": _line(found["task"]), "metrics": metrics}
        model = found.get("model") or {}
        if (
            not metrics
            or not isinstance(model, dict)
            or not isinstance(found.get("main_metric", ""), str)
            or not isinstance(found.get("rows", 0), int)
        ):
            raise ValueError
        data_of(result)
        return result
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(
            f"{path} holds no scores" if path.exists() else f"There is no file {path}",
            remedy="Write it with `hf-bias-patch evaluate VARIANT --task TASK --json`",
        ) from None
