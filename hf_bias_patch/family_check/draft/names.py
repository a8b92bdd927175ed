"""Names of modules, in memory and in files, as a family's patterns: `layers.0.attn.q` and `layers.1.attn.q` are one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["ModuleNames", "Numbering", "in_file", "reads_pattern", "wild"]


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


@dataclass(frozen=True)
class ModuleNames:
    """Names in the files. Both sides leave out what precedes all names of the model or tower.

    Attributes:
        names: parameter in memory → in the files.
        starts: parameter in memory → its first row in a tensor of the files that holds others, too.
        headed: parameter in memory → in the files of a class with a head, whose names may differ once more.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    starts: Mapping[str, int] = field(default_factory=dict)
    headed: Mapping[str, str] = field(default_factory=dict)

    def name(self, module: str, pattern: Callable[[str], str]) -> str:
        """A module's pattern, that of the files behind it with `|` between them if it is another."""
        others = [other for names in (self.names, self.headed) if (other := in_file(module, names))]
        return "|".join(dict.fromkeys(map(pattern, [module, *others])))

    def alike(self, module: str, pattern: str) -> str:
        """A pattern of a module's name in memory, and the same of its names in the files."""
        found = [pattern]
        for names in (self.names, self.headed):
            other = in_file(module, names)
            if other and len(numbers(other)) == len(numbers(module)):
                texts = iter([part for part in pattern.split(".") if part.isdigit() or part.startswith("{")])
                found.append(".".join(next(texts) if part.isdigit() else part for part in other.split(".")))
        return "|".join(dict.fromkeys(found))

    def fuses(self, modules: Iterable[str]) -> bool:
        """Whether the files have some of these maps in one tensor with others."""
        return any(self._is_fused(module) for module in modules)

    def fused(self, maps: Mapping[str, list[str]], pattern: Callable[[str], str]) -> dict[str, list[str]]:
        """Maps as the files have them, some of them together."""
        found: dict[str, list[tuple[int, str]]] = {}
        for module, made in maps.items():
            start = next((self.starts[name] for name in _parameters(module) if name in self.starts), 0)
            name = pattern(in_file(module, self.names) or module)
            found.setdefault(name, []).extend((start, projection) for projection in made)
        return {name: [projection for _, projection in sorted(made)] for name, made in found.items()}

    def _is_fused(self, module: str) -> bool:
        return any(name in self.starts for name in _parameters(module))


def in_file(module: str, names: Mapping[str, str]) -> str:
    """A module's name in the files; empty if none of its parameters is there."""
    stored = next((names[name] for name in _parameters(module) if name in names), "")
    stem = stored.removesuffix("weight").removesuffix("bias")
    return stem.removesuffix(".")


def _parameters(module: str) -> tuple[str, ...]:
    joint = "" if module.endswith("_") else "."
    return tuple(f"{module}{joint}{kind}" for kind in ("weight", "bias"))
