"""What a model's folder says of it: plan, certificate, training record, base, norms, scores, the card of its base."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_bias_patch.architecture.model_type import saved_class
from hf_bias_patch.checkpoint.index import parse_object
from hf_bias_patch.checkpoint.sidecar import ADAPTER, SIDE_FOLDER, is_adapter_alone
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.evidence.certificate import Certificate
from hf_bias_patch.evidence.training import PatchBefore, Training, patch_before, patch_of, read_training
from hf_bias_patch.patching.base_card import base_card, front_matter, mark_of
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.record import PLAN, TRAINING, UNDO, block_of
from hf_bias_patch.publish.base import BaseRef, base_of
from hf_bias_patch.publish.bias_norms import NORMS, BiasNorm, measure_norms, read_norms
from hf_bias_patch.publish.scores import kept_scores

__all__ = ["Facts", "read_facts"]


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
        results: scores, by the name of the file that keeps them.
        patch_only: whether the card is for a repository without the weights.
    """

    name: str
    mark: str
    config: Mapping[str, Any]
    plan: Plan | None
    certificate: Certificate | None
    training: Training | None
    before: PatchBefore | None
    base: BaseRef
    norms: tuple[BiasNorm, ...]
    base_card: Mapping[str, Any]
    adapter: Mapping[str, Any] | None
    results: Mapping[str, Mapping[str, Any]]
    patch_only: bool = False

    def of(self, base: BaseRef) -> Facts:
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
        results=kept_scores(folder),
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


def _norms(folder: Path, plan: Plan) -> tuple[BiasNorm, ...]:
    """Measured where the old values are at hand, else as they were measured before."""
    if (folder / UNDO).is_file():
        with suppress(CheckpointError):  # it was trained on since, so that the old values cannot be had
            return measure_norms(folder, plan)
    return read_norms(folder / NORMS) if (folder / NORMS).is_file() else ()
