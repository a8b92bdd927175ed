"""A plan is all decisions: what is selected, where each bias goes, what it costs; and every refusal, by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hf_bias_patch
from hf_bias_patch.errors import CheckpointError, PlanError, RecipeError
from hf_bias_patch.patching.algebra import witness
from hf_bias_patch.patching.in_memory import apply
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.recipe import make_recipe
from tests.models import NAMES, fresh

Saved = Callable[..., Path]


def plan(folder: Path, **fields: Any) -> Plan:
    return hf_bias_patch.plan(folder, **fields)


def labels(made: Plan) -> list[str]:
    return [f"{edit.site} {edit.label}" for edit in made.edits]


class TestSelection:
    def test_everything_in_the_order_of_sites(self, saved: Saved) -> None:
        made = plan(saved("gpt2"), fold="key,value", drop="query", freeze="output")
        expected = ["fold key:nothing", "fold value:output", "drop query", "freeze output"]
        assert labels(made) == [f"decoder.{layer}.self {action}" for layer in range(3) for action in expected]

    @pytest.mark.parametrize(
        ("fields", "sites"),
        [
            (
                {},
                ["encoder.0.self", "encoder.1.self"]
                + [f"decoder.{i}.{k}" for i in range(3) for k in ("self", "cross")],
            ),
            ({"layers": 2}, ["decoder.2.self", "decoder.2.cross"]),
            ({"layers": "0,1", "stack": "encoder"}, ["encoder.0.self", "encoder.1.self"]),
            ({"attention": "cross", "layers": "1-2"}, ["decoder.1.cross", "decoder.2.cross"]),
            ({"attention": "self", "layers": 0}, ["encoder.0.self", "decoder.0.self"]),
        ],
        ids=str,
    )
    def test_selectors(self, saved: Saved, fields: dict[str, Any], sites: list[str]) -> None:
        assert [edit.site for edit in plan(saved("bart"), fold="key", **fields).edits] == sites

    @pytest.mark.parametrize(
        ("name", "fields", "says"),
        [
            ("bert", {"layers": 7}, "There is no layer 7"),
            ("bert", {"layers": "2-4"}, "There is no layer 3"),
            ("bert", {"layers": [-1]}, "There is no layer -1"),
            ("bert", {"layers": []}, "match no attention site"),
            ("bert", {"stack": "decoder"}, "match no attention site"),
            ("bert", {"attention": "cross"}, "match no attention site"),
            ("bart", {"layers": 2, "stack": "encoder"}, "There is no layer 2"),
            ("bart", {"layers": "1-2", "stack": "encoder"}, "There is no layer 2"),
            ("bart", {"stack": "encoder", "attention": "cross"}, "match no attention site"),
        ],
        ids=str,
    )
    def test_a_selector_that_matches_nothing_lists_what_exists(
        self, saved: Saved, name: str, fields: dict[str, Any], says: str
    ) -> None:
        with pytest.raises(RecipeError, match=says) as caught:
            plan(saved(name), fold="key", **fields)
        layers = "layers 0-2" if name == "bert" else "layers 0-1"
        assert f"encoder self ({layers}, biases: query, key, value, output)" in str(caught.value)

    def test_a_projection_that_has_no_bias_anywhere(self, saved: Saved, tmp_path: Path) -> None:
        model = fresh("bert")
        for layer in model.bert.encoder.layer:
            layer.attention.self.key.bias = None
        for fields in ({"fold": "key"}, {"drop": "key"}, {"freeze": "key"}, {"train": "key"}, {"fill": "key=1"}):
            with pytest.raises(RecipeError, match=r"None of the 3 selected .* has a key bias") as caught:
                apply(model, **fields)
            assert "biases: query, value, output" in str(caught.value)
        assert len(apply(model, fold="query,value").plan.edits) == 6

    def test_what_an_earlier_patch_took_away_is_nothing_to_do(self, saved: Saved, tmp_path: Path) -> None:
        hf_bias_patch.patch(saved("bert"), tmp_path / "out", fold="key", storage="absent")
        made = plan(tmp_path / "out", fold="key,value")
        assert [edit.label for edit in made.edits] == ["fold value:output"] * 3
        assert not plan(tmp_path / "out", drop="key").edits
        for fields in ({"freeze": "key"}, {"train": "key"}, {"fill": "key=1"}):
            with pytest.raises(RecipeError, match=r"None of the 3 selected .* has a key bias"):
                plan(tmp_path / "out", **fields)


class TestDestinations:
    @pytest.mark.parametrize("name", NAMES)
    def test_the_defaults(self, saved: Saved, name: str) -> None:
        made = plan(saved(name), fold="key,value")
        assert {edit.label for edit in made.edits} == {"fold key:nothing", "fold value:output"}
        assert all(edit.amplification is None and edit.loss is None for edit in made.edits)

    def test_the_default_of_a_query_is_its_weight(self, saved: Saved) -> None:
        made = plan(saved("bert"), fold="query")
        model = fresh("bert", dtype=torch.float32)
        for layer, edit in enumerate(made.edits):
            assert edit.label == "fold query:weight"
            norm = model.bert.encoder.layer[layer - 1].output.LayerNorm if layer else model.bert.embeddings.LayerNorm
            gamma, beta = (value.detach().double().numpy() for value in (norm.weight, norm.bias))
            expected = witness(gamma, beta)
            assert expected is not None
            assert edit.amplification == pytest.approx(expected.amplification)
            assert edit.loss == pytest.approx(expected.amplification * 2.0**-24)

    def test_the_measures_of_a_fold_into_the_norm(self, saved: Saved) -> None:
        made = plan(saved("gpt2"), fold="query:norm")
        model = fresh("gpt2", dtype=torch.float32)
        for block, edit in zip(model.transformer.h, made.edits, strict=True):
            weight = block.attn.c_attn.weight[:, :32].detach().double().numpy().T
            bias = block.attn.c_attn.bias[:32].detach().double().numpy()
            assert edit.conditioning == pytest.approx(np.linalg.cond(weight, 1), rel=1e-6)
            delta = np.linalg.inv(weight) @ bias
            assert edit.amplification == pytest.approx(np.linalg.norm(weight * delta) / np.linalg.norm(bias), rel=1e-6)

    def test_where_the_value_cannot_reach_an_output_bias(self) -> None:
        model = fresh("bert")
        for layer in model.bert.encoder.layer:
            layer.attention.output.dense.bias = None
        assert {edit.label for edit in apply(model, fold="value").plan.edits} == {"fold value:weight"}

    def test_a_shift_that_nothing_could_make_up_for_is_refused(self) -> None:
        model = fresh("bert")
        model.bert.encoder.layer[1].attention.output.dense.bias = None
        with pytest.raises(PlanError, match=r"fold query:norm at encoder\.1\.self: the output projection has no bias"):
            apply(model, fold="query:norm")

    def test_unknown_is_refused_and_dropped_on_request(self) -> None:
        model = fresh("bert")
        model.config.position_embedding_type = "relative_key"
        with pytest.raises(PlanError, match="does not cover position_embedding_type = 'relative_key'"):
            apply(model, fold="key")
        handle = apply(model, drop="key")
        assert handle.plan.lossy, "nobody knows whether it is redundant"

    def test_refusals_are_collected_and_grouped(self, saved: Saved) -> None:
        with pytest.raises(PlanError) as caught:
            plan(saved("gpt2-cross"), fold="key:weight,value:weight,query")
        text = str(caught.value)
        assert text.startswith("6 of the 18 edits asked for are refused")
        assert "fold key:weight at decoder.0.cross, decoder.1.cross, decoder.2.cross: it reads hidden states" in text
        assert "--layers" in text

    def test_a_zero_bias_is_nothing_to_do(self, saved: Saved, tmp_path: Path) -> None:
        hf_bias_patch.patch(saved("bert"), tmp_path / "out", fold="key,query", layers=1)
        made = plan(tmp_path / "out", fold="key,query,value:weight")
        assert [edit.site for edit in made.edits if edit.zero] == ["encoder.1.self"] * 2
        assert not any("layer.1.attention.self.query" in name for name in made.touched)
        assert any("layer.0.attention.self.query" in name for name in made.touched)


def with_values(change: Callable[[Any], None]) -> Any:
    model = fresh("bert")
    with torch.no_grad():
        change(model.bert.encoder.layer[1])
    return model


class TestLoss:
    def small_constant(self, size: float) -> Any:
        """A layer norm with 1/γ · β = size, before layer 2."""
        model = fresh("bert", dtype=torch.float32)
        norm = model.bert.encoder.layer[1].output.LayerNorm
        with torch.no_grad():
            norm.weight.fill_(1)
            norm.bias.copy_(torch.tensor([0.25, -0.25] * 16))
            norm.bias[0] += size
        return model

    def test_a_constant_lost_in_rounding_is_refused_with_the_number(self) -> None:
        model = self.small_constant(2.0**-22)
        before = {name: value.clone() for name, value in model.named_parameters()}
        with pytest.raises(
            PlanError, match=r"fold query:weight at encoder\.2\.self: rounding .*max_loss 0\.1"
        ) as caught:
            apply(model, fold="query")
        text = str(caught.value)
        found = re.search(r"would cost ([\d.e+-]+) of the bias \(amplification ([\d.e+-]+)\)", text)
        assert found is not None
        expected = np.sqrt(32 + 32 * 0.25**2) * 2.0**22
        assert float(found[2]) == pytest.approx(expected, rel=1e-2)
        assert float(found[1]) == pytest.approx(expected * 2.0**-24, rel=5e-2)
        assert "bert.encoder.layer.2.attention.self.query.weight to F32" in text and "1 of the 3 edits" in text
        assert all(torch.equal(before[name], value) for name, value in model.named_parameters())

    def test_the_recipe_says_how_much_may_be_lost(self) -> None:
        for size, allowed in ((2.0**-14, 1e-3), (2.0**-22, 0.1)):
            with pytest.raises(PlanError, match=f"above max_loss {allowed:g}"):
                apply(self.small_constant(size), fold="query", max_loss=allowed)
        handle = apply(self.small_constant(2.0**-14), fold="query", max_loss=0.01)
        assert handle.plan.edits[2].loss == pytest.approx(5.8 * 2.0**-10, rel=0.1)
        # float64 has room for what float32 has not.
        assert apply(self.small_constant(2.0**-22).double(), fold="query", max_loss=1e-6)

    def test_no_constant_at_all(self) -> None:
        model = self.small_constant(0.0)
        with pytest.raises(PlanError, match=r"output\.LayerNorm\.bias makes no constant"):
            apply(model, fold="query")

    def test_a_singular_query_weight(self) -> None:
        model = fresh("bert")
        with torch.no_grad():
            model.bert.encoder.layer[1].attention.self.query.weight[3] = 0
        with pytest.raises(PlanError, match=r"layer\.1\.attention\.self\.query\.weight has no inverse"):
            apply(model, fold="query:norm")

    def test_an_ill_conditioned_query_weight(self) -> None:
        model = fresh("bert", dtype=torch.float32)
        with torch.no_grad():
            weight = model.bert.encoder.layer[1].attention.self.query.weight
            weight[3] = weight[4] * (1 + 2**-20)
        with pytest.raises(PlanError, match=r"fold query:norm at encoder\.1\.self: rounding .*LayerNorm\.bias to F32"):
            apply(model, fold="query:norm")


class TestJson:
    @pytest.mark.parametrize(
        "fields",
        [
            {"fold": "key,value,query"},
            {"fold": "query:norm,value:weight", "layers": "1-2"},
            {"fold": "key", "fill": "query=uniform:-1:1", "seed": 4, "drop": "value", "freeze": "output"},
            {"fold": "key,value,query", "storage": "absent"},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("name", ["bert", "gpt2", "bart", "bert+gpt2"])
    def test_a_plan_is_json_and_back(self, saved: Saved, name: str, fields: dict[str, Any]) -> None:
        stack = {"stack": "decoder"} if name == "bert+gpt2" else {}
        made = plan(saved(name), **fields, **stack)
        again = Plan.loads(made.dumps())
        assert again == made
        assert again.changes and sum(made.touched.values()) > 0

    def test_a_plan_read_back_does_the_same(self) -> None:
        first, second = fresh("bart"), fresh("bart")
        made = apply(first, fold="query,key,value").plan
        apply(second, Plan.loads(made.dumps()))
        for (name, one), (_, two) in zip(first.named_parameters(), second.named_parameters(), strict=True):
            assert torch.equal(one, two), name

    @pytest.mark.parametrize("text", ["", "{}", "[1]", '{"recipe": {"fold": "nowhere"}}', "\ud800"])
    def test_what_is_no_plan_is_refused(self, text: str) -> None:
        with pytest.raises(CheckpointError, match=r"here\.json is not a plan that this version can read"):
            Plan.loads(text, "here.json")

    def test_a_plan_of_another_version_is_refused(self, saved: Saved) -> None:
        text = plan(saved("bert"), fold="key").dumps()
        with pytest.raises(CheckpointError, match="Use the version"):
            Plan.loads(text.replace('"edits"', '"edits_of_tomorrow"'))


class TestFill:
    def test_random_values_follow_from_seed_and_site_alone(self) -> None:
        def filled(**fields: Any) -> dict[str, torch.Tensor]:
            model = fresh("bert")
            apply(model, **fields)
            return {
                str(layer): model.bert.encoder.layer[layer].attention.self.key.bias.detach().clone()
                for layer in range(3)
            }

        everywhere = filled(fill="key=uniform:-5:5", seed=3)
        again = filled(fill="key=uniform:-5:5", seed=3)
        alone = filled(fill={"key": "uniform:-5:5", "query": "normal:0:1"}, seed=3, layers=1, fold="value")
        other = filled(fill="key=uniform:-5:5", seed=4)
        for layer in everywhere:
            assert torch.equal(everywhere[layer], again[layer])
            assert not torch.equal(everywhere[layer], other[layer])
            assert everywhere[layer].abs().max() <= 5 and everywhere[layer].std() > 1.5
        assert torch.equal(everywhere["1"], alone["1"]) and not torch.equal(everywhere["0"], alone["0"])
        assert not torch.equal(everywhere["0"], everywhere["1"])

    def test_a_constant_and_a_normal(self) -> None:
        model = fresh("gpt2")
        old = model.transformer.h[0].attn.c_attn.bias.detach().clone()
        apply(model, fill="key=0.25,value=normal:3:0.5")
        bias = model.transformer.h[0].attn.c_attn.bias.detach()
        assert torch.equal(bias[:32], old[:32]) and (bias[32:64] == 0.25).all()
        assert 2.5 < bias[64:].mean() < 3.5 and 0.2 < bias[64:].std() < 0.8


def test_one_parameter_under_two_names_is_refused() -> None:
    model = fresh("bert")
    layers = model.bert.encoder.layer
    layers[1].attention.self.query.bias = layers[0].attention.self.query.bias
    with pytest.raises(PlanError, match=r"layer\.0.*query\.bias and .*layer\.1.*query\.bias are one parameter"):
        apply(model, fold="query")
    assert apply(model, fold="key,value").plan.edits


def test_a_model_without_values_is_refused() -> None:
    with torch.device("meta"):
        model = type(fresh("bert"))(fresh("bert").config)
    with pytest.raises(CheckpointError, match="meta device"):
        apply(model, fold="key")


def test_a_recipe_may_be_given_whole_and_memory_plans_as_disk(saved: Saved) -> None:
    recipe = make_recipe(fold="key,query", layers=1)
    made = hf_bias_patch.plan(saved("bert"), recipe)
    assert made == plan(saved("bert"), fold="key,query", layers=1)
    in_memory = apply(fresh("bert", dtype=torch.float32), recipe).plan
    assert in_memory.edits == made.edits and in_memory.touched == made.touched
