"""The probe on attention of every kind: it says what is so, and a naive edit shows why that matters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from hf_bias_patch.architecture.verdict import BLOCKERS
from hf_bias_patch.errors import VerifyError
from hf_bias_patch.probing.findings import Finding, Probe, combine
from hf_bias_patch.probing.moves import require_repeatable
from hf_bias_patch.probing.probe import probe
from tests.probing import traps
from tests.probing.traps import OF_TRAP, Attention, Model, tokens


def probed(model: nn.Module, seeds: tuple[int, ...] = (0, 1)) -> Probe:
    def run(seed: int) -> Callable[[], dict[str, Tensor]]:
        return lambda: {"out": model(tokens(seed))}

    return combine([probe(model, run(seed), seed) for seed in seeds])


def found(result: Probe) -> dict[str, Finding]:
    """Projection → finding, of the one layer that runs."""
    layer = {finding.projection: finding for finding in result.findings if finding.site.startswith("layer")}
    assert len(layer) == len(result.findings), "a site that does not run was found"
    return layer


@torch.no_grad()
def harm(model: Model, projection: str) -> float:
    """What a naive edit does to the output: the key bias dropped, or the value bias folded into the output's."""
    layer, before = model.layer, model(tokens())
    bias = getattr(layer, projection).bias
    old, output = bias.clone(), layer.output.bias.clone()
    if projection == "value":
        layer.output.bias += layer.output.weight @ bias
    bias.zero_()
    after = model(tokens())
    bias.copy_(old)
    layer.output.bias.copy_(output)
    assert torch.equal(model(tokens()), before)
    return float((after - before).abs().max())


@torch.no_grad()
def harm_of_weights(model: Model) -> float:
    """What it does to the output to put a bias into its own weight, by the norm's constant; the worst of three."""
    layer, before = model.layer, model(tokens())
    inverse = 1 / layer.norm.weight
    moved = []
    for projection in (layer.query, layer.key, layer.value):
        state = {name: value.clone() for name, value in projection.state_dict().items()}
        projection.weight += torch.outer(projection.bias, inverse) / (inverse @ layer.norm.bias)
        projection.bias.zero_()
        moved.append(float((model(tokens()) - before).abs().max()))
        projection.load_state_dict(state)
    assert torch.equal(model(tokens()), before)
    return max(moved)


def test_plain_attention() -> None:
    model = Model(Attention)
    result = probed(model)
    by = found(result)
    assert {name: finding.state for name, finding in by.items()} == {
        "query": "needed",
        "key": "redundant",
        "value": "needed",
    }
    assert by["value"].folds == {"weight": "", "output": ""} and by["key"].folds == by["query"].folds == {"weight": ""}
    assert result.floor < 1e-13 and by["key"].effect < 1e-13 and by["value"].effect > 0.01
    assert harm(model, "key") < 1e-13 and harm(model, "value") < 1e-13
    assert "unused.key.bias" in result.untouched


def closing(road: str, *but: str) -> list[str]:
    return sorted({OF_TRAP[trap].__name__ for trap in OF_TRAP if road in BLOCKERS[trap][1]} - {*but})


# Not among them: a selection, which has a test of its own, and an output projection that reads more than attention. A
# probe finds rightly that the output bias can take that value bias; what goes wrong is the product of all its columns.
KEY_BLOCKERS, VALUE_BLOCKERS = closing("key", "Assigned"), closing("value", "Assigned", "OutputUsed")


def test_every_trap_that_a_family_can_name_has_an_attention() -> None:
    assert set(OF_TRAP) == set(BLOCKERS) - {"not_known"}
    assert BLOCKERS["not_known"][1] == {"key", "value", "weight"}


