"""Writes a model's card: README.md, and the files beside it that it is made of or shows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_bias_patch.checkpoint.durable import replace_file
from hf_bias_patch.checkpoint.paths import hub_repo
from hf_bias_patch.checkpoint.sidecar import EVAL_RESULTS
from hf_bias_patch.checkpoint.source import place_name
from hf_bias_patch.errors import ArgumentError, TargetError
from hf_bias_patch.patching.base_card import BASE_CARD, CARD, base_card, is_as_made, is_own_card
from hf_bias_patch.patching.record import BASE
from hf_bias_patch.publish.base import BaseRef, dump_base, name_base, source_base
from hf_bias_patch.publish.bias_norms import FIGURE, NORMS, draw_norms, dump_norms
from hf_bias_patch.publish.card_text import card_text
from hf_bias_patch.publish.facts import Facts, read_facts
from hf_bias_patch.publish.proof import refuse_other_weights
from hf_bias_patch.publish.scores import dump_scores, eval_results, own_scores

__all__ = ["Card", "card", "card_files", "draft_card"]


@dataclass(frozen=True)
class Card:
    """The card of a model.

    Attributes:
        path: of README.md.
        text: of the card, front matter first.
        base: that it names.
        unchecked: why the base that was named could not be checked on the Hub; empty if it was, or none was named.
    """

    path: Path
    text: str
    base: BaseRef
    unchecked: str = ""


def card(
    variant: str | os.PathLike[str],
    *,
    base_model: str | None = None,
    forget_base: bool = False,
    results: Iterable[str | os.PathLike[str]] = (),
    overwrite: bool = False,
) -> Card:
    """Write the card of a variant or a fine-tuned model; a card of its base that lies there is kept aside.

    Args:
        variant: a folder.
        base_model: Hub id of the base, `owner/name` or `owner/name@REVISION`, where the variant was made from a local
            copy. It is checked on the Hub where that can be reached, and kept beside the variant.
        forget_base: forget that id: the base is what config.json names.
        results: files of scores to state, as `hf-bias-patch evaluate --json` prints them; kept beside the variant.
        overwrite: whether a card that somebody edited may be replaced.

    Raises:
        ArgumentError: `base_model` is no Hub id, or is given with `forget_base`.
        CheckpointError: the folder holds no variant and no fine-tuned model; its evidence is of other weights than lie
            there; the base is not what the variant was made from; or a file holds no scores of this model.
        SourceError: the Hub has no such base.
        ExtraError: matplotlib is missing.
        TargetError: the card cannot be written, somebody edited it, or the folder belongs to the Hub's cache.
    """
    folder = Path(place_name(variant))
    facts, scores, unchecked = _facts(folder, base_model, forget_base, results)
    _refuse_replacing(folder, overwrite)
    refuse_other_weights(folder, facts)
    files = {name: dump_scores(result) for name, result in scores.items()} | card_files(folder, facts)
    try:
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            replace_file(folder / name, content)
        for name in {BASE, EVAL_RESULTS, NORMS, FIGURE} - set(files):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise TargetError(f"{folder / CARD} cannot be written", why=error.strerror or str(error)) from error
    return Card(folder / CARD, files[CARD].decode(), facts.base, unchecked)


def draft_card(variant: str | os.PathLike[str], **options: Any) -> Card:
    """The card that `card` would write; nothing is written. Options and errors are those of `card`."""
    folder = Path(place_name(variant))
    facts, _, unchecked = _facts(folder, **options)
    return Card(folder / CARD, card_text(facts), facts.base, unchecked)


def card_files(folder: Path, facts: Facts) -> dict[str, bytes]:
    """A card and the files made for it, the card last: name in the folder → content."""
    files = {BASE: dump_base(facts.base)} if facts.base.on_hub else {}
    if (before := base_card(folder)) is not None:
        files[BASE_CARD] = before
    if facts.norms:
        files |= {NORMS: dump_norms(facts.norms), FIGURE: draw_norms(facts.norms)}
    if (scores := eval_results(facts.results.values())) is not None:
        files[EVAL_RESULTS] = scores
    return files | {CARD: card_text(facts).encode()}


def _facts(
    folder: Path,
    base_model: str | None = None,
    forget_base: bool = False,
    results: Iterable[str | os.PathLike[str]] = (),
) -> tuple[Facts, Mapping[str, Mapping[str, Any]], str]:
    """What the card states, the scores of it that are not kept yet, and why its base could not be checked."""
    if base_model and forget_base:
        raise ArgumentError(
            f"The base cannot be set to {base_model} and forgotten in one command", remedy="Leave one of them out"
        )
    facts, unchecked = read_facts(folder), ""
    if base_model:
        base, unchecked = name_base(folder, facts.config, base_model)
        facts = facts.of(base)
    elif forget_base:
        facts = facts.of(source_base(folder, facts.config))
    scores = own_scores(folder, results)
    return replace(facts, results=dict(sorted({**facts.results, **scores}.items()))), scores, unchecked


def _refuse_replacing(folder: Path, overwrite: bool) -> None:
    if hub_repo(folder) is not None:
        raise TargetError(
            f"No card can be written into {folder}",
            why="It belongs to the Hub's cache, which other programs rely on",
            remedy="Copy it to a folder of its own with `hf-bias-patch pull NAME OUT`",
        )
    if not overwrite and is_own_card(folder) and not is_as_made(folder):
        raise TargetError(
            f"Somebody edited {folder / CARD}, and the edits would be lost",
            remedy="Pass --overwrite to replace it, or look at the new one with --print",
        )
