"""A float64 model stays in float64, whatever its code casts to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from torch import nn

from hf_bias_patch.evidence.run import verify
from hf_bias_patch.models.float64 import in_float64
from tests.evidence.helpers import variant_of
from tests.models import config_of, randomise

Saved = Callable[..., Path]


def test_casts_come_back_as_float64() -> None:
    x = torch.tensor([1.0, 1.0 + 1e-12], dtype=torch.float64)
    with in_float64():
        made = [
            x.float(),
            x.half(),
            x.to(torch.float32),
            x.to(dtype=torch.bfloat16),
            x.type(torch.float16),
            nn.functional.softmax(x, -1, dtype=torch.float32),
            torch.zeros(2, dtype=torch.float32),
        ]
        assert x.long().dtype == torch.int64
    assert all(value.dtype == torch.float64 for value in made)
    assert all(torch.equal(value, x) for value in made[:5])
    assert x.float().dtype == torch.float32, "it ends with the block"


def test_a_model_that_casts_is_certified(tmp_path: Path) -> None:
    source = tmp_path / "source"
    config = config_of("gpt2", reorder_and_upcast_attn=True, scale_attn_by_inverse_layer_idx=True)
    model = randomise(transformers.GPT2LMHeadModel(config)).eval()
    model.save_pretrained(source)
    certificate = verify(variant_of(source, tmp_path / "out", fold="value"), source, attention=("eager",))
    assert certificate.passed, certificate.reasons
    assert certificate.algebra is not None and certificate.algebra.error < 1e-13
