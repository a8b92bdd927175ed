"""For each family, one of its model types, small and random, saved and patched on disk with every fold that is offered:
stock transformers loads the variant, its outputs are the source's, and a revert gives the source back to the byte.

In memory, fold by fold: test_families.py.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hf_bias_patch
from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.checkpoint.checkpoint import open_checkpoint
from hf_bias_patch.errors import CheckpointError, FamilyError
from hf_bias_patch.family_check.executed_folds import all_offered
from hf_bias_patch.family_check.one_type import config_of_type
from hf_bias_patch.family_check.small_models.model import small_model
from hf_bias_patch.models.inputs.random_inputs import inputs_of
from hf_bias_patch.models.run import run
from hf_bias_patch.probing.moves import change
from tests.family_check.test_families import types_of_families

STILL = 1e-8
"""Of outputs, relative: float64 leaves 1e-12, and a wrong fold moves them by more than 1e-3."""

ROUND_TRIP: dict[str, dict[str, Any]] = {"gradium_phonon_tts": {"num_key_value_heads": 4}}
"""Model type → sizes without which stock transformers does not load what it saves: it fuses query, key and value in the
files, and cuts them into three equal parts when it loads, which grouped heads are not."""


def difference(model: Any, other: Any) -> float:
    """The largest relative difference of the outputs of two models."""
    inputs = inputs_of(model)
    ours, theirs = run(model, inputs), run(other, inputs)
    assert ours.keys() == theirs.keys() and any(value.isfinite().any() and value.any() for value in ours.values())
    return change(theirs, ours)


def loaded(place: Path, model: Any) -> Any:
    """A checkpoint as stock transformers loads it, all of it in float64 (some classes keep modules in float32)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # With the config in memory, for that says eager attention and experts, which alone can do float64.
        found, report = type(model).from_pretrained(
            place, config=copy.deepcopy(model.config), dtype=model.dtype, output_loading_info=True
        )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    return found.to(model.dtype).eval()


@pytest.mark.parametrize("model_type", types_of_families())
def test_every_fold_on_disk(model_type: str, tmp_path: Path, tree: Callable[[Path], dict[str, str]]) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers, about the library itself
        # With values that float32 has: stock loads some parameters in it (DeBERTa's q_bias, v_bias) whatever is asked.
        model = small_model(config_of_type(model_type, ROUND_TRIP.get(model_type, {}))).float().double()
        model.save_pretrained(source)
    config = json.loads((source / "config.json").read_text())
    try:
        folds, sites = all_offered(find_sites(config, open_checkpoint(source).tensors))
    except (FamilyError, CheckpointError):
        pytest.fail(f"the table does not know the files of {model_type}")
    if not folds:
        return  # nothing is offered, which test_families.py holds against the numbers
    done = hf_bias_patch.patch(source, out, fold=folds, max_loss=1.0, sites=sites)
    assert done.plan.edits
    assert difference(loaded(source, model), loaded(out, model)) <= STILL
    hf_bias_patch.revert(out)
    assert tree(out) == tree(source)
