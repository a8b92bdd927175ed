"""From module names with numbers to a family's patterns: `layers.0.attn.q` and `layers.1.attn.q` are one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["Numbering", "reads_pattern", "wild"]


def wild(name: str) -> str:
    """A module name with `#` for every number."""
    return ".".join("#" if part.isdigit() else part for part in name.split("."))


def numbers(name: str) -> list[int]:
    """The numbers in a module name."""
    return [int(part) for part in name.split(".") if part.isdigit()]


class Numbering:
    """Which numbers in the names of one kind of site count its stages and layers.

    Args:
        names: of one module of each site, the same but for their numbers.

    Attributes:
        places: position of a number in the names → `stage` or `layer`.
        many: whether more numbers vary than a family can say.
    """

    def __init__(self, names: Sequence[str]) -> None:
        rows = [numbers(name) for name in names]
        count = len(rows[0])
        varying = [at for at in range(count) if len({row[at] for row in rows}) > 1]
        self.many = len(varying) > 2
        if not varying and count:  # a single site: its last number is most likely the layer's
            varying = [count - 1]
        self.places = dict(zip(varying[-2:], ("stage", "layer")[-len(varying[-2:]) :], strict=True)) if varying else {}

    def pattern(self, name: str) -> str:
        """A module's name as a family writes it."""
        return _filled(name, {at: "{" + place + "}" for at, place in self.places.items()})

    def of(self, name: str) -> tuple[int, int]:
        """Stage and layer of a site, by the name of its module; 0 where it has none."""
        found = numbers(name)
        at = {place: found[number] for number, place in self.places.items() if number < len(found)}
        return at.get("stage", 0), at.get("layer", 0)


def _filled(name: str, texts: dict[int, str]) -> str:
    parts, at = [], 0
    for part in name.split("."):
        if part.isdigit():
            parts.append(texts.get(at, part))
            at += 1
        else:
            parts.append(part)
    return ".".join(parts)


def reads_pattern(norms: Mapping[tuple[int, int], tuple[str, str]], last: int) -> tuple[str, str] | None:
    """What sites read, as patterns: of all but the first layer, and of that one where it differs (`none` for none).

    Args:
        norms: (stage, layer) → the norm's module, empty where there is none, and the module that reads it.
        last: the encoder's last layer, which a norm of another stack may belong to.

    Returns:
        None where no one pattern says it.
    """
    later = {place: names for place, names in norms.items() if place[1] > 0} or norms
    chosen = _common(later, last)
    if chosen is None:
        return None
    first = {place: names for place, names in norms.items() if place[1] == 0}
    if all(chosen in _patterns(*names, place, last) for place, names in first.items()):
        return chosen, ""
    other = _common(first, last)
    return None if other is None else (chosen, other or "none")


def _common(norms: Mapping[tuple[int, int], tuple[str, str]], last: int) -> str | None:
    """The first pattern that all have in common; empty if none of them has a norm."""
    several = [_patterns(*names, place, last) for place, names in norms.items()]
    return next((pattern for pattern in several[0] if all(pattern in other for other in several)), None)


def _patterns(name: str, reader: str, place: tuple[int, int], last: int) -> list[str]:
    """All patterns that give a norm's name, read at this place, the most telling first."""
    if not name:
        return [""]
    stage, layer = place
    found = [name]
    parts, at = name.split("."), -1
    for end, part in enumerate(parts):
        if not part.isdigit():
            continue
        at += 1
        texts = []
        if wild(".".join(parts[:end])) == wild(".".join(reader.split(".")[:end])):  # of the reader's own stack
            texts += ["{layer}"] if int(part) == layer else []
            texts += ["{before}"] if int(part) == layer - 1 else []
            texts += ["{stage}"] if int(part) == stage and len(numbers(reader)) > 1 else []
        elif int(part) == last:
            texts += ["{last}"]
        found = [_put(pattern, at, text) for text in [*texts, part] for pattern in found]
    return found


def _put(pattern: str, at: int, text: str) -> str:
    """A pattern with its number at a position, counted with those that were replaced, as a text."""
    parts = pattern.split(".")
    places = [place for place, part in enumerate(parts) if part.isdigit() or part.startswith("{")]
    parts[places[at]] = text
    return ".".join(parts)
