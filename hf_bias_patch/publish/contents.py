"""Which files of a variant or a fine-tuned model are published, and what stands in them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hf_bias_patch.checkpoint.checkpoint import open_model
from hf_bias_patch.checkpoint.hashing import sha256_file
from hf_bias_patch.checkpoint.listing import companion_files, files_beside
from hf_bias_patch.checkpoint.sidecar import ADAPTER, ADAPTER_WEIGHTS, side_files
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.patching.base_card import CARD, is_as_made, is_own_card
from hf_bias_patch.patching.patch_only import extract
from hf_bias_patch.patching.record import UNDO
from hf_bias_patch.publish.card import card_files, lossy_notice
from hf_bias_patch.publish.facts import Facts
from hf_bias_patch.publish.listing import Content, Remote
from hf_bias_patch.publish.proof import refuse_unproven

__all__ = ["adapter_contents", "patch_contents", "whole_contents"]


_LICENCE = re.compile(r"(licen[cs]e|notice|copying)[^/]*$", re.IGNORECASE)


def whole_contents(folder: Path, facts: Facts) -> dict[str, Content]:
    """A variant or a fine-tuned model as it lies there, and its card. Nothing is written.

    Args:
        folder: of the model.
        facts: of it, under its name on the Hub.

    Raises:
        CheckpointError: it is not proven (`proof.refuse_unproven`); or somebody took out of a lossy variant's card that
            it is one.
        ExtraError: the card's figure cannot be drawn.
    """
    checkpoint = open_model(folder)
    sha256 = {file: sha256_file(folder / file) for file in checkpoint.files}
    refuse_unproven(folder, facts, sha256)
    weights = checkpoint.weight_names
    paths = [*map(Path, sorted(weights)), *companion_files(checkpoint), *side_files(folder)]
    found = {path.as_posix(): Content(folder / path, sha256.get(path.as_posix(), "")) for path in paths}
    return found | {name: Content(content) for name, content in _card(folder, facts).items()}


def adapter_contents(folder: Path, facts: Facts) -> dict[str, Content]:
    """A peft adapter as it lies there, but for its base, which is named as others find it; and its card.

    Args:
        folder: of the adapter.
        facts: of it, under its name on the Hub, with a base that is on the Hub.

    Raises:
        CheckpointError: it is not proven (`proof.refuse_unproven`).
    """
    weights = {ADAPTER_WEIGHTS: sha256_file(folder / ADAPTER_WEIGHTS)}
    refuse_unproven(folder, facts, weights)
    paths = [Path(ADAPTER_WEIGHTS), *files_beside(folder, weights), *side_files(folder)]
    found = {path.as_posix(): Content(folder / path, weights.get(path.as_posix(), "")) for path in paths}
    base = {"base_model_name_or_path": facts.base.name, "revision": facts.base.revision}
    config = json.dumps({**(facts.adapter or {}), **base}, indent=2, sort_keys=True) + "\n"
    made = {ADAPTER: config.encode(), **_card(folder, facts)}
    return found | {name: Content(content) for name, content in made.items()}


def patch_contents(folder: Path, facts: Facts, there: Remote) -> dict[str, Content]:
    """What is needed to make a variant of its base: all that is not the base's, and of the weights the new vectors.

    The base's licence comes along: the card names it, and may link to it.

    Args:
        folder: of a variant.
        facts: of it, under its name on the Hub, with a base that is on the Hub.
        there: the base's files.

    Raises:
        CheckpointError: as for `whole_contents` and `extract`.
        ExtraError: the card's figure cannot be drawn.
    """
    whole = whole_contents(folder, facts)
    checkpoint = open_model(folder)
    sha256 = {file: whole[file].sha256 for file in checkpoint.files}
    patch = extract(checkpoint, facts.base.name, there.commit, sha256)
    own = {
        path: content
        for path, content in whole.items()
        if path not in checkpoint.weight_names | {UNDO}
        and not (path in there.files and content.is_same(there.files[path]) and not _LICENCE.match(path))
    }
    return own | {path: Content(content) for path, content in patch.items()}


def _card(folder: Path, facts: Facts) -> dict[str, bytes]:
    """The card as it should stand there, and its files: made anew, unless somebody wrote into it."""
    files = card_files(folder, facts)
    if not is_own_card(folder) or is_as_made(folder):
        return files
    written = (folder / CARD).read_text("utf-8")
    if facts.lossy and lossy_notice(facts) not in written:
        raise CheckpointError(
            f"{folder / CARD} does not say that this is another model than its base",
            remedy="Write it anew with `hf-bias-patch card --overwrite`",
        )
    return files | {CARD: written.encode()}
