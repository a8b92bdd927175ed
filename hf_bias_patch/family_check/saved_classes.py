"""Saves each stock class of a model type, and checks that the table finds the same sites in the files as in memory.

Names and shapes only, so that it is cheap: nothing is run.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.sites import Site, Slot, Tensor
from hf_bias_patch.architecture.uncovered import uncovered_biases
from hf_bias_patch.architecture.wrapped import wrapper
from hf_bias_patch.checkpoint.checkpoint import open_checkpoint
from hf_bias_patch.errors import CheckpointError, FamilyError
from hf_bias_patch.family_check.reasons.uncovered import attention_parameters, reason_for
from hf_bias_patch.models.names import FileNames, names_among
from hf_bias_patch.probing.check import Difference

__all__ = ["Saved", "check_saved"]

_WANTED: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "hiera": ({"decoder_hidden_size": 32, "decoder_depth": 1, "decoder_num_heads": 2},),
    "perceiver": ({"num_cross_attention_heads": 1},),
    "reformer": ({"is_decoder": True},),
    "t5gemma": ({"is_encoder_decoder": False},),
    "vilt": ({"num_images": 2},),
}
"""Model type → what some of its classes want of their config."""
_Slots = dict[tuple[str, frozenset[int]], Slot]
"""A tensor of the files, and those of its elements that are one slot's bias → the slot."""


@dataclass
class Saved:
    """What became of the classes of a model type.

    Attributes:
        compared: names of the classes whose files were held against their memory.
        no_family: names of those that no family covers.
        not_built: names of those that transformers cannot make of the small config → what it says.
        differences: where files and memory do not say the same (`wrong`), where the table promises less of the files
            (`missed`), and biases of attention that are at no site, without a reason in `uncovered.toml` (`unseen`).
        explained: the biases, and classes, at no site that have one → the reason.
    """

    compared: set[str] = field(default_factory=set)
    no_family: set[str] = field(default_factory=set)
    not_built: dict[str, str] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    explained: dict[str, str] = field(default_factory=dict)


def check_saved(model_type: str) -> Saved:
    """Save a small random model of each stock class of a type, with its attention biases switched on and as it is by
    default, and read its files.

    Args:
        model_type: of the installed transformers.

    Raises:
        NotBuiltError: there is no small config of this type.
    """
    from hf_bias_patch.family_check.small_models.classes import stock_classes
    from hf_bias_patch.family_check.small_models.model import small_instance

    found = Saved()
    for classes in map(stock_classes, _configs(model_type)):
        for cls, config in classes.items():
            try:
                model = small_instance(cls, copy.deepcopy(config))  # some constructors write into it
            except Exception as error:  # of any kind: transformers says no in many ways
                found.not_built[cls.__name__] = f"{type(error).__name__}: {error}"
            else:
                _check(model, found)
    for name in found.compared | found.no_family:
        found.not_built.pop(name, None)
    return found


def _configs(model_type: str) -> Iterator[Any]:
    """The small config as it is; and with its bias flags on, where it has some and allows that."""
    from hf_bias_patch.family_check.one_type import NotBuiltError, switched_on
    from hf_bias_patch.family_check.small_models.config import small_config

    try:
        plain = small_config(model_type)
    except Exception as error:
        raise NotBuiltError(f"{type(error).__name__}: {str(error).strip()}") from error
    yield plain
    yield from (small_config(model_type, **changes) for changes in _WANTED.get(model_type, ()))
    if flags := switched_on(plain.to_dict()):
        with suppress(Exception):  # a flag that this type forbids: what it says does not matter
            yield small_config(model_type, **flags)


