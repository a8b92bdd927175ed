"""Site by site: every fold of every family, changes elsewhere, and memory that does not grow with the checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hf_bias_patch.checkpoint.checkpoint import open_checkpoint
from hf_bias_patch.checkpoint.source import resolve
from hf_bias_patch.evidence import layerwise
from hf_bias_patch.evidence.certificate import Certificate
from hf_bias_patch.evidence.run import verify
from tests.evidence.helpers import edited, sites_of, variant_of
from tests.models import NAMES

Saved = Callable[..., Path]

PARTLY = {"electra-projected": "1-2"}
CROSS_READS_NO_NORM = ("gpt2-cross", "bert-cross", "bert+gpt2-bridged")


@pytest.mark.parametrize("fold", ["key", "value", "query", "key:weight,value:weight,query:weight", "query:norm"])
@pytest.mark.parametrize("name", NAMES)
def test_every_fold_of_every_family(saved: Saved, name: str, fold: str, tmp_path: Path) -> None:
    source = saved(name, "F64")
    selectors: dict[str, str] = {"layers": PARTLY[name]} if name in PARTLY else {}
    if name in CROSS_READS_NO_NORM and "weight" in fold:
        selectors["attention"] = "self"
    if (name, fold) == ("bert-cross", "query:norm"):
        selectors["attention"] = "self"  # without states from the caller, cross-attention cannot make up for a shift
    certificate = verify(variant_of(source, tmp_path / "out", fold=fold, **selectors), source, layerwise=True)
    assert certificate.passed, certificate.reasons
    assert [run.where for run in certificate.runs] == list(sites_of(source))
    assert certificate.algebra is not None and certificate.algebra.error < 1e-11
    assert certificate.mode == "layerwise" and Certificate.loads(certificate.dumps()) == certificate


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("name", ["distilbert", "gpt2", "gpt2-cross", "mbart"])
def test_at_the_noise_floor(saved: Saved, name: str, dtype: str, tmp_path: Path) -> None:
    source = saved(name, dtype)
    certificate = verify(variant_of(source, tmp_path / "out", fold="key,value"), source, layerwise=True)
    assert certificate.passed, certificate.reasons
    for run in certificate.runs:
        (figure,) = run.deployed
        assert figure.floor is not None and 0 < figure.floor < 0.1


@pytest.mark.parametrize("name", ["distilbert", "gpt2", "bart", "bert+bert"])
def test_dropping_shows_in_every_site(saved: Saved, name: str, tmp_path: Path) -> None:
    for projection in ("query", "value"):
        variant = variant_of(saved(name), tmp_path / projection, drop=projection)
        certificate = verify(variant, saved(name), layerwise=True)
        assert certificate.lossy and not certificate.passed
        assert all(not run.deployed[0].passed and not run.algebra[0].passed for run in certificate.runs)


@pytest.mark.parametrize("plan", [True, False])
@pytest.mark.parametrize(
    "name", ["transformer.h.1.mlp.c_fc.weight", "transformer.h.1.ln_1.bias", "transformer.wpe.weight"]
)
def test_a_change_elsewhere_fails(saved: Saved, name: str, plan: bool, tmp_path: Path) -> None:
    right = variant_of(saved("gpt2"), tmp_path / "right", fold="value")

    def change(values: dict[str, torch.Tensor]) -> None:
        values[name] += 1e-3

    certificate = verify(edited(right, tmp_path / "wrong", change, plan=plan), saved("gpt2"), layerwise=True)
    assert not certificate.passed
    assert certificate.tensors is not None and certificate.tensors.wrong[0].startswith(f"{name}: differs")


def test_the_ratio_to_the_noise_floor_does_not_hang_on_the_seed(tmp_path: Path) -> None:
    """As largest values, it was 2.8 to 4.4 times with these seeds at this site, whose fold amplifies 119 times."""
    variant = variant_of(resolve("embedded:bart").path, tmp_path / "out", fold="key,value,query")
    ratios = []
    for seed in range(6):
        certificate = verify(variant, "embedded:bart", layerwise=True, seed=seed)
        assert certificate.passed, certificate.reasons
        (note,) = (note for note in certificate.notes if note.startswith("Largest against its noise floor"))
        assert "decoder.0.cross" in note and "rounding error of its bias by 119" in note
        (run,) = (run for run in certificate.runs if run.where == "decoder.0.cross")
        assert run.amplification == pytest.approx(119, abs=1)
        figure = run.deployed[0]
        assert figure.floor is not None and figure.bound == pytest.approx(4 * figure.floor), "the floor, and no less"
        ratios.append(figure.error / figure.floor)
    assert max(ratios) < 1.2 * min(ratios) and max(ratios) < 3.2


@pytest.mark.parametrize("channel", [0, 31])
def test_one_wrong_value_shows_without_a_plan(saved: Saved, channel: int, tmp_path: Path) -> None:
    """A root mean square over a whole output still sees a single channel that is off by little."""
    right = variant_of(saved("gpt2"), tmp_path / "right", fold="value")

    def change(values: dict[str, torch.Tensor]) -> None:
        values["transformer.h.1.attn.c_proj.bias"][channel] *= 1 + 1e-4

    certificate = verify(edited(right, tmp_path / "wrong", change, plan=False), saved("gpt2"), layerwise=True)
    assert [run.where for run in certificate.runs if not run.deployed[0].passed] == ["decoder.1.self"]


def test_what_amplifies_is_said_where_it_fails(saved: Saved, tmp_path: Path) -> None:
    variant = variant_of(saved("bart"), tmp_path / "out", fold="query:norm", max_loss=1)
    certificate = verify(variant, saved("bart"), layerwise=True)
    failed = {run.where: run.amplification for run in certificate.runs if not run.deployed[0].passed}
    assert failed and len(certificate.reasons) == len(failed)
    for reason, (where, amplification) in zip(certificate.reasons, failed.items(), strict=True):
        assert amplification is not None and amplification > 1
        assert reason.startswith(f"{where}, output: ")
        assert reason.endswith(f"multiplies the rounding error of its bias by {amplification:.3g}.")


@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_sequences_do_not_see_each_other(saved: Saved, name: str) -> None:
    checkpoint = open_checkpoint(saved(name, "F64"))
    for index, site in enumerate(sites_of(saved(name, "F64")).values()):
        states = layerwise._states(checkpoint, site, [0, index])
        together = layerwise.site_output(site, checkpoint.read, states, "F64")
        assert together.shape == (layerwise.SEQUENCES, layerwise.TOKENS, 32)
        one = layerwise._States(states.own[1:2], states.memory[1:2])
        alone = layerwise.site_output(site, checkpoint.read, one, "F64")
        assert torch.allclose(together[1:2], alone, rtol=0, atol=1e-12)


SCRIPT = """
import json, resource, sys
from hf_bias_patch.evidence.run import verify
import torch, transformers
from hf_bias_patch.evidence import layerwise
torch.ones(8, 8) @ torch.ones(8, 8)
small, large = sys.argv[1:3]
peaks = []
for folder in (small, small, large):
    assert verify(folder + "/out", folder + "/source", layerwise=True).passed
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
print(json.dumps(peaks))
"""


def test_memory_does_not_grow_with_the_checkpoint(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2Model

    sizes = {}
    for name, layers in (("small", 1), ("large", 16)):
        torch.manual_seed(0)
        model = GPT2Model(GPT2Config(n_embd=384, n_layer=layers, n_head=6, n_inner=8, vocab_size=20, n_positions=8))
        for key, value in model.named_parameters():
            if key.endswith("bias"):
                value.data.normal_()
        model.save_pretrained(tmp_path / name / "source")
        variant_of(tmp_path / name / "source", tmp_path / name / "out", fold="key,value,query", max_loss=1)
        sizes[name] = (tmp_path / name / "source/model.safetensors").stat().st_size
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "small"), str(tmp_path / "large")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second, large = json.loads(done.stdout)
    assert sizes["large"] > 35e6
    # One layer has been held by then; fifteen more may add what an allocator does, not their 35 MB.
    assert large - second < 10e6, (first, second, large)