@pytest.mark.parametrize("trap", OF_TRAP)
def test_a_trap_closes_the_roads_on_which_a_naive_edit_does_harm_and_no_others(trap: str) -> None:
    model, closed = Model(OF_TRAP[trap]), BLOCKERS[trap][1]
    harms = {"key": harm(model, "key"), "value": harm(model, "value"), "weight": harm_of_weights(model)}
    assert {road for road, moved in harms.items() if moved > 1e-3} == closed, harms
    assert all(moved < 1e-12 for road, moved in harms.items() if road not in closed), harms


@pytest.mark.parametrize("trap", KEY_BLOCKERS)
def test_a_key_bias_that_does_not_cancel_is_needed(trap: str) -> None:
    model = Model(getattr(traps, trap))
    key = found(probed(model))["key"]
    assert key.state == "needed" and key.effect > 1e-3
    assert harm(model, "key") > 1e-3


@pytest.mark.parametrize("trap", VALUE_BLOCKERS)
def test_a_value_bias_that_does_not_pass_through_is_not_folded(trap: str) -> None:
    model = Model(getattr(traps, trap))
    value = found(probed(model))["value"]
    assert value.state == "needed" and value.folds["output"]
    assert harm(model, "value") > 1e-3


@pytest.mark.parametrize("trap", ["Gate", "NormAfter", "ValueNorm", "Attention"])
def test_a_key_bias_cancels_whatever_becomes_of_the_values(trap: str) -> None:
    assert found(probed(Model(getattr(traps, trap))))["key"].state == "redundant"


@pytest.mark.parametrize("trap", ["Rotary", "ComplexRotary", "KeyNorm", "Softcap", "Positions"])
def test_a_value_bias_passes_through_whatever_becomes_of_the_keys(trap: str) -> None:
    assert found(probed(Model(getattr(traps, trap))))["value"].folds == {"weight": "", "output": ""}


@pytest.mark.parametrize("trap", sorted({*KEY_BLOCKERS, *VALUE_BLOCKERS} - {"KeyUsed"}))
def test_any_bias_goes_into_its_weight_behind_a_layer_norm(trap: str) -> None:
    by = found(probed(Model(getattr(traps, trap))))
    assert [by[name].folds["weight"] for name in ("query", "key", "value")] == ["", "", ""]


@pytest.mark.parametrize("trap", ["Assigned", "Strongest"])
def test_a_selection_never_makes_a_bias_redundant(trap: str) -> None:
    model = Model(getattr(traps, trap))
    by = found(probed(model))
    assert {by["key"].state, by["query"].state} <= {"needed", "undecided"}
    assert bool(by["value"].folds.get("output", "not tried")) == (trap == "Assigned") == (harm(model, "value") > 1e-3)


def test_uniform_attention_shows_nothing_of_keys() -> None:
    model = Model(Attention)
    nn.init.zeros_(model.layer.query.weight)
    nn.init.zeros_(model.layer.query.bias)
    assert found(probed(model))["key"].state == "not reached"


def test_queries_are_followed_through_pooling() -> None:
    slots = found(probed(Model(traps.Pooled)))
    assert (slots["query"].state, slots["query"].folds) == ("needed", {"weight": ""})
    assert slots["key"].state == "redundant"


def test_torchs_own_attention_is_followed_where_it_hands_out_no_weights() -> None:
    slots = found(probed(Model(traps.OwnOfTorch)))
    states = {name: (slot.parameter, slot.indices[0], slot.state) for name, slot in slots.items()}
    assert states == {
        "query": ("layer.inner.in_proj_bias", 0, "needed"),
        "key": ("layer.inner.in_proj_bias", traps.WIDTH, "redundant"),
        "value": ("layer.inner.in_proj_bias", 2 * traps.WIDTH, "needed"),
    }
    assert slots["value"].folds == {"weight": "", "output": ""}


