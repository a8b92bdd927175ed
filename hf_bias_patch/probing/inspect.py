"""Probes a checkpoint: what the numbers say of each attention bias, beside what the family table says."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_bias_patch.architecture.family import family_of
from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.sites import Site, Slot, Tensor
from hf_bias_patch.checkpoint.pickled import open_any_model
from hf_bias_patch.checkpoint.source import resolve
from hf_bias_patch.errors import BiasPatchError
from hf_bias_patch.models.inputs.random_inputs import accepted_sets
from hf_bias_patch.models.load_for_probe import load_double
from hf_bias_patch.models.names import names_on_disk
from hf_bias_patch.models.run import run_all
from hf_bias_patch.probing.check import Checked, Difference, check
from hf_bias_patch.probing.findings import Finding, Probe, combine, renamed
from hf_bias_patch.probing.moves import require_repeatable
from hf_bias_patch.probing.probe import STILL
from hf_bias_patch.probing.probe import probe as probe_once
from hf_bias_patch.probing.slots import sites_of

__all__ = ["Probed", "ProbedBias", "probe", "probe_model"]

SEEDS = (0, 1)
"""Of inputs and moves: a verdict must hold on all."""


@dataclass(frozen=True)
class ProbedBias:
    """One bias, as table and numbers see it.

    Attributes:
        site: the table's name of the site, or the module path where the table has none.
        slot: the table's; None where it has none.
        finding: the numbers'; None where no run came there.
    """

    site: str
    slot: Slot | None
    finding: Finding | None

    @property
    def projection(self) -> str:
        """The projection that the bias belongs to."""
        found = self.finding or self.slot
        assert found is not None
        return found.projection

    @property
    def parameter(self) -> str:
        """Its name."""
        name = self.finding.parameter if self.finding else self.slot and self.slot.bias
        assert name
        return name

    @property
    def size(self) -> int:
        """How many parameters it has."""
        if self.finding:
            return len(self.finding.indices)
        assert self.slot is not None
        return self.slot.view.size

    @property
    def verdict(self) -> str:
        """The numbers' verdict: `redundant (probed)`, `needed`, `not reached` or `undecided`."""
        state = self.finding.state if self.finding else "not reached"
        return "redundant (probed)" if state == "redundant" else state

    @property
    def exact(self) -> tuple[str, ...]:
        """Destinations into which its fold was tried and is exact."""
        if self.finding is None:
            return ()
        nothing = ("nothing",) if self.finding.state == "redundant" and self.projection == "key" else ()
        return nothing + tuple(destination for destination, why in self.finding.folds.items() if not why)


@dataclass(frozen=True)
class Probed:
    """What a probe of a checkpoint found.

    Attributes:
        model: what the user named.
        model_type: from its config.json.
        family: whose table it was held against; empty if none.
        no_family: why there is none.
        rows: a bias each.
        floor: relative change of the outputs by the last bits of all parameters.
        differences: where table and numbers do not say the same.
        untouched: biases that no op of the runs read; nothing is known of them.
        renamed: parameter name in memory → in the files, where transformers renames while loading. All other names
            here are those of the files.
        memory_only: biases that have no counterpart in the files that could be told, so that no edit can be planned.
        sites: for `plan`, `patch` and `apply`: the table's, where it says `unknown` the numbers' instead, and those
            that only the numbers know.
    """

    model: str
    model_type: str
    family: str
    no_family: str
    rows: tuple[ProbedBias, ...]
    floor: float
    differences: tuple[Difference, ...]
    untouched: tuple[str, ...]
    renamed: dict[str, str]
    memory_only: tuple[str, ...]
    sites: tuple[Site, ...]

    @property
    def wrong(self) -> tuple[Difference, ...]:
        """Where the table promises more than the numbers show: an error of the table, never to be patched by."""
        return tuple(difference for difference in self.differences if difference.kind == "wrong")

    def plain(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "model": self.model,
            "model_type": self.model_type,
            "family": self.family or None,
            "no_family": self.no_family or None,
            "floor": self.floor,
            "biases": [_plain(row) for row in self.rows],
            "disagreements": [vars(difference) for difference in self.wrong],
            "other_differences": [vars(item) for item in self.differences if item not in self.wrong],
            "untouched": list(self.untouched),
            "renamed": self.renamed,
            "memory_only": list(self.memory_only),
        }


