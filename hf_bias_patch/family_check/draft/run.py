"""Drafts the family of a model type, and holds the draft against the numbers at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hf_bias_patch.architecture.condition import lookup
from hf_bias_patch.architecture.family import is_known
from hf_bias_patch.family_check.draft.config_keys import heads_key
from hf_bias_patch.family_check.draft.family_file import family_text, same_as, stacks
from hf_bias_patch.family_check.draft.group import SiteKind, group
from hf_bias_patch.family_check.draft.model import SeenModel, look_at
from hf_bias_patch.family_check.draft.owners import Owner
from hf_bias_patch.family_check.draft.vary import VariedModel, entries
from hf_bias_patch.family_check.one_type import changes_of_type, config_of_type, switched_on
from hf_bias_patch.family_check.small_models.config import small_config
from hf_bias_patch.family_check.variations import Change

__all__ = ["Draft", "changes_to_try", "draft"]

_RANKS = ("q_lora_rank",)
"""Sizes that may be None: then another map makes the queries."""


@dataclass(frozen=True)
class Draft:
    """A family file for one model type, as a small model shows it.

    Attributes:
        model_type: which.
        text: the file; empty if nothing could be drafted. A type without attention has a file that says no more.
        joins: the existing family that says the same; empty if none does.
        look: what a person must look at, a sentence each.
    """

    model_type: str
    text: str
    joins: str
    look: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its file, without `.toml`."""
        return self.joins or self.model_type.replace("-", "_").replace(".", "_")


def draft(model_type: str, vary: bool = True) -> tuple[Draft, ...]:
    """Draft a type, and with it the types of its towers that have no family and cannot be built by themselves.

    Args:
        model_type: of the installed transformers.
        vary: whether to look at its model with each config value changed, too: without it, no condition is found.

    Raises:
        NotBuiltError, FamilyError, VerifyError: no small model of it can be built or run.
    """
    default = look_at(model_type)
    looks, untold = _varied(model_type) if vary else ([], [])
    flags = [
        key for key, on in switched_on(small_config(model_type).to_dict()).items() if lookup(default.config, key) is on
    ]
    untold += [f"off by default, and on in the draft: {', '.join(flags)}"] if flags else []
    found = []
    for owner in default.owners:
        if owner.key and not _is_new(owner):
            continue
        own = [(change, other) for change, look in looks if (other := _own(owner, change, look))]
        found.append(_draft(owner, default, own, () if owner.key else tuple(untold)))
    return tuple(found)


def _varied(model_type: str) -> tuple[list[tuple[Change, SeenModel]], list[str]]:
    found, untold = [], []
    for change in changes_to_try(model_type):
        try:
            found.append((change, look_at(model_type, {change.key: change.value})))
        except Exception as error:  # whatever a model says to a config that it cannot have
            untold.append(f"untested: {change} ({' '.join(str(error).split())[:120]})")
    return found, untold


def changes_to_try(model_type: str) -> tuple[Change, ...]:
    """The changes of a type's config that are worth a look: those that a check makes, and queries without a low rank.

    Raises:
        NotBuiltError: there is no such config.
    """
    ranks = [key for key in config_of_type(model_type).to_dict() if key in _RANKS]
    return (*changes_of_type(model_type), *(Change(key, None) for key in ranks))


def _is_new(owner: Owner) -> bool:
    """Whether a tower's type has no family and no model of its own to draft it from."""
    from hf_bias_patch.family_check.small_models.config import model_types

    return bool(owner.sites) and not is_known(owner.config.model_type) and owner.config.model_type not in model_types()


def _own(owner: Owner, change: Change, look: SeenModel) -> tuple[Change, Owner, SeenModel] | None:
    """The same owner in another look, if the change is one of its own config."""
    inside = [each for each in look.owners if not each.key or change.key.startswith(f"{each.key}.")]
    other = max(inside, key=lambda each: len(each.key))
    if other.key != owner.key:
        return None
    return Change(change.key.removeprefix(f"{owner.key}." if owner.key else ""), change.value), other, look


