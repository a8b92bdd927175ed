"""What a variant says of itself: its side files, and the `bias_patch` block of its config.json."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Container, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from hf_bias_patch.architecture.model_type import with_model_type
from hf_bias_patch.checkpoint.shorten import brief
from hf_bias_patch.checkpoint.sidecar import LOADER, SIDE_FOLDER, side_files
from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.recipe import Recipe

__all__ = [
    "BASE",
    "BEFORE",
    "CERTIFICATE",
    "LOADER",
    "PLAN",
    "TRAINING",
    "UNDO",
    "block_of",
    "frozen_slots",
    "is_patched",
    "loader_text",
    "patched_config",
    "public_name",
    "recipe_of",
    "source_sha256",
    "training_files",
    "untouchable",
]

PLAN = f"{SIDE_FOLDER}/plan.json"
UNDO = f"{SIDE_FOLDER}/undo.zip"
CERTIFICATE = f"{SIDE_FOLDER}/certificate.json"
BASE = f"{SIDE_FOLDER}/base.json"
"""The base as the user named it, for a variant of a local copy does not know where that came from."""
TRAINING = f"{SIDE_FOLDER}/training.json"
"""What a fine-tuned model says of its training; travels with every later patch of it."""
BEFORE = f"{SIDE_FOLDER}/before_training"
"""Plan and certificate of the patch that a fine-tuned model began with."""

BLOCK = "bias_patch"
MARKS = ("removed", "freeze", "train")
"""What the block says of single slots."""
_AUTO_CLASSES = (
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForMaskedLM",
    "AutoModelForMultipleChoice",
    "AutoModelForNextSentencePrediction",
    "AutoModelForPreTraining",
    "AutoModelForQuestionAnswering",
    "AutoModelForSeq2SeqLM",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
)


def block_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a variant's config.json says of its making; empty for other checkpoints.

    Raises:
        CheckpointError: something else stands there. A patch would replace it, so it is not passed over.
    """
    block = config.get(BLOCK)
    if block is None:
        return {}
    kinds: dict[str, type] = {"recipe": dict, "source": dict, "absent": list, **dict.fromkeys(MARKS, list)}
    sound = isinstance(block, dict) and all(isinstance(block.get(name, kind()), kind) for name, kind in kinds.items())
    lists = [name for name, kind in kinds.items() if kind is list]
    sound = sound and all(isinstance(item, str) for name in lists for item in block.get(name, ()))
    if not sound or not _is_source(block.get("source", {})):
        raise CheckpointError(
            f"config.json: `{BLOCK}` is {textwrap.shorten(brief(block), 60)}",
            why="hf_bias_patch describes the patch in this field; its content is damaged, or from another program",
            remedy="Restore the field from the variant as it was written, or remove it if this is not a variant",
        )
    return block


def _is_source(said: Mapping[str, Any]) -> bool:
    """Whether name, revision and checksums of a source are such."""
    sha256 = said.get("sha256") or {}
    texts = (said.get("name"), said.get("revision"), *(sha256.values() if isinstance(sha256, dict) else (0,)))
    return all(text is None or isinstance(text, str) for text in texts)


def is_patched(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is a variant's."""
    return bool(block_of(config))


def recipe_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe a variant was made by, as plain JSON values; empty for other checkpoints."""
    return dict(block_of(config).get("recipe", {}))


def source_sha256(config: Mapping[str, Any]) -> dict[str, str]:
    """The files a variant was made from, name to sha256; empty for an edit in place, and for other checkpoints."""
    return dict(block_of(config).get("source", {}).get("sha256") or {})


def is_same(config: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether a checkpoint was already patched by this very recipe."""
    return is_patched(config) and recipe_of(config) == recipe.plain()


def patched_config(
    config: Mapping[str, Any], plan: Plan, source: Source, sha256: Mapping[str, str], present: Container[str]
) -> bytes:
    """config.json of a variant.

    Args:
        config: the source's config.
        plan: what was done.
        source: where it came from.
        sha256: of the source's own weight files, which may be pickles; empty where they were not read.
        present: the source's tensors. Stock loaders bring biases that an earlier patch took away back as zeros.
    """
    before = block_of(config)
    block: dict[str, Any] = {
        "version": plan.package,
        "recipe": plan.recipe.plain(),
        "source": {"name": public_name(source), "revision": source.revision, "sha256": dict(sha256) or None},
        "absent": sorted({*(name for name in before.get("absent", ()) if name not in present), *plan.absent}),
        "lossy": plan.lossy or bool(before.get("lossy")),
        **_marks(before, plan),
    }
    new = {**with_model_type(config, plan.recipe.model_type), BLOCK: block}
    if block["absent"]:
        new["auto_map"] = {
            **(own if isinstance(own := config.get("auto_map"), dict) else {}),
            **{auto: f"{LOADER[:-3]}.{auto}" for auto in _AUTO_CLASSES},
        }
    # Half a character, which JSON can say and UTF-8 cannot, is written as JSON says it.
    return (json.dumps(new, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _marks(before: Mapping[str, Any], plan: Plan) -> dict[str, list[str]]:
    """Slots that are removed, frozen or to be trained, as `SITE.PROJECTION`: by this patch, or still by an earlier one.

    The last word on a slot counts: a bias that was removed and then filled is there again.
    """
    said = {slot: mark for mark in MARKS for slot in before.get(mark, ())}
    said |= {edit.name: "removed" if edit.removes else edit.action for edit in plan.edits}
    found = {mark: sorted(slot for slot, last in said.items() if last == mark) for mark in MARKS}
    return {mark: slots for mark, slots in found.items() if slots}


def untouchable(config: Mapping[str, Any]) -> dict[str, str]:
    """The slots of a variant that training must leave alone: `SITE.PROJECTION` to `removed` or `freeze`."""
    block = block_of(config)
    return {slot: mark for mark in ("removed", "freeze") for slot in block.get(mark, ())}


def frozen_slots(config: Mapping[str, Any]) -> list[str]:
    """The slots of a variant that a patch froze, as `SITE.PROJECTION`."""
    return [slot for slot, mark in untouchable(config).items() if mark == "freeze"]


def public_name(source: Source) -> str:
    """What a source is called where others read it: of a local path the last part alone."""
    # What is made may be published; the folders of the machine it was made on are nobody's business.
    place = Path(source.name)
    return place.resolve().name if place.exists() else source.name


def training_files(folder: Path) -> list[Path]:
    """What a fine-tuned model says of its training: paths relative to its folder. They stay true of what is made of it.

    Args:
        folder: of a checkpoint.
    """
    if not (folder / TRAINING).is_file():
        return []
    return [
        path for path in side_files(folder) if path.as_posix() in (TRAINING, BASE) or path.parent.as_posix() == BEFORE
    ]


def loader_text(model_type: str) -> str:
    """The module that loads a variant of storage `absent` through stock Auto classes."""
    text = resources.files(__package__).joinpath("absent.py").read_text("utf-8")
    return text.replace('MODEL_TYPE = ""', f"MODEL_TYPE = {model_type!r}")
