"""Writes hf_bias_patch/architecture/stock_biases.toml: which biases and layers of a file stock transformers reads.

    python scripts/make_stock_biases.py [--check]

It is measured: a small model of each type that a family covers is built without values, once for each switch of its
config, and its parameters are compared. Three minutes. Run it whenever the version of transformers changes or a family
is added, and make_stock_configs.py after it. `--check` writes nothing and says what differs.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from stock_tables import save, text_of
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

from hf_bias_patch.architecture.condition import lookup
from hf_bias_patch.architecture.family import model_types
from hf_bias_patch.architecture.find import finders
from hf_bias_patch.architecture.resolve import Finder
from hf_bias_patch.architecture.site_maker import site_at
from hf_bias_patch.architecture.sites import PROJECTIONS
from hf_bias_patch.architecture.unread import NEVER, SITE
from hf_bias_patch.family_check.small_models.classes import class_of
from hf_bias_patch.family_check.small_models.config import small_config

HEADER = """\
# Model type = what stock transformers reads; unread.py says what is what.
# Made by scripts/make_stock_biases.py from small models of transformers.
"""
NOT_SWITCHES = ("output_", "return_dict", "use_cache", "tie_", "is_encoder_decoder", "torchscript", "_")
Group = tuple[str, str, str]
"""Path of the config, stack, kind."""


@dataclass(frozen=True)
class Info:
    """What `find_sites` needs of a tensor."""

    shape: tuple[int, ...]
    dtype: str = "F32"


@dataclass(frozen=True)
class Built:
    """A model without values, and what its family finds in it.

    Attributes:
        groups: → slot (`query`, …; `query.norm`, …) → whether the model has its bias.
        types: path of a config → its model type.
        layers: (path, stack) → how many layers it has; of a staged model, a list of them.
    """

    groups: Mapping[Group, Mapping[str, bool]]
    types: Mapping[str, str]
    layers: Mapping[tuple[str, str], int | list[int]]

    def has(self) -> set[tuple[Group, str]]:
        """All biases that it has, and all attention."""
        return {(group, name) for group, slots in self.groups.items() for name in (*slots, SITE) if slots.get(name, 1)}

    def lacks(self, other: Built) -> set[tuple[Group, str]]:
        """What another has and this one does not, where it has the maps or norms that these would be of."""
        sites = {(group, SITE) for group in other.groups.keys() - self.groups.keys()}
        # Of a bias that belongs to no module, none is made up either; a norm may be one that is not read any more.
        there = {group: slots for group, slots in self.groups.items() if group in other.groups}
        biases = (
            (group, name)
            for group, name in other.has()
            if group in there and name != SITE and not there[group].get(name, name.endswith(".norm"))
        )
        return sites | set(biases)


def main() -> int:
    """Write the file, or hold it against the installed transformers."""
    warnings.simplefilter("ignore")
    logging.set_verbosity(logging.CRITICAL)
    alone, inside = {}, {}
    for model_type in sorted(set(model_types()) & set(CONFIG_MAPPING.keys())):
        try:
            with mock.patch("hf_bias_patch.architecture.unread.entry", return_value={}):
                found = measured(model_type)
        except Exception as error:  # of any kind: transformers says no in many ways
            print(f"{model_type}: not built: {type(error).__name__}: {str(error)[:90]}", file=sys.stderr)
            continue
        alone[model_type] = found.pop(CONFIG_MAPPING[model_type].model_type, {})
        inside |= {name: facts for name, facts in found.items() if name not in inside}
    # A part that has no model of its own is measured in another's.
    entries = {name: facts for name, facts in {**inside, **alone}.items() if facts}
    return save("stock_biases", text_of(HEADER, entries))


def measured(model_type: str) -> dict[str, dict[str, Any]]:
    """The entries that a model shows: its own type's, and those of the types inside it."""
    switches, base = widest(model_type)
    biases: dict[tuple[str, str], dict[str, dict[str, None]]] = {}
    for (group, name), key in gone(model_type, switches, base):
        path, stack, kind = group
        if key == NEVER or key.removeprefix("not ").startswith(path):
            facts = biases.setdefault((base.types[path], f"{stack}.{kind}"), {})
            facts.setdefault(key.replace(path, "", 1), {})[name] = None
        else:
            print(f"{model_type}: {key} decides on {path}{stack}.{kind} {name}", file=sys.stderr)
    found: dict[str, dict[str, Any]] = {inner: {} for inner in base.types.values()}
    for (inner, place), facts in sorted(biases.items()):
        written = {key: " ".join(sorted(names)) for key, names in facts.items()}
        found[inner].setdefault("biases", {})[place] = written
    for (path, stack), key in counted(model_type, switches, base):
        found[base.types[path]].setdefault("layers", {})[stack] = key
    return found