@pytest.mark.parametrize("trap", ["Attention", "Rotary", "Gate", "Sink"])
def test_zero_biases_get_the_verdict_of_others(trap: str) -> None:
    random, zero = Model(getattr(traps, trap)), Model(getattr(traps, trap))
    for name in ("query", "key", "value", "output"):
        nn.init.zeros_(getattr(zero.layer, name).bias)

    def verdicts(model: Model) -> dict[str, object]:
        by = found(probed(model))
        return {name: (one.state, [into for into, why in one.folds.items() if not why]) for name, one in by.items()}

    assert verdicts(zero) == verdicts(random)


def test_a_norm_without_a_constant_takes_nothing() -> None:
    model = Model(Attention)
    nn.init.zeros_(model.layer.norm.bias)
    assert all("makes no constant" in finding.folds["weight"] for finding in found(probed(model)).values())


def test_what_no_output_shows_is_not_reached() -> None:
    model = Model(Attention)
    nn.init.zeros_(model.layer.output.weight)
    assert {finding.state for finding in found(probed(model)).values()} == {"not reached"}


def test_a_bias_that_only_some_inputs_reach_is_not_redundant() -> None:
    class Sometimes(Model):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x[0, 0, 0] > 0 else self.head(x)

    by = found(probed(Sometimes(Attention), tuple(_one_of_each())))
    assert by["key"].state == "not reached" and by["value"].state == "needed"


def _one_of_each() -> list[int]:
    """A seed whose inputs take the branch, and one whose do not."""
    signs = {bool(tokens(seed)[0, 0, 0] > 0): seed for seed in range(20)}
    return [signs[True], signs[False]]


def test_modules_left_in_training_mode_are_probed_in_evaluation_mode() -> None:
    model = Model(Attention)
    model.layer.drop.p = 0.5
    model.train()
    before = {name: value.clone() for name, value in model.named_parameters()}
    assert found(probed(model))["key"].state == "redundant"
    assert model.layer.drop.training and model.training
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())


@pytest.mark.parametrize("kind", ["dropout", "gumbel"])
def test_a_model_that_is_not_deterministic_is_refused(kind: str) -> None:
    class Random(Attention):
        def weights(self, scores: Tensor) -> Tensor:
            if kind == "gumbel":
                return functional.gumbel_softmax(scores, hard=True)
            return functional.dropout(super().weights(scores), 0.5, training=True)

    with pytest.raises(VerifyError, match=r"not deterministic.*differ by"):
        require_repeatable(Model(Random), {"x": tokens()}, 1e-9)
    require_repeatable(Model(Attention), {"x": tokens()}, 1e-9)


@pytest.mark.parametrize("where", ["parameter", "step"])
def test_a_model_that_gives_nan_is_refused_and_not_called_out_of_reach(where: str) -> None:
    class Hidden(Attention):
        """All keys of the first query are hidden, as behind a mask that is taken for its opposite."""

        def weights(self, scores: Tensor) -> Tensor:
            return super().weights(scores.index_fill(-2, torch.tensor([0]), -torch.inf))

    model = Model(Attention if where == "parameter" else Hidden)
    if where == "parameter":
        model.layer.output.bias.data[3] = torch.nan
    said = {"parameter": "layer.output.bias holds NaN", "step": "parameters are finite"}[where]
    with pytest.raises(VerifyError, match=rf"(?s)Model gives NaN: \d+ of the \d+ values in its output out.*{said}"):
        probed(model)


def test_one_run_in_which_a_bias_moves_the_output_decides() -> None:
    finding = Finding("layer", "key", "layer.key.bias", (0, 1), 1e-16, "redundant", "", {"weight": ""})
    other = Finding("layer", "key", "layer.key.bias", (0, 1), 0.2, "needed", "", {"weight": "tried"})
    joined = combine([Probe((finding,), 1e-15, ()), Probe((other,), 1e-14, ())])
    assert joined.findings[0].state == "needed" and joined.findings[0].effect == 0.2
    assert joined.findings[0].folds == {"weight": "tried"} and joined.floor == 1e-14
    alone = combine([Probe((finding,), 1e-15, ()), Probe((), 1e-15, ())])
    assert alone.findings[0].state == "not reached"
