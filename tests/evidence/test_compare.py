"""Measuring: NaN and shapes never pass, padding never counts, every stack is looked at."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from hf_bias_patch.evidence.compare import Meter, RmsMeter, collect, measure
from hf_bias_patch.evidence.outputs import Inner, outputs_of
from hf_bias_patch.models.inputs.text import TextFormat, text_batches
from tests.models import NAMES, fresh

ALL = Inner(hidden_states=True, attentions=True, cache=True)


def metered(values: list[float], reference: list[float]) -> float:
    meter = Meter()
    meter.add("x", torch.tensor(values, dtype=torch.float64), torch.tensor(reference, dtype=torch.float64))
    return meter.relative("x")


def test_error_is_relative_to_the_largest_reference_value() -> None:
    assert metered([1.0, 8.0], [1.5, 8.0]) == 0.5 / 8.0
    assert metered([0.0], [0.0]) == 0.0
    assert metered([1e-300], [0.0]) == math.inf


@pytest.mark.parametrize(
    ("values", "reference"),
    [
        ([math.nan, 1.0], [1.0, 1.0]),
        ([1.0, 1.0], [math.nan, 1.0]),
        ([math.nan, 1.0], [math.nan, 1.0]),
        ([math.inf, 1.0], [1.0, 1.0]),
        ([-math.inf, 1.0], [math.inf, 1.0]),
        ([1.0], [1.0, 1.0]),
    ],
)
def test_what_cannot_be_compared_is_infinitely_wrong(values: list[float], reference: list[float]) -> None:
    assert metered(values, reference) == math.inf


def test_equal_infinities_are_equal() -> None:
    assert metered([-math.inf, 2.0], [-math.inf, 2.0]) == 0.0


def test_errors_of_all_probes_share_one_scale() -> None:
    meter = Meter()
    for value, reference in ((1.0, 1.5), (100.0, 100.0)):
        meter.add("hidden_states.x.0", torch.tensor([value]), torch.tensor([reference]))
    meter.add("hidden_states.x.1", torch.tensor([4.0]), torch.tensor([3.0]))
    assert meter.worst("hidden_states") == (1 / 3, "hidden_states.x.1")
    assert meter.relative("hidden_states.x.0") == 0.005 and meter.values["hidden_states.x.0"] == 2


@pytest.mark.parametrize("name", NAMES)
def test_padding_is_left_out_everywhere(name: str) -> None:
    """Other ids and masks of nothing at padded positions must change no number that is compared."""
    model = fresh(name)
    checked = 0
    for probe in text_batches(TextFormat.of(model), [], seed=0):
        if probe.mask.all():
            continue
        ids = probe.inputs["input_ids"].clone()
        ids[~probe.mask] = 17
        poisoned = replace(probe, inputs=probe.inputs | {"input_ids": ids})
        first, second = outputs_of(model, probe, ALL), outputs_of(model, poisoned, ALL)
        assert first.keys() == second.keys()
        for output, values in first.items():
            assert torch.allclose(values, second[output], rtol=0, atol=1e-12), output
            checked += values.numel()
    assert checked > 10_000, "vacuous"


def test_both_stacks_are_looked_at() -> None:
    model = fresh("bart")
    probe = next(probe for probe in text_batches(TextFormat.of(model), [], seed=0) if probe.inner)
    names = set(outputs_of(model, probe, ALL))
    assert {"logits", "last_hidden_state", "encoder_last_hidden_state"} <= names
    for stack in ("encoder_hidden_states", "decoder_hidden_states"):
        assert f"hidden_states.{stack}.1" in names
    for stack in ("encoder_attentions", "decoder_attentions", "cross_attentions"):
        assert f"attentions.{stack}.1" in names
    assert {"cache.self.0.keys", "cache.cross.0.values"} <= names


def test_an_output_without_counterpart_is_infinitely_wrong() -> None:
    model = fresh("gpt2")
    probes = text_batches(TextFormat.of(model), [], seed=0)[:1]
    reference = collect(model, probes)
    reference[0]["another"] = torch.ones(3)
    meter = measure(model, probes, reference)
    assert meter.relative("another") == math.inf and meter.values["another"] == 0
    assert meter.relative("logits") == 0


def test_what_a_model_is_for_is_what_its_head_gives_out() -> None:
    """A last hidden state may be off by much more than the logits made of it, and is not called logits."""
    meter = Meter()
    one = torch.ones(4, dtype=torch.float64)
    for name, off in (("hidden_states.1", 0.9), ("last_hidden_state", 0.5), ("encoder_last_hidden_state", 0.4)):
        meter.add(name, one + off, one)
    assert meter.main() == 0.5, "a model without a head gives out its last hidden states"
    meter.add("logits", one + 0.25, one)
    assert meter.main() == 0.25


def test_root_mean_squares() -> None:
    meter = RmsMeter()
    reference = torch.tensor([3.0, -4.0, 0.0, 0.0], dtype=torch.float64)
    meter.add("x", reference + torch.tensor([1.0, -1.0, 1.0, -1.0]), reference)
    assert meter.errors["x"] == 1 and meter.scales["x"] == 2.5 and meter.relative("x") == 0.4
    for bad in (math.nan, math.inf):
        meter = RmsMeter()
        meter.add("x", torch.tensor([bad, 4.0], dtype=torch.float64), torch.tensor([3.0, 4.0], dtype=torch.float64))
        assert meter.relative("x") == math.inf
