"""A plan in few words: its edits by kind, and where they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_bias_patch.patching.plan import Edit, Plan

__all__ = ["by_label", "places", "runs", "stays"]


def by_label(plan: Plan) -> dict[str, list[Edit]]:
    """The edits by what is done, such as `fold key:nothing`."""
    groups: dict[str, list[Edit]] = {}
    for edit in plan.edits:
        groups.setdefault(edit.label, []).append(edit)
    return groups


def places(edits: Sequence[Edit]) -> str:
    """Site names, their layers joined: `encoder self 0-5`."""
    return _joined(edit.site for edit in edits)


def stays(left_out: Mapping[str, str]) -> list[str]:
    """What a recipe leaves out, as lines such as `query at encoder self 0-5: it reads no layer norm`.

    Args:
        left_out: `SITE.PROJECTION` → why.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for slot, reason in left_out.items():
        site, _, projection = slot.rpartition(".")
        groups.setdefault((projection, reason), []).append(site)
    return [f"{projection} at {_joined(sites)}: {reason}" for (projection, reason), sites in groups.items()]


def _joined(sites: Iterable[str]) -> str:
    groups: dict[str, list[int]] = {}
    for site in sites:
        stack, layer, kind = site.split(".")
        groups.setdefault(f"{stack} {kind}", []).append(int(layer))
    return ", ".join(f"{name} {runs(layers)}" for name, layers in groups.items())


def runs(numbers: Iterable[int]) -> str:
    """Numbers in few words: `0-5,7`."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in found)
