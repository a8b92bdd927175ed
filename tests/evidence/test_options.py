"""What a model takes beside token ids, and what makes more of its attention run, is under test as well."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from hf_bias_patch.errors import BiasPatchError
from hf_bias_patch.evidence.run import verify
from hf_bias_patch.family_check.small_models.config import small_config
from hf_bias_patch.family_check.small_models.model import randomise, small_model
from hf_bias_patch.probing.inspect import probe
from tests.evidence.helpers import edited, sites_of, variant_of


@pytest.fixture(scope="module")
def luke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("luke", tmp_path_factory.mktemp("luke"))


def saved(model_type: str, folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small_model(small_config(model_type), seed=3).float().save_pretrained(folder)
    return folder


def without(variant: Path, out: Path, tensor: str) -> Path:
    return edited(variant, out, lambda values: values.update({tensor: torch.zeros_like(values[tensor])}))


def test_lukes_key_bias_is_needed_where_entities_are_given(luke: Path) -> None:
    slots = [site.slots for site in sites_of(luke).values()]
    assert all(one["key"].verdict.state in ("needed", "foldable", "absent") for one in slots)
    with pytest.raises(BiasPatchError, match="compare the same keys"):
        variant_of(luke, luke.parent / "no", fold="key:nothing")
    by = {row.parameter: row.verdict for row in probe(luke).rows}
    assert set(by.values()) == {"needed"} and "encoder.layer.1.attention.self.w2e_query.bias" in by


def test_a_key_that_is_dropped_fails_where_entities_are_given(luke: Path, tmp_path: Path) -> None:
    """Words alone do not show it."""
    right = variant_of(luke, tmp_path / "right", fold="value")
    certificate = verify(right, luke, attention=("eager",))
    assert certificate.passed, certificate.reasons
    assert any("entity_ids" in name for name in certificate.probes)
    wrong = without(right, tmp_path / "wrong", "encoder.layer.1.attention.self.key.bias")
    failed = verify(wrong, luke, attention=("eager",))
    assert not failed.passed
    assert failed.deployed is not None and failed.deployed.error > 1e3 * failed.deployed.bound
    assert load_file(right / "model.safetensors").keys() == load_file(wrong / "model.safetensors").keys()


@pytest.mark.parametrize("head", ["LukeForEntityPairClassification", "LukeForEntitySpanClassification"])
def test_heads_that_do_not_run_without_entities(head: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(transformers, head)(small_config("luke"))
        randomise(model, 4)
        model.save_pretrained(tmp_path / "source")
    variant = variant_of(tmp_path / "source", tmp_path / "out", fold="value")
    certificate = verify(variant, tmp_path / "source", attention=("eager",))
    assert certificate.passed, certificate.reasons
    assert any("entity_ids" in name for name in certificate.probes)


def test_global_tokens_are_under_test(tmp_path: Path) -> None:
    """The maps that global tokens have, and others not."""
    source = saved("longformer", tmp_path / "source")
    right = variant_of(source, tmp_path / "right", fold="key")
    assert verify(right, source, attention=("eager",)).passed
    wrong = without(right, tmp_path / "wrong", "encoder.layer.0.attention.self.value_global.bias")
    failed = verify(wrong, source, attention=("eager",))
    assert failed.deployed is not None and failed.deployed.error > 1e3 * failed.deployed.bound


def test_sites_without_maps_of_their_own_are_checked_by_themselves(luke: Path, tmp_path: Path) -> None:
    variant = variant_of(luke, tmp_path / "out", fold="query,value", max_loss=1)
    certificate = verify(variant, luke, layerwise=True)
    assert certificate.passed, certificate.reasons
    queries = [run for run in certificate.runs if run.where.startswith("word_to_entity")]
    assert len(queries) == 2 and all(run.deployed[0].floor for run in queries)
    wrong = edited(variant, tmp_path / "wrong", _smaller_query)
    assert not verify(wrong, luke, layerwise=True).passed


def _smaller_query(values: dict[str, torch.Tensor]) -> None:
    values["encoder.layer.0.attention.self.e2e_query.weight"] *= 0.99
