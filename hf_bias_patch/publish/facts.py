"""What a variant's folder says of it: the plan, the certificate, its base, norms, scores, and the card of its base."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hf_bias_patch.checkpoint.durable import replace_file
from hf_bias_patch.checkpoint.index import parse_object
from hf_bias_patch.checkpoint.side import SIDE_FOLDER
from hf_bias_patch.errors import CheckpointError, TargetError
from hf_bias_patch.evidence.certificate import Certificate
from hf_bias_patch.patching.base_card import base_card, mark_of
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.record import CERTIFICATE, PLAN, UNDO, block_of
from hf_bias_patch.publish.base import Base, base_of
from hf_bias_patch.publish.norms import NORMS, Norm, measure_norms, read_norms

__all__ = ["RESULTS", "Facts", "add_results", "read_facts"]

RESULTS = f"{SIDE_FOLDER}/results"
"""Scores of the variant, as `hf-bias-patch evaluate --json` prints them, one file each."""


_MATTER = re.compile(r"\ufeff?\s*---[ \t]*\r?\n(.*?\n)---[ \t]*(?:\r?\n|$)", re.DOTALL)
"""Front matter, with the ends of lines that Windows writes as well."""


@dataclass(frozen=True)
class Facts:
    """Everything that a card states.

    Attributes:
        name: of the folder, or on the Hub.
        mark: by which its card is known as its own.
        config: config.json.
        plan: what was done.
        certificate: what was measured; None if nothing was.
        base: what was patched.
        norms: of its biases; empty where they are not known.
        base_card: front matter of the base's card; empty if it had none.
        results: scores.
        patch_only: whether the card is for a repository without the weights.
    """

    name: str
    mark: str
    config: Mapping[str, Any]
    plan: Plan
    certificate: Certificate | None
    base: Base
    norms: tuple[Norm, ...]
    base_card: Mapping[str, Any]
    results: tuple[dict[str, Any], ...]
    patch_only: bool = False

    @property
    def absent(self) -> bool:
        """Whether biases left the file, so that the checkpoint needs its own loader."""
        return bool(self.plan.absent)

    @property
    def lossy(self) -> bool:
        """Whether it computes something else on purpose, by this patch or an earlier one."""
        return self.plan.lossy or bool(block_of(self.config).get("lossy"))


def read_facts(folder: Path) -> Facts:
    """Read a variant's facts. Its weights need not be there.

    Raises:
        CheckpointError: the folder holds no variant, or a file of it is damaged.
    """
    if not (folder / PLAN).is_file() or not (folder / "config.json").is_file():
        missing = PLAN if (folder / "config.json").is_file() else "config.json"
        if missing == PLAN and block_of(parse_object(folder / "config.json", (folder / "config.json").read_bytes())):
            raise CheckpointError(
                f"{folder} was saved anew since it was patched, and its plan and certificate did not come along",
                why="What was trained computes something else than the base, which no certificate can speak of",
                remedy="Publish the variant as it was patched, or this folder as any model: `hf upload`",
            )
        raise CheckpointError(
            f"{folder} is no variant",
            why=f"It has no {missing}",
            remedy="Make one with `hf-bias-patch patch MODEL OUT`",
        )
    config = parse_object(folder / "config.json", (folder / "config.json").read_bytes())
    plan = Plan.loads((folder / PLAN).read_bytes(), folder / PLAN)
    certificate = folder / CERTIFICATE
    return Facts(
        name=folder.resolve().name,
        mark=mark_of(folder),
        config=config,
        plan=plan,
        certificate=Certificate.loads(certificate.read_bytes(), certificate) if certificate.is_file() else None,
        base=base_of(folder, config),
        norms=_norms(folder, plan),
        base_card=_front_matter((base_card(folder) or b"").decode("utf-8", "replace")),
        results=tuple(_result(path) for path in sorted((folder / RESULTS).glob("*.json"))),
    )


def _norms(folder: Path, plan: Plan) -> tuple[Norm, ...]:
    """Measured where the old values are at hand, else as they were measured before."""
    if (folder / UNDO).is_file():
        with suppress(CheckpointError):  # it was trained on since, so that the old values cannot be had
            return measure_norms(folder, plan)
    return read_norms(folder / NORMS) if (folder / NORMS).is_file() else ()


def add_results(folder: Path, paths: Iterable[Path]) -> None:
    """Keep scores beside a variant, one file a task; those that were there of the same task go.

    Raises:
        CheckpointError: a file holds no scores, or the folder no variant; nothing is kept.
        TargetError: they cannot be written.
    """
    read_facts(folder)
    found = [_result(path) for path in paths]
    try:
        for result in found:
            (folder / RESULTS).mkdir(exist_ok=True)
            name = re.sub(r"[^\w.-]+", "-", result["task"])[:60].lstrip(".") or "task"
            replace_file(folder / RESULTS / f"{name}.json", (json.dumps(result, indent=2) + "\n").encode())
    except OSError as error:
        raise TargetError(f"{folder / RESULTS} cannot be written", why=error.strerror or str(error)) from error


def _front_matter(card: str) -> dict[str, Any]:
    """The YAML between the first two lines of `---`; empty if there is none, or none that is a mapping.

    Every value is text, or a list of texts; others are left out. So the language `no` stays what it is for the Hub, and
    for PyYAML is not: Norwegian.
    """
    matter = _MATTER.match(card)
    try:
        found = yaml.load(matter[1], yaml.BaseLoader) if matter else None
    except yaml.YAMLError:
        return {}
    if not isinstance(found, dict):
        return {}
    texts = {
        name: [text for text in value if text and isinstance(text, str)] if isinstance(value, list) else value
        for name, value in found.items()
    }
    return {str(name): value for name, value in texts.items() if value and isinstance(value, str | list)}


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
        if (
            not metrics
            or not isinstance(found.get("main_metric", ""), str)
            or not isinstance(found.get("rows", 0), int)
        ):
            raise ValueError
        return result
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"{path} holds no scores", remedy="Write it with `hf-bias-patch evaluate VARIANT --task TASK --json`"
        ) from None
