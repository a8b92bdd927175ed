"""Names of a loaded model's parameters in the checkpoint's files, where transformers renames them while loading.

ViT's files say `encoder.layer.0.attention.attention.query`, the model says `layers.0.attention.q_proj`. What tells that
they are one is that their values are: the checkpoint's, bit for bit, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hf_bias_patch.checkpoint.checkpoint import Checkpoint
from hf_bias_patch.checkpoint.dtypes import FLOATS
from hf_bias_patch.probing.origin import Elements
from hf_bias_patch.probing.probe import Finding, Probe
from hf_bias_patch.probing.sites import ProbedSlot
from hf_bias_patch.probing.tags import NormTag

__all__ = ["names_on_disk", "renamed"]

_KINDS = ("weight", "bias")
_SAMPLE = 64
"""Values compared before all are: enough to tell almost any two tensors apart."""


def names_on_disk(model: Any, checkpoint: Checkpoint) -> dict[str, str]:
    """In-memory name → name in the files, of every parameter that could be told.

    Args:
        model: loaded from the checkpoint, in float64, its values unchanged.
        checkpoint: its files.
    """
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    found = {
        name: name
        for name, value in parameters.items()
        if name in checkpoint.tensors and checkpoint.tensors[name].shape == tuple(value.shape)
    }
    left = {name: value for name, value in parameters.items() if name not in found}
    taken = set(found)
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name, info in checkpoint.tensors.items():
        if name not in taken and info.dtype in FLOATS:
            by_shape.setdefault(info.shape, []).append(name)
    for name, value in left.items():
        same = [other for other in by_shape.get(tuple(value.shape), ()) if _equal(value.numpy(), checkpoint, other)]
        if len(same) == 1:
            found[name] = same[0]
    _complete(found, left, checkpoint)
    return found


def renamed(probe: Probe, names: Mapping[str, str], starts: Mapping[str, int] | None = None) -> Probe:
    """A probe in the names of the files; what has none there keeps its own.

    Args:
        probe: in the names that the model has in memory.
        names: in-memory name → name in a file.
        starts: in-memory name → its first row there, where that is not 0.
    """
    findings = (_shifted(finding, (starts or {}).get(finding.parameter, 0)) for finding in probe.findings)
    return replace(probe, findings=tuple(_renamed(finding, names) for finding in findings))


def _shifted(finding: Finding, start: int) -> Finding:
    return replace(finding, indices=tuple(index + start for index in finding.indices)) if start else finding


def _equal(values: np.ndarray, checkpoint: Checkpoint, name: str) -> bool:
    """Whether a tensor of the files has these values. A constant one proves nothing: many tensors are all 0 or 1."""
    shape = checkpoint.tensors[name].shape
    if not shape or math.prod(shape) < 2 or bool((values == values.flat[0]).all()):
        return False
    rows = checkpoint.rows(name, 0, min(shape[0], max(1, _SAMPLE // max(1, math.prod(shape[1:])))))
    if not np.array_equal(rows.astype(np.float64), values[: len(rows)]):
        return False
    return np.array_equal(checkpoint.read(name).astype(np.float64), values)


def _complete(found: dict[str, str], left: Mapping[str, Any], checkpoint: Checkpoint) -> None:
    """A weight that was found tells its bias, and a bias its weight: they are parameters of one module."""
    modules = {
        memory.rpartition(".")[0]: disk.rpartition(".")[0]
        for memory, disk in found.items()
        if memory.rpartition(".")[2] == disk.rpartition(".")[2]
    }
    taken = set(found.values())
    for name, value in left.items():
        module, _, kind = name.rpartition(".")
        other = f"{modules.get(module)}.{kind}"
        if name in found or module not in modules or kind not in _KINDS or other in taken:
            continue
        if other in checkpoint.tensors and checkpoint.tensors[other].shape == tuple(value.shape):
            found[name] = other


def _renamed(finding: Finding, names: Mapping[str, str]) -> Finding:
    norm = finding.norm
    return replace(
        finding,
        parameter=names.get(finding.parameter, finding.parameter),
        norm=norm and _norm(norm, names),
        weight=finding.weight and _elements(finding.weight, names),
        output=finding.output and _slot(finding.output, names),
    )


def _elements(elements: Elements, names: Mapping[str, str]) -> Elements:
    return replace(elements, parameter=names.get(elements.parameter, elements.parameter))


def _norm(norm: NormTag, names: Mapping[str, str]) -> NormTag:
    return replace(norm, weight=names.get(norm.weight, norm.weight), bias=names.get(norm.bias, norm.bias))


def _slot(slot: ProbedSlot, names: Mapping[str, str]) -> ProbedSlot:
    weight = slot.weight and _elements(slot.weight, names)
    return replace(slot, bias=_elements(slot.bias, names), weight=weight)
