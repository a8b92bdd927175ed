"""Looks at a checkpoint: its attention sites, the size of each bias, its verdict. Reads headers and biases only."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from hf_bias_patch.architecture.family import family_of
from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.model_type import with_model_type
from hf_bias_patch.architecture.sites import PROJECTIONS, Site, Slot
from hf_bias_patch.architecture.uncovered import uncovered_biases
from hf_bias_patch.architecture.unread_biases import unread_biases
from hf_bias_patch.architecture.wrapped import refuse_wrapped
from hf_bias_patch.checkpoint.checkpoint import Checkpoint
from hf_bias_patch.checkpoint.dtypes import FLOATS, numpy_dtype
from hf_bias_patch.checkpoint.quantised import quantised
from hf_bias_patch.checkpoint.remote import open_anywhere
from hf_bias_patch.errors import CheckpointError

__all__ = ["BiasValues", "Inspection", "inspect"]


@dataclass(frozen=True)
class BiasValues:
    """What one bias holds.

    Attributes:
        dtype: its storage dtype, such as `F32`.
        parameters: how many it has.
        nbytes: bytes they take.
        norm: Euclidean norm.
        head_norms: Euclidean norm per head (per key-value head for key and value); empty for the output bias.
        not_finite: how many of them are NaN or infinite; norms over such are NaN or infinite too.
    """

    dtype: str
    parameters: int
    nbytes: int
    norm: float
    head_norms: tuple[float, ...]
    not_finite: int = 0


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint has.

    Attributes:
        model: what the user named.
        model_type: from its config.json, or as it was given.
        family: whose facts the verdicts rest on.
        sites: its attention sites.
        values: (site name, projection) → what the bias holds; absent biases are not in it.
        parameters, nbytes: of the whole checkpoint.
        commit: of a model on the Hub, or in its cache; None for any other place.
        received: bytes that came over the network; 0 for what is on this machine.
        quantised: what says that weights are quantised, as a sentence; empty if nothing does. Such a checkpoint cannot
            be verified.
        uncovered: names of the tensors that look like attention biases and belong to none of the sites; they are not
            among `values`.
        unread: attention bias of the files that stock transformers does not read → why. It is no part of the model.
    """

    model: str
    model_type: str
    family: str
    sites: tuple[Site, ...]
    values: Mapping[tuple[str, str], BiasValues]
    parameters: int
    nbytes: int
    commit: str | None = None
    received: int = 0
    quantised: str = ""
    uncovered: tuple[str, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)

    @property
    def bias_parameters(self) -> int:
        """Parameters of all attention biases together."""
        return sum(values.parameters for values in self.values.values())

    @property
    def bias_nbytes(self) -> int:
        """Bytes of all attention biases together."""
        return sum(values.nbytes for values in self.values.values())

    def verdicts(self) -> dict[str, int]:
        """Verdict → parameters of the biases with it; absent ones left out."""
        counts: dict[str, int] = {}
        for site in self.sites:
            for projection, slot in site.slots.items():
                if slot.bias is not None:
                    size = self.values[site.name, projection].parameters
                    counts[slot.verdict.state] = counts.get(slot.verdict.state, 0) + size
        return counts

    def plain(self) -> dict[str, Any]:
        """Everything as strict JSON values: a norm that is NaN or infinite is None."""
        return {
            "model": self.model,
            "commit": self.commit,
            "model_type": self.model_type,
            "family": self.family,
            "parameters": self.parameters,
            "bytes": self.nbytes,
            "bytes_received": self.received,
            "bias_parameters": self.bias_parameters,
            "bias_bytes": self.bias_nbytes,
            "verdicts": self.verdicts(),
            "quantised": self.quantised,
            "unread": dict(self.unread),
            "sites": [self._plain_site(site) for site in self.sites],
            "uncovered": list(self.uncovered),
        }

    def _plain_site(self, site: Site) -> dict[str, Any]:
        biases = {name: self._plain_slot(site, slot) for name, slot in site.slots.items()}
        place = {"site": site.name, "stack": site.stack, "layer": site.layer, "kind": site.kind, "heads": site.heads}
        return place | {"biases": biases}

    def _plain_slot(self, site: Site, slot: Slot) -> dict[str, Any]:
        entry: dict[str, Any] = {"verdict": slot.verdict.state, "reason": slot.verdict.reason}
        if slot.bias is None:
            return entry
        values = self.values[site.name, slot.projection]
        return entry | {
            "folds": [
                {"destination": destination, "exact": not refusal, "reason": refusal}
                for destination, refusal in slot.verdict.folds.items()
            ],
            "tensor": slot.bias,
            "dtype": values.dtype,
            "parameters": values.parameters,
            "not_finite": values.not_finite,
            "norm": _number(values.norm),
            "head_norms": [_number(norm) for norm in values.head_norms],
        }