def widest(model_type: str) -> tuple[dict[str, Any], Built]:
    """The switches with which a small model has most biases, and that model."""
    switches: dict[str, Any] = {}
    base = build(model_type, switches)
    off = [key for key, value in flags(model_type, {}).items() if value is False]
    crossing = [key for key in off if key.endswith("add_cross_attention")]
    pairs = [{key: True, key.replace("add_cross_attention", "is_decoder"): True} for key in crossing]
    pairs.append({key: True for key in off if key.endswith("bias")})  # of which some classes want all or none
    for change in [*pairs, *({key: other_way(value)} for key, value in flags(model_type, switches).items())]:
        tried = attempt(model_type, {**switches, **change})
        if tried and tried.has() > base.has():
            switches, base = {**switches, **change}, tried
    return switches, base


def gone(model_type: str, switches: dict[str, Any], base: Built) -> Iterator[tuple[tuple[Group, str], str]]:
    """What a model lacks for good, and what it lacks once a switch is turned → that switch."""
    for group, slots in base.groups.items():
        yield from (((group, name), NEVER) for name, there in slots.items() if not there)
    for key, value in flags(model_type, switches).items():
        turned = attempt(model_type, {**switches, key: other_way(value)})
        if turned is None and key.endswith("bias"):
            together = {other: other_way(on) for other, on in flags(model_type, switches).items() if on == value}
            turned = attempt(
                model_type, {**switches, **{other: on for other, on in together.items() if "bias" in other}}
            )
        for lost in sorted(turned.lacks(base)) if turned else ():
            yield lost, key if is_on(value) else f"not {key}"


def counted(model_type: str, switches: dict[str, Any], base: Built) -> Iterator[tuple[tuple[str, str], str]]:
    """(path, stack) → the key that counts its layers."""
    config = small_config(model_type, **switches).to_dict()
    for place, count in base.layers.items():
        path = place[0]
        for key, value in leaves(lookup(config, path[:-1]) if path else config):
            if not count or not counts(value, count):
                continue
            tried = attempt(model_type, {**switches, path + key: one_more(value)})
            if tried and tried.layers.get(place) == one_more(count):
                yield place, key
                break


def counts(value: Any, count: int | list[int]) -> bool:
    """Whether a value of a config may be a count of layers; a list may have one for stages that are not there."""
    if isinstance(count, list):
        return isinstance(value, (list, tuple)) and list(value[: len(count)]) == count
    return type(value) is int and value == count


def one_more(count: Any) -> Any:
    """A count, of a list the first, and one more."""
    return count + 1 if isinstance(count, int) else [count[0] + 1, *count[1:]]


