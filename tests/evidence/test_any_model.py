"""`verify` on models that read images, sound, or several things at once: what passes, and that a mistake fails."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_bias_patch.checkpoint.source import resolve
from hf_bias_patch.errors import VerifyError
from hf_bias_patch.evidence.certificate import Certificate
from hf_bias_patch.evidence.outputs import NOTHING, outputs_of
from hf_bias_patch.evidence.run import verify
from hf_bias_patch.family_check.small_models.config import small_config
from hf_bias_patch.family_check.small_models.model import small_model
from hf_bias_patch.models.inputs.choose import multimodal_inputs
from hf_bias_patch.models.inputs.multimodal import MultimodalBatch, multimodal_batches
from hf_bias_patch.models.load_for_verify import load_model
from hf_bias_patch.probing.inspect import probe
from tests.evidence.helpers import edited, sites_of, variant_of

FOLDS = {
    "vit": "query,key,value",
    "clip": "query,key,value",
    "whisper": "query,value",  # its key maps have no bias
    "wav2vec2": "key,value",  # post-norm: the norm's output continues beside the attention
    "llava": "query,key,value",
}

Made = Callable[[str], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Small random models in float32, saved under the names that transformers gives tensors in files."""
    folder = tmp_path_factory.mktemp("any")

    def make(name: str) -> Path:
        if not (folder / name).exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # A seed with which no norm makes so small a constant that a query's fold amplifies rounding.
                small_model(small_config(name), seed=7).float().save_pretrained(folder / name)
        return folder / name

    return make


@pytest.mark.parametrize("name", FOLDS)
def test_folds_pass(made: Made, name: str, tmp_path: Path) -> None:
    certificate = verify(variant_of(made(name), tmp_path / "out", fold=FOLDS[name], max_loss=1), made(name))
    assert certificate.passed, certificate.reasons
    assert certificate.comparisons > 1000, "vacuous"
    assert [run.where for run in certificate.runs] == ["eager", "sdpa"]
    assert certificate.algebra is not None and certificate.algebra.error < 1e-13
    assert certificate.if_dropped is not None and certificate.if_dropped > 0.05, "the models are too tame to tell"
    assert all(figure.floor is not None and figure.floor < 1e-5 for run in certificate.runs for figure in run.deployed)
    assert len(certificate.probes) == 3
    assert certificate.tensors is not None and certificate.tensors.exact == certificate.tensors.planned
    found = {claim.flag: claim for claim in certificate.equal}
    assert all(claim.held is not False for claim in certificate.equal if claim.claimed)
    assert found["hidden_states"].held and found["attention_weights"].held
    assert found["lora"].error is not None
    assert any("decoding" in note for note in certificate.notes)
    assert Certificate.loads(certificate.dumps()) == certificate


@pytest.mark.parametrize("name", FOLDS)
def test_a_dropped_value_fails(made: Made, name: str, tmp_path: Path) -> None:
    """The output biases lack what the value biases did, at one site."""
    site = next(site for site in sites_of(made(name)).values() if site.slots["value"].bias)
    bias = str(site.slots["output"].bias)
    old = load_file(made(name) / "model.safetensors")[bias]
    right = variant_of(made(name), tmp_path / "right", fold="value")
    wrong = edited(right, tmp_path / "wrong", lambda values: values.update({bias: old}))
    certificate = verify(wrong, made(name), attention=("sdpa",))
    assert not certificate.passed
    assert certificate.deployed is not None and certificate.deployed.error > 1e3 * certificate.deployed.bound


@pytest.mark.parametrize("name", FOLDS)
def test_site_by_site(made: Made, name: str, tmp_path: Path) -> None:
    certificate = verify(variant_of(made(name), tmp_path / "out", fold="value"), made(name), layerwise=True)
    assert certificate.passed, certificate.reasons


def test_half_precision(made: Made, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small_model(small_config("clip"), seed=3).bfloat16().save_pretrained(tmp_path / "source")
    variant = variant_of(tmp_path / "source", tmp_path / "out", fold="key,value")
    certificate = verify(variant, tmp_path / "source", texts=["No text alone is an input."])
    assert certificate.dtype == "BF16" and certificate.passed, certificate.reasons
    assert any("1 texts were left out" in note for note in certificate.notes)


def test_inputs(made: Made) -> None:
    """Values that the storage dtype has; different in each set; padded, but for the last."""
    model = load_model(resolve(made("clip")), "F64", "eager").model
    probes = multimodal_batches(model, 0, torch.bfloat16)
    pixels = [probe.inputs["pixel_values"] for probe in probes]
    assert all(torch.equal(values, values.bfloat16().double()) for values in pixels)
    assert not torch.equal(pixels[0], pixels[1])
    assert [bool(probe.inputs["attention_mask"].all()) for probe in probes] == [False, False, True]
    assert not torch.equal(pixels[0], multimodal_batches(model, 1, torch.bfloat16)[0].inputs["pixel_values"])


def test_random_numbers_are_the_same_in_every_dtype(made: Made) -> None:
    """ViT-MAE draws the patches that it hides."""
    found = {}
    for dtype in ("F64", "F32"):
        model = load_model(resolve(made("vit_mae")), dtype, "eager").model
        if dtype == "F64":
            probes: list[MultimodalBatch] = multimodal_batches(model, 0, torch.float32)
        found[dtype] = outputs_of(model, probes[0], NOTHING)
    for name, value in found["F64"].items():
        assert (found["F32"][name] - value).abs().max() < 1e-4 * value.abs().max(), name


def test_no_inputs_known(made: Made) -> None:
    model = load_model(resolve(made("clip")), "F64", "eager").model
    model.forward = lambda unheard_of: None
    with pytest.raises(VerifyError, match="No inputs found") as error:
        multimodal_inputs(model, None, 0, torch.float32)
    assert "--layerwise" in str(error.value)


@pytest.mark.parametrize("name", ["vit", "llava"])
def test_sites_of_a_probe_under_the_names_in_memory(made: Made, name: str, tmp_path: Path) -> None:
    """transformers renames these tensors while it loads them; the plan names them as the files do."""
    variant = variant_of(made(name), tmp_path / "out", fold="value", sites=probe(made(name)).sites)
    certificate = verify(variant, made(name), attention=("eager",))
    assert certificate.passed, certificate.reasons
    assert certificate.no_algebra == "" and certificate.algebra is not None and certificate.algebra.error < 1e-13
    assert certificate.equal


def test_attention_weights_of_long_inputs_are_left_out(tmp_path: Path) -> None:
    """Of 576 patches of an image, and one token beside them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small_model(small_config("vit", image_size=192), seed=7).float().save_pretrained(tmp_path / "source")
    variant = variant_of(tmp_path / "source", tmp_path / "out", fold="value")
    certificate = verify(variant, tmp_path / "source", attention=("eager",))
    found = {claim.flag: claim for claim in certificate.equal}
    assert found["attention_weights"].error is None and "more than 512 positions" in found["attention_weights"].how
    assert found["hidden_states"].held and certificate.passed
