"""Which files of a variant or a fine-tuned model are published, and their content."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub.utils.sha import git_hash

from hf_bias_patch.checkpoint.checkpoint import open_model
from hf_bias_patch.checkpoint.hashing import sha256_file
from hf_bias_patch.checkpoint.listing import companion_files, files_beside
from hf_bias_patch.checkpoint.sidecar import ADAPTER, ADAPTER_WEIGHTS, side_files
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.patching.base_card import CARD, is_as_made, is_own_card
from hf_bias_patch.patching.patch_only import extract
from hf_bias_patch.patching.record import UNDO
from hf_bias_patch.publish.card import card_files
from hf_bias_patch.publish.card_text import lossy_notice
from hf_bias_patch.publish.facts import Facts
from hf_bias_patch.publish.hub_listing import HubListing
from hf_bias_patch.publish.proof import refuse_unproven

if TYPE_CHECKING:
    from huggingface_hub import RepoFile

__all__ = ["Content", "contents_of"]

_LICENCE = re.compile(r"(licen[cs]e|notice|copying)[^/]*$", re.IGNORECASE)


@dataclass(frozen=True)
class Content:
    """What a file will hold.

    Attributes:
        source: the file on this machine, or its bytes.
    """

    source: Path | bytes
    known_sha256: str = field(default="", repr=False)

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    @cached_property
    def sha256(self) -> str:
        if self.known_sha256:
            return self.known_sha256
        return hashlib.sha256(self.source).hexdigest() if isinstance(self.source, bytes) else sha256_file(self.source)

    def is_same(self, there: RepoFile) -> bool:
        """Whether a file on the Hub holds the same bytes. Those known by git's hash are small."""
        if self.size != there.size:
            return False
        if there.lfs:
            return self.sha256 == there.lfs.sha256
        return git_hash(self.source if isinstance(self.source, bytes) else self.source.read_bytes()) == there.blob_id


def contents_of(folder: Path, facts: Facts, theirs: HubListing | None = None) -> dict[str, Content]:
    """The files to publish of a variant or a fine-tuned model, and its card. Nothing is written.

    Args:
        folder: of the model.
        facts: of it, under its name on the Hub. An adapter, and a patch alone, need a base that is on the Hub.
        theirs: the base's files, for a patch alone.

    Raises:
        CheckpointError: the model is not proven (`proof.refuse_unproven`); or somebody took out of a lossy variant's
            card that it is one; or there can be no patch alone of it (`patch_only.extract`).
        ExtraError: the card's figure cannot be drawn.
    """
    if facts.patch_only:
        assert theirs is not None, "a patch alone is made only of a base that was found"
        return _patch(folder, facts, theirs)
    return _whole(folder, facts) if facts.adapter is None else _adapter(folder, facts)


def _whole(folder: Path, facts: Facts) -> dict[str, Content]:
    """The model as it lies there."""
    checkpoint = open_model(folder)
    sha256 = {file: sha256_file(folder / file) for file in checkpoint.files}
    paths = [*map(Path, sorted(checkpoint.weight_names)), *companion_files(checkpoint)]
    return _proven(folder, facts, sha256, paths)


def _adapter(folder: Path, facts: Facts) -> dict[str, Content]:
    """A peft adapter as it lies there, but for its base, which is named as others find it."""
    sha256 = {ADAPTER_WEIGHTS: sha256_file(folder / ADAPTER_WEIGHTS)}
    paths = [Path(ADAPTER_WEIGHTS), *files_beside(folder, sha256)]
    base = {"base_model_name_or_path": facts.base.name, "revision": facts.base.revision}
    config = json.dumps({**(facts.adapter or {}), **base}, indent=2, sort_keys=True) + "\n"
    return _proven(folder, facts, sha256, paths) | {ADAPTER: Content(config.encode())}


def _proven(folder: Path, facts: Facts, sha256: Mapping[str, str], paths: Iterable[Path]) -> dict[str, Content]:
    """Files as they lie there, with the evidence for these weights, and the card."""
    refuse_unproven(folder, facts, sha256)
    names = [path.as_posix() for path in (*paths, *side_files(folder))]
    found = {name: Content(folder / name, sha256.get(name, "")) for name in names}
    return found | {name: Content(content) for name, content in _card(folder, facts).items()}


def _patch(folder: Path, facts: Facts, theirs: HubListing) -> dict[str, Content]:
    """What makes a variant of its base: all that is not the base's, and of the weights the new vectors.

    The base's licence comes along: the card names it, and may link to it.
    """
    whole = _whole(folder, facts)
    checkpoint = open_model(folder)
    sha256 = {file: whole[file].sha256 for file in checkpoint.files}
    patch = extract(checkpoint, facts.base.name, theirs.commit, sha256)
    own = {
        path: content
        for path, content in whole.items()
        if path not in checkpoint.weight_names | {UNDO}
        and not (path in theirs.files and content.is_same(theirs.files[path]) and not _LICENCE.match(path))
    }
    return own | {path: Content(content) for path, content in patch.items()}


def _card(folder: Path, facts: Facts) -> dict[str, bytes]:
    """The card as it should stand there, and its files: made anew, unless somebody edited it."""
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