def _draft(
    owner: Owner,
    look: SeenModel,
    varied: Sequence[tuple[Change, tuple[Change, Owner, SeenModel]]],
    untold: tuple[str, ...],
) -> Draft:
    config, model_type = owner.config.to_dict(), str(owner.config.model_type)
    groups, doubts = group(owner.sites, owner.files, config)
    varied_models = []
    for _, (change, other, seen) in varied:
        others, lost = group(other.sites, other.files, other.config.to_dict())
        varied_models.append(VariedModel(change, tuple(others), seen.parameters))
        doubts += [f"with {change}: {one}" for one in lost if one not in doubts]
    if not owner.key:
        groups, unsure = _told_apart(model_type, groups, config)
        doubts += unsure
    tables, more = entries(groups, look.parameters, varied_models, config)
    facts, uncounted = stacks([*groups, *(g for v in varied_models for g in v.groups)], config)
    towers = {} if owner.key else _towers(look)
    body: dict[str, Any] = {"towers": towers, "stacks": facts, "attention": tables}
    told = [*doubts, *(d for one in groups for d in one.doubts), *more, *uncounted]
    told += [*_vanished(groups, varied_models), *_seen_nothing_of(owner, look), *untold]
    if not tables and not towers and (look.named or look.left_out):
        told.insert(0, f"its attention could not be followed ({', '.join(look.named[:3])}): write its family by hand")
        return Draft(model_type, "", "", tuple(dict.fromkeys(told)))
    text = family_text([model_type], {key: value for key, value in body.items() if value})
    same = same_as(text)
    return Draft(model_type, text, same.name if same else "", tuple(dict.fromkeys(told)))


def _told_apart(model_type: str, groups: list[SiteKind], config: dict[str, Any]) -> tuple[list[SiteKind], list[str]]:
    """Groups whose fused map may be ordered in several ways, with those left that fit other head counts as well."""
    found, doubts = [], []
    for one in groups:
        left = one.orders
        key = heads_key(config, one.heads, one.stack) if len(left) > 1 else ""
        with suppress(Exception):  # a config may forbid that many heads
            look = look_at(model_type, {key: 2 * one.heads}) if key else None
            others = group(look.owners[0].sites, look.owners[0].files, look.config)[0] if look else []
            other = next((other for other in others if other.key == one.key), None)
            left = tuple(order for order in left if other is None or order in other.orders) or left
        if len(left) > 1:
            names = " and ".join(f"{order.name} {list(order.projections)}" for order in left)
            doubts.append(f"{one.stack} {one.kind}: its map of several projections may be {names} alike: look it up")
        found.append(one.ordered(left))
    return found, doubts


def _towers(look: SeenModel) -> dict[str, dict[str, Any]]:
    """The towers of a model, one level deep: those in them belong to their own families."""
    found = {}
    for owner in look.owners:
        if owner.key and "." not in owner.key and owner.config.model_type:
            name = owner.key.removesuffix("_config").removesuffix("_encoder") or owner.key
            found[name] = {"config": owner.key, "under": list(owner.under), "model_type": owner.config.model_type}
    return found


def _vanished(groups: Sequence[Any], varied_models: Sequence[VariedModel]) -> Iterator[str]:
    for varied in varied_models:
        gone = [one for one in groups if one.key not in [other.key for other in varied.groups]]
        if gone and not varied.groups:
            yield f"with {varied.change} no attention was seen"


def _seen_nothing_of(owner: Owner, look: SeenModel) -> Iterator[str]:
    """What the run did not reach, and what it needed biases for that the class has not."""
    before = f"{owner.root}." if owner.root else ""
    unread = [name for name in look.unread if name.startswith(before)]
    if unread and not owner.key:
        shown = ", ".join(unread[:6]) + (f" and {len(unread) - 6} more" if len(unread) > 6 else "")
        yield f"not reached by the probe's inputs: {shown}"
    if not owner.key:
        yield from (f"left out: {text}" for text in look.left_out)
    given = [name for name in look.given if name.startswith(before)]
    if given:
        yield f"its class has no bias there, and the draft gave it one: {given[0]}" + (
            f" and {len(given) - 1} more" if len(given) > 1 else ""
        )