def _number(value: float) -> float | None:
    """A number as JSON has it, which knows neither NaN nor infinity."""
    return value if math.isfinite(value) else None


def inspect(model: str | os.PathLike[str], *, revision: str | None = None, model_type: str | None = None) -> Inspection:
    """Inspect a checkpoint without loading it; one on the Hub, without downloading it.

    Args:
        model: a folder, a safetensors file, `embedded:NAME` or a Hub id (`owner/name@REVISION`).
        revision: of a Hub id that names none.
        model_type: such as `bert`, for a config.json that names none.

    Raises:
        SourceError, CheckpointError, FamilyError: see their docstrings; all name the file or tensor.
    """
    name, commit, checkpoint = open_anywhere(model, revision=revision)
    config = with_model_type(checkpoint.config, model_type)
    refuse_wrapped(config, checkpoint.tensors)
    sites = find_sites(config, checkpoint.tensors)
    unread = unread_biases(config, checkpoint.tensors)
    packed = quantised(config, checkpoint.tensors)
    return Inspection(
        model=name,
        model_type=config["model_type"],
        family=family_of(config).name,
        sites=sites,
        values=_values(checkpoint, sites),
        parameters=checkpoint.parameters,
        nbytes=checkpoint.nbytes,
        commit=commit,
        received=checkpoint.received,
        quantised=packed.what if packed else "",
        uncovered=tuple(name for name in uncovered_biases(sites, checkpoint.tensors) if name not in unread),
        unread=unread,
    )


def _values(checkpoint: Checkpoint, sites: tuple[Site, ...]) -> dict[tuple[str, str], BiasValues]:
    checkpoint.prepare(slot.bias for site in sites for slot in site.slots.values() if slot.bias is not None)
    read = cache(lambda name: _bias(checkpoint, name))
    return {
        (site.name, projection): _measure(checkpoint, site, slot, read(slot.bias))
        for site in sites
        for projection in PROJECTIONS
        if (slot := site.slots[projection]).bias is not None
    }


def _bias(checkpoint: Checkpoint, name: str) -> np.ndarray:
    info = checkpoint.tensors[name]
    if info.dtype not in FLOATS:
        raise CheckpointError(f"Bias {name} is stored as {info.dtype}", why=f"Biases are one of {', '.join(FLOATS)}")
    with np.errstate(invalid="ignore"):  # NaN and infinities are counted, and said so
        return checkpoint.read(name).astype(np.float64)


def _measure(checkpoint: Checkpoint, site: Site, slot: Slot, bias: np.ndarray) -> BiasValues:
    assert slot.bias is not None
    own = slot.view.take(bias)
    heads = 0 if slot.projection == "output" else site.kv_heads if slot.projection != "query" else site.heads
    # Where the family does not cover a config (pruned heads), the sizes of heads are not known.
    per_head = np.linalg.norm(own.reshape(heads, -1), axis=1) if heads and own.size % heads == 0 else np.empty(0)
    dtype = checkpoint.tensors[slot.bias].dtype
    return BiasValues(
        dtype=dtype,
        parameters=own.size,
        nbytes=own.size * numpy_dtype(dtype).itemsize,
        norm=float(np.linalg.norm(own)),
        head_norms=tuple(map(float, per_head)),
        not_finite=int(np.count_nonzero(~np.isfinite(own))),
    )