def _check(model: Any, found: Saved) -> None:
    """Hold one model's files against its memory."""
    from hf_bias_patch.patching.in_memory import ModelTensors

    name = type(model).__name__
    config, tensors, stored = _filed(model)
    memory = ModelTensors(model).tensors
    sites: dict[str, tuple[Site, ...]] = {}
    try:
        sites["in memory"] = _sites(model.config.to_dict(), memory)
        sites["in the files"] = _sites(config, tensors)
    except FamilyError:
        found.no_family.add(name)
        return
    found.compared.add(name)
    differences = []
    if prefix := wrapper(config, tensors):
        differences.append(Difference("wrong", name, f"`{prefix}` is a wrapper's", "saved by save_pretrained"))
    names = {where: {site.name for site in found_there} for where, found_there in sites.items()}
    lost = names["in memory"] ^ names["in the files"]
    if lost := lost - _again(model, sites["in memory"], lost):
        differences.append(
            Difference("wrong", name, f"{len(lost)} sites on one side only, {min(lost)} first", "one model")
        )
    differences += _compare(name, _placed(sites["in memory"], stored), _placed(sites["in the files"], None))
    left = dict.fromkeys(uncovered_biases(sites["in memory"], memory), "in memory")
    covered = {slot.bias for site in sites["in memory"] for slot in site.slots.values()}
    left |= {bias: "in memory" for bias in attention_parameters(model) if bias not in covered}
    known = set(stored.names.values())  # of what is in memory too, all has been said
    left |= {bias: "in the files" for bias in uncovered_biases(sites["in the files"], tensors) if bias not in known}
    for bias, where in left.items():
        if reason := reason_for(config, name, bias):
            found.explained[f"{name}: {bias}"] = reason
        else:
            differences.append(Difference("unseen", f"{name}: {bias}", f"at no site {where}", "named as attention's"))
    found.differences += (one for one in differences if one not in found.differences)


def _again(model: Any, sites: tuple[Site, ...], lost: set[str]) -> set[str]:
    """The lost sites whose weights are all those of others (layers that share a module): files hold them once."""
    numbers = {name: id(value) for name, value in model.named_parameters(remove_duplicate=False)}
    weights = {site.name: {numbers[slot.weight] for slot in site.slots.values() if slot.weight} for site in sites}
    kept = set().union(*(weights[name] for name in weights.keys() - lost))
    return {name for name in weights.keys() & lost if weights[name] and weights[name] <= kept}


def _filed(model: Any) -> tuple[Mapping[str, Any], Mapping[str, Tensor], FileNames]:
    """Config and tensors as `save_pretrained` writes them, and where in them each vector of the model is."""
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder, _no_progress():
        model.save_pretrained(folder)
        files = open_checkpoint(folder)
        values = {key: value for path in Path(folder).glob("*.safetensors") for key, value in load_file(path).items()}
        vectors = {name: value.detach() for name, value in model.named_parameters(remove_duplicate=False)}
        both = ({name: one for name, one in each.items() if one.dim() == 1} for each in (vectors, values))
        stored = names_among(*both)
        return files.config, dict(files.tensors), stored


@contextmanager
def _no_progress() -> Iterator[None]:
    """A block in which transformers draws no progress bar."""
    from transformers.utils import logging

    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()


def _sites(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[Site, ...]:
    """The sites; none where the table finds none of its family's."""
    try:
        return find_sites(config, tensors)
    except CheckpointError:
        return ()


def _placed(sites: tuple[Site, ...], stored: FileNames | None) -> _Slots:
    """Slots by where their biases are in the files.

    Args:
        sites: by the names of the files, or by those in memory.
        stored: where the files have what is in memory; None for sites of the files.
    """
    found: _Slots = {}
    for site in sites:
        for slot in site.slots.values():
            if slot.bias is not None:
                start = stored.starts.get(slot.bias, 0) if stored else 0
                name = stored.names.get(slot.bias, slot.bias) if stored else slot.bias
                elements = slot.view.take(np.arange(slot.view.axis)) + start
                found[name, frozenset(elements.tolist())] = slot
    return found


def _compare(name: str, memory: _Slots, files: _Slots) -> Iterator[Difference]:
    for place in {**memory, **files}:
        ours, theirs = memory.get(place), files.get(place)
        label = f"{name}: {place[0]}"
        if ours is None or theirs is None:
            here, slot = ("in memory", ours) if ours else ("in the files", theirs)
            assert slot is not None
            yield Difference("wrong", label, f"{slot.projection} {here} only", "saved by save_pretrained")
            continue
        says = (
            f"{ours.projection}: {ours.verdict.state} in memory, {theirs.projection}: {theirs.verdict.state} in files"
        )
        more = set(theirs.verdict.destinations) - set(ours.verdict.destinations)
        if ours.projection != theirs.projection or more:
            yield Difference("wrong", label, says, "one and the same bias")
        elif ours.verdict.destinations != theirs.verdict.destinations:
            yield Difference("missed", label, says, "one and the same bias")
