"""Runs a model on probes and measures how far its outputs are from a reference."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from hf_bias_patch.evidence.double import staying_double
from hf_bias_patch.evidence.outputs import CACHES, INNER_GROUPS, NOTHING, Inner, cached
from hf_bias_patch.models.inputs.multimodal import Given, outputs_of_given
from hf_bias_patch.models.inputs.text import Probe

if TYPE_CHECKING:
    import torch

__all__ = [
    "INNER_GROUPS",
    "AnyProbe",
    "EveryMeter",
    "Inner",
    "Meter",
    "Outputs",
    "RmsMeter",
    "collect",
    "measure",
    "meter_for",
    "outputs_of",
]

Outputs = dict[str, "torch.Tensor"]
"""Output name → values at real (not padded) positions, float64. `hidden_states.3` is the third of its group."""

AnyProbe = Probe | Given


class Meter:
    """The largest error of each output over all probes, relative to the largest value of the reference.

    The largest, not the mean: one wrong head in one place must show. Over all probes together, because the ratio of
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
    """For models of any type: nobody knows which of their outputs is made of which, so that each counts."""

    def main(self) -> float:
        """The largest relative error of any output."""
        return max(self.relative(name) for name in self.errors if name.partition(".")[0] not in INNER_GROUPS)


def meter_for(probes: Sequence[AnyProbe]) -> type[Meter]:
    """Which of the two to compare outputs on these probes with."""
    return EveryMeter if any(isinstance(probe, Given) for probe in probes) else Meter


def collect(model: Any, probes: Sequence[AnyProbe], inner: Inner = NOTHING) -> list[Outputs]:
    """The outputs of a model on every probe, to serve as reference."""
    return [outputs_of(model, probe, inner) for probe in probes]


def measure(model: Any, probes: Sequence[AnyProbe], reference: Sequence[Outputs]) -> Meter:
    """Compare a model with a reference; holds the outputs of one probe at a time.

    An output that one of the two lacks is an infinite error.
    """
    meter = meter_for(probes)()
    for probe, wanted in zip(probes, reference, strict=True):
        found = outputs_of(model, probe)
        for name in dict.fromkeys([*wanted, *found]):
            if name in wanted and name in found:
                meter.add(name, found[name], wanted[name])
            else:
                meter.errors[name], meter.scales[name] = math.inf, meter.scales.get(name, 0.0)
                meter.values.setdefault(name, 0)
    return meter


def outputs_of(model: Any, probe: AnyProbe, inner: Inner = NOTHING) -> Outputs:
    """Run one probe.

    Returns:
        Every floating tensor the model gives out, the last hidden state of each stack, and what `inner` asks for.
    """
    import torch

    look = inner if probe.inner else NOTHING
    if isinstance(probe, Given):
        return outputs_of_given(model, probe, look)
    given = {
        name: value.to(model.dtype) if value.is_floating_point() else value for name, value in probe.inputs.items()
    }
    # Not filled unless asked for: that takes memory, and a few stock models cannot fill one.
    caching = {"use_cache": look.cache} if "use_cache" in inspect.signature(model.forward).parameters else {}
    exactly = staying_double() if model.dtype == torch.float64 else nullcontext()
    with torch.no_grad(), exactly:
        result = model(
            **given,
            **caching,
            output_hidden_states=True,
            output_attentions=look.attentions,
            return_dict=True,
        )
    return {name: _real(values, mask).double() for name, values, mask in _named(result, probe, look)}


def _named(result: Any, probe: Probe, look: Inner) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Names, values with positions in front, and the mask of those positions."""
    import torch

    own = probe.mask if probe.decoder_mask is None else probe.decoder_mask
    for name, value in result.items():
        if name.endswith("hidden_states") and value:
            mask = probe.mask if name.startswith("encoder_") else own
            states = [state for state in value if state is not None]  # LUKE's of entities, where there are none
            if name in ("hidden_states", "decoder_hidden_states"):
                yield "last_hidden_state", states[-1], mask
            if look.hidden_states:
                yield from ((f"hidden_states.{name}.{index}", state, mask) for index, state in enumerate(states))
        elif name.endswith("attentions") and value:
            mask = probe.mask if name.startswith("encoder_") else own
            if look.attentions:
                yield from ((f"attentions.{name}.{index}", w.transpose(1, 2), mask) for index, w in enumerate(value))
        elif name in CACHES:
            if look.cache:
                yield from ((name, kept, own if of == "self" else probe.mask) for name, of, kept in cached(value))
        elif torch.is_tensor(value) and value.is_floating_point() and name != "loss":
            yield name, value, probe.mask if name.startswith("encoder_") else own


def _real(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Values at positions that are no padding; all of them where values are not by position."""
    return values[mask] if values.shape[: mask.ndim] == mask.shape else values