def _plain(row: ProbedBias) -> dict[str, Any]:
    table = None if row.slot is None else {"verdict": row.slot.verdict.state, "reason": row.slot.verdict.reason}
    if table is not None and row.slot is not None:
        table["folds"] = row.slot.verdict.folds  # type: ignore[assignment]
    found = row.finding
    return {
        "site": row.site,
        "projection": row.projection,
        "tensor": row.parameter,
        "parameters": row.size,
        "table": table,
        "probe": {
            "verdict": row.verdict,
            "reason": found.reason if found else "no run came there",
            "effect": found.effect if found else None,
            "folds": dict(found.folds) if found else {},
            "exact": list(row.exact),
        },
    }


def probe(model: str | os.PathLike[str], *, revision: str | None = None, trust_remote_code: bool = False) -> Probed:
    """Measure whether each attention bias of a checkpoint is redundant, foldable or needed. Needs no family.

    The model is run in float64 on two sets of random inputs; every bias is moved, every fold tried.

    Args:
        model: a folder, a safetensors file, `embedded:NAME` or a Hub id.
        revision: of a Hub id.
        trust_remote_code: whether Python code that comes with the checkpoint may run.

    Raises:
        SourceError, CheckpointError: as for `inspect`.
        VerifyError: it cannot be loaded or run, does not fit into memory, or is not deterministic.
    """
    source = resolve(model, revision=revision)
    checkpoint = open_any_model(source.path)
    loaded = load_double(checkpoint, source.name, trust_remote_code=trust_remote_code)
    names = names_on_disk(loaded, checkpoint)
    in_memory = probe_model(loaded)
    found = renamed(in_memory, names)
    elsewhere = (one.parameter for one in in_memory.findings if one.parameter not in names)
    table = _table(checkpoint.config, checkpoint.tensors)
    known = () if isinstance(table, str) else table
    checked = check(checkpoint.config, checkpoint.tensors, found) if known else Checked(0, ())
    return Probed(
        model=source.name,
        model_type=str(checkpoint.config.get("model_type")),
        family="" if isinstance(table, str) else family_of(checkpoint.config).name,
        no_family=table if isinstance(table, str) else "",
        rows=_rows(known, found),
        floor=found.floor,
        differences=checked.differences,
        untouched=tuple(name for name in found.untouched if name.endswith("bias")),
        renamed={memory: disk for memory, disk in names.items() if memory != disk},
        memory_only=tuple(dict.fromkeys(elsewhere)),
        sites=sites_of(found, checkpoint.tensors, known),
    )


def probe_model(model: Any, seeds: Sequence[int] = SEEDS) -> Probe:
    """Probe a transformers model on several random inputs.

    Args:
        model: in float64; its parameters are as they were at the end.
        seeds: of inputs and moves.

    Raises:
        VerifyError: no inputs are found that it runs on, or it is not deterministic.
    """
    model.eval()
    probes = []
    for seed in seeds:
        sets = accepted_sets(model, seed)
        for inputs in sets:
            require_repeatable(model, inputs, STILL)
        probes.append(probe_once(model, lambda sets=sets: run_all(model, sets), seed))  # type: ignore[misc]
    return combine(probes)


def _table(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[Site, ...] | str:
    """The table's sites, or why there are none."""
    try:
        return find_sites(config, tensors)
    except BiasPatchError as error:
        return str(BiasPatchError(error.what, error.why))  # the remedy is this very probe


def _rows(table: Sequence[Site], found: Probe) -> tuple[ProbedBias, ...]:
    """The table's slots in its order, each with what was found of it; then what the table has not."""
    left = list(found.findings)
    rows = []
    for site in table:
        for slot in site.slots.values():
            if slot.bias is None or slot.projection == "output":
                continue
            own = set(slot.view.take(np.arange(slot.view.axis)).tolist())
            finding = next((f for f in left if f.parameter == slot.bias and own & set(f.indices)), None)
            if finding is not None and slot.projection == finding.projection:
                left.remove(finding)
            rows.append(ProbedBias(site.name, slot, finding if finding in found.findings else None))
    return (*rows, *(ProbedBias(finding.site, None, finding) for finding in left))
