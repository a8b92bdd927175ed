"""What a card says of a fine-tuned model: what is proven of it, how it was trained, and which tensors trained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from hf_bias_patch.evidence.certificate import Party
from hf_bias_patch.evidence.training import PatchBefore, SourceComparison, Training
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.summary import runs
from hf_bias_patch.publish.base import BaseRef
from hf_bias_patch.publish.markdown import and_list, link, table
from hf_bias_patch.scoring.identity import DataIdentity

__all__ = ["removed", "tasks", "training_sections"]

_SETTINGS = (
    "train", "freeze", "lora_rank", "lora_alpha", "seed", "learning_rate", "lr_scheduler_type", "warmup_ratio",
    "weight_decay", "num_train_epochs", "max_train_steps", "per_device_train_batch_size",
    "gradient_accumulation_steps", "max_length", "mixed_precision",
)  # fmt: skip


def tasks(training: Training) -> str:
    """The tasks in a card's sentence, the first one first."""
    own = f"the task {training.task['name']}"
    return own if training.earlier is None else f"{tasks(training.earlier)}, then on {own}"


def removed(plan: Plan) -> str:
    """What a patch took away, as part of a sentence: `the key and value biases of its attention`."""
    gone = dict.fromkeys(edit.projection for edit in plan.edits if edit.removes)
    return f"the {and_list(gone)} biases of its attention" if gone else "no biases"


def training_sections(
    training: Training, before: PatchBefore | None, base: BaseRef, frozen: Sequence[str]
) -> Iterable[str]:
    """Paragraphs of Markdown.

    Args:
        training: the record.
        before: the patch that the training began with.
        base: of the model, as it is named on the card.
        frozen: bias slots that a patch froze.
    """
    yield "## What is proven"
    yield table(("", ""), _proven(training, before, base, frozen))
    yield "All of it is in `bias_patch/training.json`; a push compares the hashes in it with the files."
    yield "## How it was trained"
    yield table(("", ""), _how(training))
    yield "## Tensors that trained"
    yield table(("tensor", "role", "part", "parameters"), _tensors(training))


def _proven(
    training: Training, before: PatchBefore | None, base: BaseRef, frozen: Sequence[str]
) -> Iterable[tuple[str, str]]:
    source = training.source
    yield "fine-tuned from", link(base if base.trained else BaseRef(source.name, source.revision))
    yield from _hashes(training.base)
    if source != training.base:
        yield "by way of", link(BaseRef(source.name, source.revision))
        yield from _hashes(source)
    if training.earlier is not None:
        yield from _earlier(training.earlier)
    yield "trained", _count(training)
    if not training.passed:
        yield "**not proven**", " ".join(training.reasons)
    if training.kept is not None:
        yield from _kept(training.kept, before)
    if before is not None and before.certificate is not None:
        proof = before.certificate
        lossy = "nor was it meant to: the patch is lossy" if proof.lossy else "the reasons stand below"
        said = f"passes: {proof.headline}" if proof.passed else f"does not pass; {lossy}"
        yield "certificate of the patch it began with", said
    if frozen:
        yield "frozen by that patch, and unchanged", _slots(frozen)
    if training.settings.get("freeze"):
        yield "frozen for the training, and unchanged", f"{and_list(training.settings['freeze'])} biases"


def _hashes(party: Party) -> Iterable[tuple[str, str]]:
    yield from ((f"its {file}, sha256", f"`{sha256}`") for file, sha256 in party.sha256.items())


def _count(training: Training) -> str:
    counts = training.parameters
    head = f" ({counts['trained_without_head']:,} without the head)" if _has_head(training) else ""
    return f"{counts['trained']:,} of {counts['total']:,} parameters{head}"


def _earlier(training: Training) -> Iterable[tuple[str, str]]:
    """A row for each fine-tuning before the last one, the first one first."""
    if training.earlier is not None:
        yield from _earlier(training.earlier)
    what = f"train {training.settings.get('train')}, {_count(training)}"
    yield "before that, fine-tuned on", f"{training.task['name']}: {what}"


def _has_head(training: Training) -> bool:
    return any(tensor.role == "head" for tensor in training.tensors)


def _kept(kept: SourceComparison, before: PatchBefore | None) -> Iterable[tuple[str, str]]:
    source = "the patched source" if before else "the source"
    yield (
        "unchanged",
        f"{kept.identical} tensors ({kept.parameters:,} parameters) are bit-identical to those of {source}",
    )
    if kept.new:
        yield "new", and_list(f"`{name}`" for name in kept.new)
    if kept.removed:
        yield "removed before, and still gone", _slots(kept.removed)


def _slots(names: Iterable[str]) -> str:
    """Slot names such as `encoder.0.self.key`, their layers joined: `encoder self key 0-5`."""
    groups: dict[str, list[int]] = {}
    for name in names:
        stack, layer, kind, projection = name.split(".")
        groups.setdefault(f"{stack} {kind} {projection}", []).append(int(layer))
    return ", ".join(f"{name} {runs(layers)}" for name, layers in groups.items())


def _how(training: Training) -> Iterable[tuple[str, str]]:
    about = training.task.get("about")
    yield "task", f"{training.task['name']}{f' ({about})' if about else ''}"
    yield "training data", str(DataIdentity.of_plain(training.train_data))
    if training.validation_data is not None:
        yield "validation data", str(DataIdentity.of_plain(training.validation_data))
    found = ", ".join(f"{name} {value:.2f}" for name, value in training.metrics.items())
    if found:
        yield "score on the validation data", f"{found}; {training.main_metric} chose step {training.best_step}"
    yield "optimiser steps", f"{training.steps:,} of AdamW"
    for name in _SETTINGS:
        value = training.settings.get(name)
        if value not in (None, [], {}) and (training.settings["train"] == "lora" or not name.startswith("lora")):
            yield f"`{name}`", ", ".join(value) if isinstance(value, list) else str(value)
    if decode := training.settings.get("decode"):
        yield "texts generated with", ", ".join(f"{name} {value}" for name, value in decode.items())
    yield "device", f"{training.environment['processes']} × {training.environment['device']}"


def _tensors(training: Training) -> Iterable[tuple[str, ...]]:
    """A row a tensor, those of all layers in one: `encoder.layer.{0-5}.attention.self.value.bias`."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    elements: dict[tuple[str, str, str], int] = {}
    for tensor in training.tensors:
        found = re.search(r"(?<=\.)\d+(?=\.)", tensor.name)
        layered = f"{tensor.name[: found.start()]}{{}}{tensor.name[found.end() :]}" if found else tensor.name
        key = (layered, tensor.role, tensor.part)
        groups.setdefault(key, []).extend([int(found[0])] if found else [])
        elements[key] = elements.get(key, 0) + tensor.elements
    for key, layers in groups.items():
        name, role, part = key
        shown = name.replace("{}", f"{{{runs(layers)}}}") if layers else name
        yield f"`{shown}`", role, part, f"{elements[key]:,}"
