"""What a variant is a variant of, as others know it: a Hub id and a commit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_bias_patch.errors import ArgumentError, CheckpointError
from hf_bias_patch.evidence.training import read_training
from hf_bias_patch.patching.record import BASE, block_of

__all__ = ["BASE", "Base", "base_of", "dump_base", "parse_base"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Base:
    """The base of a variant.

    Attributes:
        name: Hub id, or what it was called where it is not known on the Hub.
        revision: its commit, where that is known.
    """

    name: str
    revision: str | None = None

    @property
    def on_hub(self) -> bool:
        """Whether the name is a Hub id."""
        return _HUB_ID.fullmatch(self.name) is not None


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
    """The base of a variant: as the user named it, else as config.json does.

    Raises:
        CheckpointError: what was kept of it is damaged.
    """
    if not (folder / BASE).is_file():
        source, training = block_of(config).get("source") or {}, read_training(folder)
        if training is not None and not source.get("revision"):
            return Base(training.base.name, training.base.revision)
        return Base(str(source.get("name") or "a checkpoint"), source.get("revision"))
    try:
        kept = json.loads((folder / BASE).read_text("utf-8"))
        return Base(str(kept["name"]), kept["revision"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"{folder / BASE} is damaged", remedy="Name the base again with `hf-bias-patch card --base-model`"
        ) from None


def dump_base(base: Base) -> bytes:
    """What is kept of the base beside a variant."""
    return (json.dumps({"name": base.name, "revision": base.revision}) + "\n").encode()
