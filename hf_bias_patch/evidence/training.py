"""What a fine-tuned model can prove: what it was made from, what trained, and that nothing else changed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, computed_field

from hf_bias_patch.evidence.certificate import Certificate, Party
from hf_bias_patch.evidence.evidence_file import EvidenceFile, EvidencePart
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.record import BEFORE, CERTIFICATE, PLAN, TRAINING

__all__ = [
    "Free",
    "PatchBefore",
    "SourceComparison",
    "TrainedTensor",
    "Training",
    "patch_before",
    "patch_of",
    "read_training",
]

Free = dict[str, tuple[tuple[int, int], ...]]
"""Tensors that training may change: name → ranges of its elements, from one up to another; none stands for all."""


class TrainedTensor(EvidencePart):
    """A tensor that trained.

    Attributes:
        name: of the parameter; of an adapter's, as peft calls it.
        part: what of it trained, such as `value`, or `all`.
        role: `attention bias`, `bias`, `weight`, `head` or `adapter`.
        elements: parameters that trained.
        whole: parameters that the tensor has.
    """

    name: str
    part: str
    role: str
    elements: int
    whole: int


class SourceComparison(EvidencePart):
    """What a comparison of a fine-tuned model with its source found, parameter by parameter.

    Attributes:
        identical: tensors that are bit-identical to the source's.
        parameters: how many parameters those hold.
        changed: tensors that differ.
        new: tensors that the source does not have, such as a new head.
        strayed: tensors that differ where nothing trained, or are missing; none, or the record does not pass.
        removed: bias slots that a patch removed before training, and that are still zero or absent.
        returned: those that are not; none, or the record does not pass.
    """

    identical: int
    parameters: int
    changed: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    strayed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()


class Training(EvidenceFile):
    """The training record of a fine-tuned model.

    Attributes:
        package: version of hf_bias_patch that made it.
        model: the files it speaks of; `name` is that of the folder.
        source: the checkpoint that was fine-tuned.
        base: what that was made from, as others know it: on the Hub where possible. The source itself unless that is a
            patched or fine-tuned copy on one machine.
        inherited: what the card of the base says in its front matter, such as licence and language.
        task: the task, as its YAML file has it.
        train_data, validation_data: identity of the data.
        settings: of the run, but for places on the machine it ran on.
        tensors: all that trained.
        parameters: `trained`, `trained_without_head` and `total`.
        free: which tensors of `model` training may have changed.
        steps, best_step: optimiser steps, and the step whose state this is.
        metrics: of that state on the validation data.
        main_metric: the metric that chose it.
        kept: what a comparison with the source found; None if it was not made.
        earlier: the record of a fine-tuning before this one.
        environment: what it was trained on: versions of software, device, processes, precision.
    """

    WHAT = "training record"
    REMEDY = "Restore it from the run's model folder, or train again"

    package: str
    model: Party
    source: Party
    base: Party
    inherited: dict[str, Any] = Field(default_factory=dict)
    task: dict[str, Any]
    train_data: dict[str, Any]
    validation_data: dict[str, Any] | None = None
    settings: dict[str, Any]
    tensors: tuple[TrainedTensor, ...]
    parameters: dict[str, int]
    free: Free
    steps: int
    best_step: int
    metrics: dict[str, float]
    main_metric: str
    kept: SourceComparison | None = None
    earlier: Training | None = None
    environment: dict[str, Any]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it does not pass, as sentences; empty if it passes."""
        counted = sum(tensor.elements for tensor in self.tensors)
        wrong = (
            [] if counted == self.parameters.get("trained") else ["Its count of trained parameters is not their sum."]
        )
        return (*wrong, *_reasons(self.kept))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether only trained parameters differ from the source, and removed biases are still removed."""
        return not self.reasons


class PatchBefore(NamedTuple):
    """The patch that a fine-tuned model began with.

    Attributes:
        plan: what was done.
        certificate: what was measured; None if nothing was, as for a drop.
    """

    plan: Plan
    certificate: Certificate | None


def read_training(folder: Path) -> Training | None:
    """The training record in a model's folder; None if it has none.

    Raises:
        CheckpointError: it is damaged.
    """
    path = folder / TRAINING
    return Training.loads(path.read_bytes(), path) if path.is_file() else None


def patch_of(folder: Path) -> PatchBefore | None:
    """The last patch of a variant; None for other checkpoints.

    Raises:
        CheckpointError: a file of it is damaged.
    """
    return _patch(folder / PLAN, folder / CERTIFICATE)


def patch_before(folder: Path) -> PatchBefore | None:
    """The patch that a fine-tuned model began with; None if it began with none.

    Raises:
        CheckpointError: a file of it is damaged.
    """
    return _patch(folder / BEFORE / Path(PLAN).name, folder / BEFORE / Path(CERTIFICATE).name)


def _patch(plan: Path, certificate: Path) -> PatchBefore | None:
    if not plan.is_file():
        return None
    proof = Certificate.loads(certificate.read_bytes(), certificate) if certificate.is_file() else None
    return PatchBefore(Plan.loads(plan.read_bytes(), plan), proof)


def _reasons(kept: SourceComparison | None) -> Iterable[str]:
    if kept is None:
        yield "It was not compared with its source."
        return
    if kept.strayed:
        what = "Tensors differ from the source where nothing trained, or are missing"
        yield f"{what}: {len(kept.strayed)}, such as {kept.strayed[0]}."
    if kept.returned:
        yield f"Biases that were removed are there again: {len(kept.returned)}, such as {kept.returned[0]}."
