"""Sites made from findings alone: the table's where there is one, and edits planned on them that are exact."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hf_bias_patch
from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.layout import View
from hf_bias_patch.checkpoint.checkpoint import open_checkpoint
from hf_bias_patch.errors import PlanError
from hf_bias_patch.family_check.small_models.config import small_config
from hf_bias_patch.family_check.small_models.model import small_model
from hf_bias_patch.models.inputs.random_inputs import inputs_of
from hf_bias_patch.models.names import names_in_files
from hf_bias_patch.models.run import run
from hf_bias_patch.patching.in_memory import ModelTensors, apply
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.probing.inspect import probe_model
from hf_bias_patch.probing.moves import change
from hf_bias_patch.probing.slots import sites_of, view_of


@given(st.integers(1, 4), st.integers(1, 6), st.data())
def test_a_view_is_found_from_its_indices(runs: int, length: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, length - 1))
    view = View(runs, length, start, data.draw(st.integers(start + 1, length)))
    indices = view.positions(0, view.axis)
    chosen = list(range(indices.start, indices.stop)) if isinstance(indices, slice) else indices.tolist()
    found = view_of(chosen, view.axis)
    again = found and found.positions(0, view.axis)
    assert list(range(again.start, again.stop)) == chosen if isinstance(again, slice) else again.tolist() == chosen


@pytest.mark.parametrize(("indices", "axis"), [([0, 2, 3], 4), ([0, 1, 4], 6), ([0, 3], 7), ([0, 2, 5], 6)])
def test_what_is_no_regular_part_has_no_view(indices: list[int], axis: int) -> None:
    assert view_of(indices, axis) is None


CASES = {
    "bert": ({}, "query,key,value"),
    "gpt2": ({}, "query,key:weight,value"),
    "gpt_neox": ({}, "query,key,value:weight"),
    "llama": ({"attention_bias": True, "num_key_value_heads": 2}, "value"),
}


@pytest.mark.parametrize("name", CASES)
def test_sites_without_a_table_are_those_of_the_table_and_fold_exactly(name: str) -> None:
    changes, fold = CASES[name]
    model = small_model(small_config(name, **changes), seed=3)
    tensors = ModelTensors(model)
    sites = sites_of(probe_model(model, (0,)), tensors.tensors)
    table = {
        (slot.bias, projection): slot
        for site in find_sites(model.config.to_dict(), tensors.tensors)
        for projection, slot in site.slots.items()
        if slot.bias and site.kind == "self"
    }
    own = {(slot.bias, projection): slot for site in sites for projection, slot in site.slots.items() if slot.bias}
    assert own.keys() == table.keys() and len(own) >= 8, "vacuous"
    for key, slot in own.items():
        other = table[key]
        assert (slot.view, slot.rows, slot.weight, slot.conv1d) == (other.view, other.rows, other.weight, other.conv1d)
    inputs = inputs_of(model, 7)
    before = run(model, inputs)
    with apply(model, fold=fold, sites=sites) as patched:
        assert change(run(patched, inputs), before) < 1e-10
    dropped = ",".join(part.partition(":")[0] for part in fold.split(","))
    with apply(model, drop=dropped, sites=sites) as patched:
        assert change(run(patched, inputs), before) > 1e-4, "nothing was at stake"


def test_a_plan_keeps_the_sites_it_rests_on_and_refuses_what_the_numbers_refute() -> None:
    model = small_model(small_config("llama", attention_bias=True), seed=3)
    sites = sites_of(probe_model(model, (0,)), ModelTensors(model).tensors)
    with apply(model, fold="value", sites=sites) as patched:
        assert patched is model
    plan = apply(model, fold="value", sites=sites).plan
    assert Plan.loads(plan.dumps()) == plan and plan.sites == sites
    with pytest.raises(PlanError, match=r"fold key.*moving it moves the output"):
        apply(model, fold="key", sites=sites)


def test_tensors_that_loading_renames_are_named_as_in_the_files(tmp_path: Path) -> None:
    model = small_model(small_config("vit")).float()
    model.save_pretrained(tmp_path / "vit")
    before = {name: value.clone() for name, value in model.named_parameters()}
    found = hf_bias_patch.probe(tmp_path / "vit")
    stored = open_checkpoint(tmp_path / "vit").tensors
    assert len(found.renamed) > 20 and set(found.renamed.values()) <= stored.keys() and not found.memory_only
    assert set(found.renamed) <= before.keys() and not set(found.renamed) & stored.keys()
    assert {row.parameter for row in found.rows} <= stored.keys() and len(found.rows) == 6
    keys = {slot.bias for site in found.sites for slot in site.slots.values() if slot.projection == "key"}
    plan = hf_bias_patch.plan(tmp_path / "vit", fold="key,value,query", sites=found.sites)
    assert len(plan.edits) == 6 and {edit.bias for edit in plan.edits if edit.projection == "key"} == keys
    with pytest.raises(PlanError, match="sites that were given do not fit: there is no tensor"):
        apply(model, fold="key", sites=found.sites)
    done = hf_bias_patch.patch(tmp_path / "vit", tmp_path / "out", fold="key,value,query", sites=found.sites)
    inputs = {name: value.float() for name, value in inputs_of(model.double(), 5).items()}
    again = type(model).from_pretrained(done.path)
    assert not again.layers[1].attention.k_proj.bias.any()
    assert change(run(again.double(), inputs), run(model, inputs)) < 1e-4


def test_names_that_files_have_are_told_without_files(tmp_path: Path) -> None:
    for name, same in (("vit", False), ("bert", True)):
        model = small_model(small_config(name))
        found = names_in_files(model)
        names, tensors = found.names, found.tensors
        model.save_pretrained(tmp_path / name)
        stored = open_checkpoint(tmp_path / name).tensors
        assert set(tensors) == set(stored) == set(names.values()) and len(names) > 20
        assert all(tensors[key].shape == stored[key].shape for key in stored)
        assert (names == {key: key for key in names}) == same
