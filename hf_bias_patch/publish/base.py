"""What a model was made from, as others know it: a Hub id and a commit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hf_bias_patch.errors import ArgumentError, CheckpointError
from hf_bias_patch.evidence.training import read_training
from hf_bias_patch.patching.record import BASE, PLAN, block_of

__all__ = ["BASE", "Base", "base_of", "dump_base", "kept_base", "parse_base", "source_base"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Base:
    """The base of a variant or a fine-tuned model.

    Attributes:
        name: Hub id, or what it was called where it is not known on the Hub.
        revision: its commit, where that is known.
        patches: how many patches lead from it to the model, or to the start of a training in between.
        trained: whether there is a training in between.
        card: front matter of its card on the Hub, as far as that was looked at.
    """

    name: str
    revision: str | None = None
    patches: int = 1
    trained: bool = False
    card: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def on_hub(self) -> bool:
        """Whether the name is a Hub id."""
        return _HUB_ID.fullmatch(self.name) is not None

    @property
    def typed(self) -> str:
        """As a user writes it: `owner/name` or `owner/name@REVISION`."""
        return f"{self.name}@{self.revision}" if self.revision else self.name


def parse_base(text: str) -> Base:
    """A base from `owner/name` or `owner/name@REVISION`.

    Raises:
        ArgumentError: it is no Hub id.
    """
    name, _, revision = text.partition("@")
    base = Base(name, revision or None)
    if not base.on_hub:
        raise ArgumentError(f"{text!r} is no Hub id", remedy="Write owner/name, or owner/name@COMMIT")
    return base


def base_of(folder: Path, config: Mapping[str, Any]) -> Base:
    """The base of a model: as the user named it, else as config.json does.

    Raises:
        CheckpointError: what was kept of it is damaged.
    """
    return kept_base(folder) or source_base(folder, config)


def source_base(folder: Path, config: Mapping[str, Any]) -> Base:
    """What a model was made from, as its own files name it: a Hub id only if it was made from the Hub's copy."""
    source, training = block_of(config).get("source") or {}, read_training(folder)
    if training is not None and not ((folder / PLAN).is_file() and source.get("revision")):
        return Base(training.base.name, training.base.revision, trained=True)
    return Base(str(source.get("name") or "a checkpoint"), source.get("revision"))


def kept_base(folder: Path) -> Base | None:
    """The base as it is kept beside a variant; None if it is not.

    Raises:
        CheckpointError: the file is damaged.
    """
    if not (folder / BASE).is_file():
        return None
    try:
        kept = json.loads((folder / BASE).read_text("utf-8"))
        more = {name: kept[name] for name in ("patches", "trained", "card") if name in kept}
        base = Base(str(kept["name"]), kept["revision"], **more)
        kinds = ((base.patches, int), (base.trained, bool), (base.revision, str | None), (base.card, dict))
        if not all(isinstance(value, kind) for value, kind in kinds):
            raise ValueError
        return base
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(
            f"{folder / BASE} is damaged",
            remedy="Delete it, and name the base again with `hf-bias-patch card --base-model`",
        ) from None


def dump_base(base: Base) -> bytes:
    """What is kept of the base beside a variant."""
    plain = asdict(base)
    unsaid = {"patches": 1, "trained": False, "card": {}}
    kept = {name: value for name, value in plain.items() if name not in unsaid or value != unsaid[name]}
    return (json.dumps(kept) + "\n").encode()
