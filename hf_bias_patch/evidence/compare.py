"""Runs a model on batches and measures how far its outputs are from a reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_bias_patch.evidence.outputs import INNER_GROUPS, NOTHING, AnyBatch, Inner, Outputs, outputs_of
from hf_bias_patch.models.inputs.multimodal import MultimodalBatch

if TYPE_CHECKING:
    import torch

__all__ = ["EveryMeter", "Meter", "RmsMeter", "collect", "measure", "meter_for"]


class Meter:
    """The largest error of each output over all batches, relative to the largest value of the reference.

    The largest, not the mean: one wrong head in one place must show. Over all batches together, because the ratio of
    two maxima over a few values scatters by more than the tolerance allows.
    """

    def __init__(self) -> None:
        self.errors: dict[str, float] = {}
        self.scales: dict[str, float] = {}
        self.values: dict[str, int] = {}

    def add(self, name: str, values: torch.Tensor, reference: torch.Tensor) -> None:
        """Compare one tensor with its reference, both float64 and of one shape (else the error is infinite)."""
        if values.shape != reference.shape:
            error, scale = math.inf, 0.0
        elif not reference.numel():
            return
        else:
            # Equal infinities are no difference; any NaN is, even where the reference has one too.
            difference = (values - reference).abs().masked_fill(values == reference, 0.0)
            error = self._size(difference.nan_to_num(nan=math.inf, posinf=math.inf))
            scale = self._size(reference.abs().nan_to_num(nan=0.0, posinf=0.0))
        self.errors[name] = max(self.errors.get(name, 0.0), error)
        self.scales[name] = max(self.scales.get(name, 0.0), scale)
        self.values[name] = self.values.get(name, 0) + values.numel()

    @staticmethod
    def _size(magnitudes: torch.Tensor) -> float:
        return float(magnitudes.max())

    def relative(self, name: str) -> float:
        """Largest error of one output over its largest reference value."""
        error, scale = self.errors[name], self.scales[name]
        return error / scale if scale > 0 else (math.inf if error else 0.0)

    def groups(self) -> dict[str, list[str]]:
        """Group → its outputs: the hidden states of all layers are one group, as are all attention weights."""
        groups: dict[str, list[str]] = {}
        for name in self.errors:
            groups.setdefault(name.partition(".")[0], []).append(name)
        return groups

    def main(self) -> float:
        """The largest relative error of what the model is for: its logits, or whatever else its head gives out.

        States between the layers are left aside, and so is the last one, unless it is all there is (a model without a
        head): a state's largest error is another number than that of the logits made of it.
        """
        outer = [group for group in self.groups() if group not in INNER_GROUPS]
        of_head = [group for group in outer if not group.endswith("last_hidden_state")]
        return max(self.worst(group)[0] for group in of_head or outer)

    def worst(self, group: str) -> tuple[float, str]:
        """The largest relative error within a group, and the output that has it."""
        return max((self.relative(name), name) for name in self.groups()[group])


class RmsMeter(Meter):
    """Root mean squares in the place of largest values: for comparing one noise with another.

    The ratio of two largest values is no measure of that: where rounding is amplified it has a longer tail, and
    the ratio hangs on the seed, however large the samples. That of their root mean squares does not.
    """

    @staticmethod
    def _size(magnitudes: torch.Tensor) -> float:
        return float(magnitudes.square().mean().sqrt())


class EveryMeter(Meter):
    """For models of any type: no output is known to be the main one, so the largest error of all counts."""

    def main(self) -> float:
        """The largest relative error of any output."""
        return max(self.relative(name) for name in self.errors if name.partition(".")[0] not in INNER_GROUPS)


def meter_for(batches: Sequence[AnyBatch]) -> type[Meter]:
    """Which of the two to compare outputs on these batches with."""
    return EveryMeter if any(isinstance(batch, MultimodalBatch) for batch in batches) else Meter


def collect(model: Any, batches: Sequence[AnyBatch], inner: Inner = NOTHING) -> list[Outputs]:
    """The outputs of a model on every batch, to serve as reference."""
    return [outputs_of(model, batch, inner) for batch in batches]


def measure(model: Any, batches: Sequence[AnyBatch], reference: Sequence[Outputs]) -> Meter:
    """Compare a model with a reference; holds the outputs of one batch at a time.

    An output that one of the two lacks is an infinite error.
    """
    meter = meter_for(batches)()
    for batch, wanted in zip(batches, reference, strict=True):
        found = outputs_of(model, batch)
        for name in dict.fromkeys([*wanted, *found]):
            if name in wanted and name in found:
                meter.add(name, found[name], wanted[name])
            else:
                meter.errors[name], meter.scales[name] = math.inf, meter.scales.get(name, 0.0)
                meter.values.setdefault(name, 0)
    return meter
