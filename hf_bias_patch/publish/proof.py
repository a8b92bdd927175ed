"""Refuses to publish what is not proven: by a certificate or training record that passes, of these very weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from hf_bias_patch.checkpoint.hashing import sha256_file
from hf_bias_patch.checkpoint.index import INDEX_SUFFIX
from hf_bias_patch.checkpoint.listing import weight_names
from hf_bias_patch.checkpoint.sidecar import ADAPTER_WEIGHTS
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.evidence.ancestors import ancestor_files
from hf_bias_patch.evidence.certificate import Certificate
from hf_bias_patch.evidence.training import PatchBefore, Training
from hf_bias_patch.patching.record import block_of
from hf_bias_patch.publish.facts import Facts

__all__ = ["refuse_other_weights", "refuse_unproven"]


def refuse_unproven(folder: Path, facts: Facts, sha256: Mapping[str, str]) -> None:
    """Refuse a model whose evidence does not hold for the weights that lie there.

    Args:
        folder: of the model.
        facts: of it.
        sha256: of its weight files.

    Raises:
        CheckpointError: a variant that is not lossy has no certificate, or one that does not pass; a fine-tuned model's
            record does not pass, or the patch that it began with has no certificate that does; or either is of other
            weights.
    """
    _refuse_other_weights(folder, facts, sha256)
    lossy = facts.lossy if facts.training is None else facts.plan is not None and facts.plan.lossy
    if facts.plan is not None and not lossy:
        _refuse_certificate(folder, facts.certificate, "certificate", _measure(folder, facts))
    if facts.training is not None:
        _refuse_training(folder, facts.training, facts.before)
        if facts.plan is None and facts.before is None and block_of(facts.config):
            raise CheckpointError(
                f"{folder} is not published: the plan of the patch before the training is missing",
                remedy="Restore bias_patch/before_training from the run's model folder, or train the variant again",
            )


def refuse_other_weights(folder: Path, facts: Facts) -> None:
    """Refuse a model whose evidence was measured on other weights than those in its folder.

    Raises:
        CheckpointError: it is.
    """
    if (folder / ADAPTER_WEIGHTS).is_file() and facts.adapter is not None:
        files: Iterable[str] = [ADAPTER_WEIGHTS]
    else:
        files = [name for name in weight_names(folder) if not name.endswith(INDEX_SUFFIX)]
    found = {name: sha256_file(folder / name) for name in files if (folder / name).is_file()}
    _refuse_other_weights(folder, facts, found)


def _refuse_other_weights(folder: Path, facts: Facts, sha256: Mapping[str, str]) -> None:
    if facts.certificate is not None:
        _refuse_others(folder, "certificate", facts.certificate.variant.sha256, sha256, _measure(folder, facts))
    if facts.training is None or not sha256:
        return
    if facts.plan is None:
        _refuse_others(folder, "training record", facts.training.model.sha256, sha256, _again(folder))
    else:
        _refuse_other_start(folder, facts.training)


def _measure(folder: Path, facts: Facts) -> str:
    against = "" if facts.training else f" --against {facts.base.name}"
    return f"Measure it: `hf-bias-patch verify {folder}{against}`"


def _refuse_certificate(folder: Path, certificate: Certificate | None, what: str, measure: str) -> None:
    if certificate is None:
        raise CheckpointError(f"{folder} is not published: it has no {what}", remedy=measure)
    if not certificate.passed:
        raise CheckpointError(
            f"{folder} is not published: its {what} does not pass",
            why="; ".join(certificate.reasons),
            remedy="Leave out the edits that fail",
        )


def _refuse_others(
    folder: Path, what: str, measured: Mapping[str, str], sha256: Mapping[str, str], remedy: str
) -> None:
    for name, found in sha256.items():
        if measured.get(name) != found:
            raise CheckpointError(
                f"{folder} holds other weights than were measured: its {what} is of another {name}",
                why=f"The file's sha256 is {found}, and {measured.get(name)} was measured",
                remedy=remedy,
            )


def _refuse_training(folder: Path, training: Training, before: PatchBefore | None) -> None:
    if not training.passed:
        raise CheckpointError(
            f"{folder} is not published: its training record does not pass",
            why=" ".join(training.reasons),
            remedy=_again(folder),
        )
    if before is not None and not before.plan.lossy:
        remedy = "Verify the variant that it was trained from, and run the same `tune` with --resume to record that"
        _refuse_certificate(folder, before.certificate, "certificate of the patch before the training", remedy)


def _again(folder: Path) -> str:
    return f"Compare it with its source again: `hf-bias-patch verify {folder}`; or train it again"


def _refuse_other_start(folder: Path, training: Training) -> None:
    """A variant of a fine-tuned model: some patch of it must have begun with the weights that the record speaks of."""
    recorded = training.model.sha256
    if not any(files == recorded for files in ancestor_files(folder)):
        raise CheckpointError(
            f"{folder} was not made from the weights that its training record names",
            why="They changed between training and patch",
            remedy="Patch the model as `tune` saved it",
        )
