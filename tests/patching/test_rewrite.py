"""Matrices are rewritten in blocks of rows: whatever the layout and wherever the blocks end, the result is W + b dᵀ."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

import hf_bias_patch
from hf_bias_patch.architecture.layout import View
from hf_bias_patch.architecture.sites import Norm, Slot
from hf_bias_patch.architecture.verdict import Verdict
from hf_bias_patch.checkpoint.checkpoint import open_checkpoint
from hf_bias_patch.patching.algebra import repeat_groups, round_once, witness
from hf_bias_patch.patching.folds import RankOneUpdate
from hf_bias_patch.patching.in_memory import apply
from hf_bias_patch.patching.plan import Edit, Plan
from hf_bias_patch.patching.recipe import make_recipe
from hf_bias_patch.patching.rewrite import Rewrite
from hf_bias_patch.patching.tensors import blocks_of_rows
from hf_bias_patch.patching.undo.reader import Undo
from hf_bias_patch.patching.undo.writer import UndoWriter
from tests.models import DTYPES, config_of, fresh, randomise

Saved = Callable[..., Path]
Tree = Callable[[Path], dict[str, str]]


@given(st.integers(1, 40), st.integers(0, 40), st.integers(1, 200))
def test_blocks_cover_every_row_once(rows: int, columns: int, size: int) -> None:
    found = list(blocks_of_rows((rows, columns), size))
    assert [row for start, stop in found for row in range(start, stop)] == list(range(rows))
    assert all((stop - start) * columns <= max(size, columns) for start, stop in found)


views = st.builds(
    lambda runs, before, own, after: View(runs, before + own + after, before, before + own),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(1, 4),
    st.integers(0, 3),
)


@given(views, st.booleans(), st.integers(1, 5), st.integers(1, 30))
def test_an_update_in_blocks_is_the_whole_update(view: View, conv1d: bool, inputs: int, size: int) -> None:
    random = np.random.default_rng(0)
    bias, direction = random.standard_normal(view.size), random.standard_normal(inputs)
    shape = (inputs, view.axis) if conv1d else (view.axis, inputs)
    expected = np.zeros(shape)
    view.put(expected, np.outer(direction, bias) if conv1d else np.outer(bias, direction), axis=1 if conv1d else 0)
    outer, found = RankOneUpdate(view, conv1d, bias, direction), np.zeros(shape)
    for start, stop in blocks_of_rows(shape, size):
        index, update = outer.part(start, stop)
        found[start:stop][index] += update
    np.testing.assert_array_equal(found, expected)


@dataclass(frozen=True)
class Info:
    """What the planner asks of a tensor."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Arrays:
    """Named arrays as a `TensorReader`."""

    values: dict[str, np.ndarray]

    @property
    def tensors(self) -> Mapping[str, Info]:
        return {name: Info("F64", value.shape) for name, value in self.values.items()}

    def read(self, name: str) -> np.ndarray:
        return self.values[name].copy()

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        return self.values[name][start:stop].copy()


LAYOUTS = {
    "interleaved per head": (
        [View(4, 12, part * 4, part * 4 + 4) for part in range(3)],
        4,
    ),
    "grouped queries": (
        [View(2, 16, 0, 8), View(2, 16, 8, 12), View(2, 16, 12, 16)],
        4,
    ),
    "blocks": ([View(1, 48, 16 * part, 16 * part + 16) for part in range(3)], 4),
}


@pytest.mark.parametrize("conv1d", [False, True])
@pytest.mark.parametrize("blocks", [7, 1 << 19])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fused_layouts_that_no_family_here_has(layout: str, blocks: int, conv1d: bool) -> None:
    """Folds of query, key and value, fused in one map, checked with matrices taken apart by hand."""
    (query, key, value), heads = LAYOUTS[layout]
    random = np.random.default_rng(0)
    width, axis = 16, query.axis
    fused, output = random.standard_normal((axis, width)), random.standard_normal((width, width))
    arrays = Arrays(
        {
            "fused.weight": fused.T.copy() if conv1d else fused,
            "fused.bias": random.standard_normal(axis),
            "output.weight": output.T.copy() if conv1d else output,
            "output.bias": random.standard_normal(width),
            "norm.weight": random.uniform(0.5, 2, width),
            "norm.bias": random.standard_normal(width),
        }
    )
    made = Verdict("foldable", "")
    norm = Norm("norm.weight", "norm.bias", residual=False, dropout=False)
    slots = {
        name: Slot(name, "fused.bias", "fused.weight", view, conv1d, norm, made, view)
        for name, view in (("query", query), ("key", key), ("value", value))
    }
    out = Slot("output", "output.bias", "output.weight", View.whole(width), conv1d, None, made, View.whole(width))
    common: dict[str, Any] = {"site": "decoder.0.self", "heads": heads, "action": "fold"}
    edits = (
        Edit(**common, slot=slots["query"], destination="weight", norm=norm),
        Edit(**common, slot=slots["key"], destination="nothing"),
        Edit(**common, slot=slots["value"], destination="output", output=out),
    )
    recipe = make_recipe(fold="query,key,value")
    plan = Plan.model_construct(recipe=recipe, edits=edits)
    done = Rewrite(plan, arrays, block_values=blocks)

    old = arrays.values
    assert not done.vectors["fused.bias"].any()
    bias = {name: slot.view.take(old["fused.bias"]) for name, slot in slots.items()}
    repeated = repeat_groups(bias["value"], width, heads)
    np.testing.assert_allclose(done.vectors["output.bias"], old["output.bias"] + output @ repeated, rtol=1e-12)
    found = witness(old["norm.weight"], old["norm.bias"])
    assert found is not None
    expected = fused.copy()
    rows = query.take(np.arange(axis))
    for place, row in enumerate(rows):
        expected[row] += bias["query"][place] * found.direction
    new = np.concatenate([block.new for block in done.blocks("fused.weight")])
    np.testing.assert_allclose(new.T if conv1d else new, expected, rtol=1e-12)
    assert list(done.matrices) == ["fused.weight"] and set(done.vectors) == {"fused.bias", "output.bias"}


