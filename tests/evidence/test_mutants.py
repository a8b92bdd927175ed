"""Wrong variants must fail: by what they compute, by what their files hold, and site by site."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hf_bias_patch.evidence.run import verify
from hf_bias_patch.evidence.tensors import compare_tensors
from tests.evidence.helpers import edited, pair_of, variant_of
from tests.evidence.mutants import MUTANTS, change_of

Saved = Callable[..., Path]

SITES = {"distilbert": "encoder.1.self", "gpt2": "decoder.1.self", "mbart": "decoder.2.cross"}


@pytest.fixture(scope="module")
def variants(saved: Saved, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: variant_of(saved(name), tmp_path_factory.mktemp(name) / "out", fold="key,value,query") for name in SITES
    }


@pytest.mark.parametrize("name", SITES)
def test_the_right_variant_passes_without_its_plan(
    saved: Saved, variants: dict[str, Path], name: str, tmp_path: Path
) -> None:
    right = edited(variants[name], tmp_path / "right", lambda values: None, plan=False)
    certificate = verify(right, saved(name), attention=("sdpa",))
    assert certificate.passed, certificate.reasons
    assert certificate.algebra is None and "no bias_patch/plan.json" in certificate.no_algebra
    assert verify(right, saved(name), layerwise=True).passed


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("name", SITES)
def test_a_mutant_fails(saved: Saved, variants: dict[str, Path], name: str, mutant: str, tmp_path: Path) -> None:
    source, site = saved(name), SITES[name]
    wrong = edited(variants[name], tmp_path / "wrong", change_of(mutant, source, site))
    pair = pair_of(wrong, source)
    assert pair.plan is not None and pair.source_files is not None

    files = compare_tensors(pair.source_files, pair.variant_files, pair.plan)
    assert len(files.wrong) == 1 and files.exact == (files.planned or 0) - 1, files

    unplanned = edited(wrong, tmp_path / "unplanned", lambda values: None, plan=False)
    whole = verify(unplanned, source, attention=("sdpa",))
    assert not whole.passed and whole.deployed is not None and whole.deployed.share > 100, whole.deployed

    sites = {run.where: run for run in verify(unplanned, source, layerwise=True).runs}
    failed = [where for where, run in sites.items() if not all(figure.passed for figure in run.deployed)]
    assert failed == [site]


def test_neighbours_output_biases_swapped(saved: Saved, variants: dict[str, Path], tmp_path: Path) -> None:
    def swap(values: dict) -> None:
        first, second = (f"distilbert.transformer.layer.{layer}.attention.out_lin.bias" for layer in (0, 1))
        values[first], values[second] = values[second], values[first]

    wrong = edited(variants["distilbert"], tmp_path / "wrong", swap)
    certificate = verify(wrong, saved("distilbert"))
    assert not certificate.passed
    assert all(figure.share > 100 for run in certificate.runs for figure in run.deployed)
    assert certificate.algebra is not None and certificate.algebra.passed, "the plan is right, its execution is not"
    assert certificate.tensors is not None and len(certificate.tensors.wrong) == 2


def test_what_hides_below_the_noise_floor_shows_in_the_file(saved: Saved, tmp_path: Path) -> None:
    source = saved("bert", "BF16")
    right = variant_of(source, tmp_path / "right", fold="key,value")

    def nudge(values: dict) -> None:
        bias = values["bert.encoder.layer.1.attention.output.dense.bias"]
        bias[3] = bias[3] * (1 + 2**-6)

    certificate = verify(edited(right, tmp_path / "wrong", nudge), source)
    assert certificate.deployed is not None and certificate.deployed.passed
    assert not certificate.passed
    (reason,) = certificate.reasons
    assert "encoder.layer.1.attention.output.dense.bias: off by" in reason


@pytest.mark.parametrize("name", ["gpt2", "mbart"])
def test_a_generator_that_says_something_else_fails(
    saved: Saved, variants: dict[str, Path], name: str, tmp_path: Path
) -> None:
    change = change_of("value dropped", saved(name), SITES[name])
    certificate = verify(edited(variants[name], tmp_path / "wrong", change), saved(name), attention=("sdpa",))
    decoding = certificate.runs[0].decoding
    assert decoding is not None and any(not fork.tie for fork in decoding.forks)
    assert any("token" in reason for reason in certificate.reasons)