def leaves(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a config and its parts, by keys with dots; its own come first."""
    yield from ((f"{path}{key}", value) for key, value in config.items() if not isinstance(value, Mapping))
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}{key}.")


def flags(model_type: str, switches: dict[str, Any]) -> dict[str, bool | list[bool]]:
    """Every switch of a small config and its parts, by keys with dots; of staged models, also lists of them."""
    values = leaves(small_config(model_type, **switches).to_dict())
    return {
        key: value
        for key, value in values
        if (isinstance(value, bool) or (isinstance(value, list) and value and set(map(type, value)) == {bool}))
        and not key.rpartition(".")[2].startswith(NOT_SWITCHES)
    }


def is_on(value: bool | list[bool]) -> bool:
    return all(value) if isinstance(value, list) else value


def other_way(value: bool | list[bool]) -> bool | list[bool]:
    """A switch turned; of a list, all of them the other way than all are."""
    return [not is_on(value)] * len(value) if isinstance(value, list) else not value


def attempt(model_type: str, switches: dict[str, Any]) -> Built | None:
    """A model with some switches; None where there is no such."""
    try:
        return build(model_type, switches)
    except Exception:  # whatever a class objects to
        return None


def build(model_type: str, switches: dict[str, Any]) -> Built:
    """A model with some switches."""
    config = small_config(model_type, **switches)
    cls = class_of(config)
    with torch.device("meta"):
        model = cls._from_config(config) if hasattr(cls, "_from_config") else cls(config)
    own = {name: Info(tuple(value.shape)) for name, value in model.named_parameters(remove_duplicate=False)}
    groups: dict[Group, dict[str, bool]] = {}
    types, layers = {}, {}
    for finder, outer in finders(config.to_dict(), {**made_up(model), **own}):
        path = finder.part.path
        for attention in finder.attention:
            for number, place in enumerate(finder.there(attention)):
                site = site_at(finder, attention, place, number, outer)
                slots = groups.setdefault((path, attention.stack, attention.kind), {})
                for name in PROJECTIONS:
                    slot = site.slots[name]
                    note(slots, name, slot.bias, own)
                    note(slots, f"{name}.norm", slot.norm and slot.norm.bias, own)
                types[path] = finder.model_type
                layers[path, attention.stack] = depth(finder, next(iter(attention.maps)), own)
    return Built(groups, types, layers)


def note(slots: dict[str, bool], name: str, bias: str | None, own: Mapping[str, Info]) -> None:
    """Note whether a bias is the model's; a model has it if some layer has it."""
    if bias is not None:
        slots[name] = slots.get(name, False) or bias in own


def made_up(model: Any) -> dict[str, Info]:
    """Biases, and norms, that a file may hold whether the model has them or not."""
    found = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None and isinstance(module, torch.nn.LayerNorm):
            found |= dict.fromkeys((f"{name}.weight", f"{name}.bias"), Info(tuple(module.normalized_shape)))
        if isinstance(weight, torch.nn.Parameter) and not isinstance(module, torch.nn.Embedding) and weight.dim():
            out = weight.shape[-1] if type(module).__name__ == "Conv1D" else weight.shape[0]
            found[f"{name}.bias"] = Info((out,))
        joint = getattr(module, "in_proj_weight", None)
        if isinstance(joint, torch.nn.Parameter):
            found[f"{name}.in_proj_bias"] = Info((joint.shape[0],))
    return found


def depth(finder: Finder, module: str, names: Mapping[str, Info]) -> int | list[int]:
    """How many layers a stack has, those without attention among them; of a staged model, in each stage."""
    if "{layer}" not in module:
        return 0
    head = module[: module.index("{layer}")]
    pattern = re.compile(re.escape(finder.prefix + head).replace(r"\{stage\}", r"(?P<stage>\d+)") + r"(?P<layer>\d+)\.")
    found: dict[int, int] = {}
    for match in filter(None, map(pattern.match, names)):
        stage = int(match.groupdict().get("stage") or 0)
        found[stage] = max(found.get(stage, 0), int(match["layer"]) + 1)
    if "{stage}" in head:
        return [found.get(stage, 0) for stage in range(max(found, default=-1) + 1)]
    return found.get(0, 0)


if __name__ == "__main__":
    sys.exit(main())