def test_a_shift_is_made_up_for_as_it_was_stored() -> None:
    """β + δ is rounded to the storage dtype: the output bias takes back what that leaves of δ, not the δ wished for."""
    model = fresh("bert", dtype=torch.bfloat16)
    layer, norm = model.bert.encoder.layer[1].attention, model.bert.encoder.layer[0].output.LayerNorm

    def values(parameter: torch.nn.Parameter) -> np.ndarray:
        return parameter.detach().double().numpy()

    beta, bias = values(norm.bias), values(layer.output.dense.bias)
    through = values(layer.output.dense.weight) @ values(layer.self.value.weight) + np.eye(32)
    wished = np.linalg.solve(values(layer.self.query.weight), values(layer.self.query.bias))
    apply(model, fold="query:norm", layers=1, max_loss=1.0)
    left = values(norm.bias) - beta
    assert 0 < np.abs(left - wished).max() < 0.01 * np.abs(wished).max()

    def stored(delta: np.ndarray) -> np.ndarray:
        return round_once(bias - through @ delta, np.dtype(ml_dtypes.bfloat16)).astype(np.float64)

    assert np.array_equal(values(layer.output.dense.bias), stored(left))
    assert not np.array_equal(stored(left), stored(wished)), "vacuous"


def wide(name: str, dtype: str, folder: Path) -> Path:
    """A checkpoint whose matrices take several blocks."""
    sizes = {"gpt2": {"n_embd": 640, "n_layer": 2, "n_inner": 8}, "bert": {"hidden_size": 640, "num_hidden_layers": 2}}
    config = config_of(name, **sizes[name])
    model = transformers.AutoModel.from_config(config)
    randomise(model).to(DTYPES[dtype]).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_matrix_in_many_blocks_gives_the_same_as_in_one_and_reverts(
    tree: Tree, name: str, dtype: str, tmp_path: Path
) -> None:
    source = wide(name, dtype, tmp_path / "source")
    before = tree(source)
    recipe = {"fold": "query,key:weight,value:weight", "max_loss": 1.0}
    plan = hf_bias_patch.patch(source, tmp_path / "many", **recipe).plan
    variant, checkpoint = open_checkpoint(tmp_path / "many"), open_checkpoint(source)
    one = Rewrite(plan, checkpoint, block_values=1 << 40)
    for weight in one.matrices:
        assert len(list(blocks_of_rows(checkpoint.tensors[weight].shape))) > 1, "vacuous"
        (block,) = one.blocks(weight)
        assert variant.read(weight).tobytes() == block.new.tobytes() != block.old.tobytes()
    shutil.copytree(source, tmp_path / "place")
    hf_bias_patch.patch_in_place(tmp_path / "place", **recipe)
    assert tree(tmp_path / "place")["model.safetensors"] == tree(tmp_path / "many")["model.safetensors"]
    hf_bias_patch.revert(tmp_path / "many", tmp_path / "back")
    hf_bias_patch.revert(tmp_path / "many")
    hf_bias_patch.revert(tmp_path / "place")
    assert tree(tmp_path / "back") == tree(tmp_path / "many") == tree(tmp_path / "place") == before


@pytest.mark.parametrize("size", [1, 200, 1 << 40])
def test_an_undo_file_written_in_other_blocks_still_restores(saved: Saved, size: int, tmp_path: Path) -> None:
    """The size of a block is a matter of memory, and may differ between two versions of this package."""
    source = open_checkpoint(saved("bert"))
    variant = open_checkpoint(hf_bias_patch.patch(source.folder, tmp_path / "out", fold="query").path)
    rewrite = Rewrite(hf_bias_patch.plan(source.folder, fold="query"), source, block_values=size)
    assert rewrite.matrices, "vacuous"
    with UndoWriter(tmp_path / "undo.zip") as writer:
        for name, updates in rewrite.matrices.items():
            info = source.tensors[name]
            new = writer.matrix(name, "model.safetensors", info.dtype, info.shape, updates, rewrite.blocks(name))
            assert b"".join(new) == variant.read(name).tobytes()
        writer.finish({}, ())
    with Undo(tmp_path / "undo.zip") as undo:
        for name in rewrite.matrices:
            assert b"".join(undo.restored(name, variant)) == source.read(name).tobytes()
