"""How a model's modules are called in its files, where that is not as in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from hf_bias_patch.family_check.draft.pattern import numbers

__all__ = ["ModuleNames", "in_file"]


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
