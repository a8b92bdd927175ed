"""Which config a site belongs to: the model's own, or that of a tower in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hf_bias_patch.family_check.draft.names import ModuleNames
from hf_bias_patch.family_check.draft.seen import SeenProjection, SeenSite
from hf_bias_patch.models.names import FileNames

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["Owner", "owners"]


@dataclass(frozen=True)
class Owner:
    """A model or tower with a config of its own.

    Attributes:
        key: of its config in the outer one, with dots; empty for the whole model.
        config: its config.
        root: the module that it is; empty for the whole model.
        under: parts of parameter names, one of which all of its parameters have.
        sites: its own, those of towers in it left out; names without what precedes them.
        files: its names in files.
    """

    key: str
    config: PreTrainedConfig
    root: str
    under: tuple[str, ...]
    sites: tuple[SeenSite, ...]
    files: ModuleNames


def owners(model: Any, sites: Sequence[SeenSite], stored: FileNames, headed: FileNames | None = None) -> list[Owner]:
    """The model, and every tower that some module of it is, the outer ones first.

    Args:
        model: a transformers model.
        sites: all its sites.
        stored: where its files hold its parameters.
        headed: where the files of its type's class with a head hold them.
    """
    roots = {key: (root, config) for key, root, config in _roots(model)}
    prefix = _head(model)
    found = []
    for key, (root, config) in roots.items():
        inner = [other for name, (other, _) in roots.items() if name != key and len(other) > len(root)]
        own = [s for s in sites if _in(s.own, root) and not any(_in(s.own, other) for other in inner)]
        before = f"{root}." if root else prefix
        names, starts, file_root = _relative(stored, before)
        more = _relative(headed, _found(before, headed))[0] if headed else {}
        under = (_last(root), *_elsewhere(_last(root), file_root))
        plain = tuple(_without(site, before) for site in own)
        found.append(Owner(key, config, root, under if key else (), plain, ModuleNames(names, starts, more)))
    return found


def _roots(model: Any) -> Iterator[tuple[str, str, Any]]:
    """Key, module and config of the model and of its towers: the outermost module that has a tower's config."""
    yield "", "", model.config
    configs = dict(_configs(model.config, ""))
    for key, config in configs.items():
        modules = (name for name, module in model.named_modules() if name and getattr(module, "config", None) is config)
        roots = [name for name in modules if any(True for _ in model.get_submodule(name).parameters())]
        if roots:
            yield key, min(roots, key=lambda name: name.count(".")), config


def _configs(config: Any, path: str) -> Iterator[tuple[str, Any]]:
    from transformers import PreTrainedConfig

    for key, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            yield path + key, value
            yield from _configs(value, f"{path}{key}.")


def _head(model: Any) -> str:
    """What a class with a head puts before the names of its base model."""
    prefix = f"{model.base_model_prefix}." if getattr(model, "base_model_prefix", "") else ""
    has_base = prefix and any(name.startswith(prefix) for name, _ in model.named_parameters())
    return prefix if has_base and getattr(model, "base_model", model) is not model else ""


def _in(name: str, root: str) -> bool:
    return not root or name.startswith(f"{root}.")


def _last(path: str) -> str:
    """The last part of a path that is no number."""
    return next((part for part in reversed(path.removesuffix(".").split(".")) if part and not part.isdigit()), "")


def _elsewhere(part: str, file_root: str) -> list[str]:
    """What tells a tower's names in the files, where they lack the part that tells them in memory."""
    parts = file_root.split(".")[:-1]
    return [] if part in parts else [one for one in parts if one != "model"][:1]


def _relative(stored: FileNames, before: str) -> tuple[dict[str, str], dict[str, int], str]:
    """Names and starts below a prefix, and the prefix that they have in the files."""
    names = {name: other for name, other in stored.names.items() if name.startswith(before)}
    same = all(other.startswith(before) for other in names.values())
    common = before if same else _common_prefix(list(names.values()))
    return (
        {name.removeprefix(before): other.removeprefix(common) for name, other in names.items()},
        {name.removeprefix(before): row for name, row in stored.starts.items() if name.startswith(before)},
        common,
    )


def _found(before: str, headed: FileNames) -> str:
    """What precedes the same names under a head: one more part, where there is one."""
    firsts = dict.fromkeys(f"{name.split('.')[0]}." for name in headed.names)
    ways = [before, *(first + before for first in firsts)]
    return max(ways, key=lambda way: (sum(name.startswith(way) for name in headed.names) if way else 0, way == before))


def _common_prefix(names: list[str]) -> str:
    """The parts that all names begin with, with the dot behind them."""
    shared = []
    for parts in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1 or parts[0].isdigit():
            break
        shared.append(parts[0])
    return ".".join([*shared, ""]) if shared else ""


def _without(site: SeenSite, before: str) -> SeenSite:
    """A site whose names leave out what precedes them; a norm outside of that is none."""

    def part(old: SeenProjection) -> SeenProjection:
        names = (old.module, old.bias, "" if outside(old) else old.reads)
        module, bias, reads = (name.removeprefix(before) for name in names)
        return replace(old, module=module, bias=bias, reads=reads)

    def outside(one: SeenProjection) -> bool:
        return bool(one.reads) and one.module.startswith(before) and not one.reads.startswith(before)

    doubt = "it reads the last norm of another tower (`memory` of a tower says that)"
    return replace(
        site,
        parts={name: part(old) for name, old in site.parts.items()},
        doubts=(*site.doubts, *([doubt] if any(map(outside, site.parts.values())) else [])),
    )
