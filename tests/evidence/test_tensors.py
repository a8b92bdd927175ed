"""File contents: untouched tensors byte for byte, touched ones as the plan gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_bias_patch.evidence.certificate import TensorComparison
from hf_bias_patch.evidence.storage import storage_dtype
from hf_bias_patch.evidence.tensors import compare_tensors, norm_bound
from tests.evidence.helpers import edited, pair_of, variant_of
from tests.models import NAMES

Saved = Callable[..., Path]
FOLD = "key,value:output,query"
WEIGHT, BIAS = "transformer.h.1.attn.c_attn.weight", "transformer.h.1.attn.c_proj.bias"
UNTOUCHED = "transformer.h.1.mlp.c_fc.weight"


def compared(variant: Path, source: Path) -> TensorComparison:
    pair = pair_of(variant, source)
    assert pair.plan is not None and pair.source_files is not None
    return compare_tensors(pair.source_files, pair.variant_files, pair.plan)


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("storage", ["zeros", "absent"])
def test_right_variants_are_exact(saved: Saved, dtype: str, storage: str, tmp_path: Path) -> None:
    variant = variant_of(saved("gpt2", dtype), tmp_path / "out", fold=FOLD, storage=storage, max_loss=1)
    found = compared(variant, saved("gpt2", dtype))
    assert found == TensorComparison(compared=40, identical=31, planned=9, exact=9)
    assert storage_dtype(pair_of(variant, saved("gpt2", dtype)).variant_files) == dtype


def test_shards(saved: Saved, tmp_path: Path) -> None:
    source = saved("gpt2", shard="20KB")
    found = compared(variant_of(source, tmp_path / "out", fold=FOLD), source)
    assert found.exact == found.planned == 9 and not found.wrong


@pytest.mark.parametrize("name", NAMES)
def test_every_model(saved: Saved, name: str, tmp_path: Path) -> None:
    found = compared(variant_of(saved(name), tmp_path / "out", fold="key,value"), saved(name))
    assert found.exact == found.planned and found.exact > 0 and found.identical + found.exact == found.compared


def changed(
    saved: Saved, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None], dtype: str = "F32"
) -> TensorComparison:
    right = variant_of(saved("gpt2", dtype), tmp_path / "right", fold=FOLD, max_loss=1)
    return compared(edited(right, tmp_path / "wrong", change), saved("gpt2", dtype))


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("name", [WEIGHT, BIAS])
def test_one_rounding_is_forgiven_and_no_more(saved: Saved, dtype: str, name: str, tmp_path: Path) -> None:
    """Another machine may sum in another order, which moves a value to its neighbour at most."""

    def move(steps: int) -> Callable[[dict[str, torch.Tensor]], None]:
        def change(values: dict[str, torch.Tensor]) -> None:
            flat = values[name].view(-1)
            largest = int(flat.abs().argmax())
            words = flat.view(torch.int32 if dtype == "F32" else torch.int16)
            words[largest] += steps

        return change

    near = changed(saved, tmp_path / "near", move(1), dtype)
    assert not near.wrong and near.exact == 8
    far = changed(saved, tmp_path / "far", move(5), dtype)
    assert len(far.wrong) == 1 and far.wrong[0].startswith(f"{name}: off by")


def test_an_untouched_tensor_may_not_move_at_all(saved: Saved, tmp_path: Path) -> None:
    def change(values: dict[str, torch.Tensor]) -> None:
        values[UNTOUCHED].view(torch.int32).view(-1)[-1] += 1

    assert changed(saved, tmp_path, change).wrong == (f"{UNTOUCHED}: differs, and nothing was to change it",)


def test_missing_added_and_reshaped(saved: Saved, tmp_path: Path) -> None:
    def change(values: dict[str, torch.Tensor]) -> None:
        values["new"] = torch.zeros(2)
        values[BIAS] = values[BIAS].double()
        del values[UNTOUCHED]

    assert set(changed(saved, tmp_path, change).wrong) == {
        "new: not in the source",
        f"{BIAS}: another dtype or shape",
        f"{UNTOUCHED}: not in the variant",
    }


def test_nan_where_a_fold_was(saved: Saved, tmp_path: Path) -> None:
    def change(values: dict[str, torch.Tensor]) -> None:
        values[BIAS][0] = float("nan")

    assert changed(saved, tmp_path, change).wrong == (f"{BIAS}: off by inf beyond rounding",)


def test_absent_tensors_must_be_gone(saved: Saved, tmp_path: Path) -> None:
    right = variant_of(saved("gpt2"), tmp_path / "right", fold=FOLD, storage="absent")

    def change(values: dict[str, torch.Tensor]) -> None:
        values["transformer.h.0.attn.c_attn.bias"] = torch.zeros(96)

    found = compared(edited(right, tmp_path / "wrong", change), saved("gpt2"))
    assert found.wrong == ("transformer.h.0.attn.c_attn.bias: still in the variant",)


def test_without_a_plan_differences_are_allowed_where_said(saved: Saved, tmp_path: Path) -> None:
    variant = variant_of(saved("gpt2"), tmp_path / "out", fold="value")
    pair = pair_of(variant, saved("gpt2"))
    assert pair.source_files is not None
    found = compare_tensors(pair.source_files, pair.variant_files, None)
    assert found.planned is None and not found.wrong and found.identical == 34
    found = compare_tensors(pair.source_files, pair.variant_files, None, free={BIAS})
    assert len(found.wrong) == 5


def test_the_bound_of_a_solved_fold(saved: Saved, tmp_path: Path) -> None:
    variant = variant_of(saved("bert", "F64"), tmp_path / "out", fold="query:norm")
    plan = pair_of(variant, saved("bert", "F64")).plan
    assert plan is not None
    conditioning = max(edit.conditioning or 0 for edit in plan.edits)
    assert norm_bound(plan.edits) == pytest.approx(conditioning * 2.0**-53 * 32) and conditioning > 10
    assert norm_bound(()) == 0
    assert not compared(variant, saved("bert", "F64")).wrong
    assert np.isfinite(conditioning)
