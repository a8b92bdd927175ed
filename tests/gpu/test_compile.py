"""Compiled training: inductor writes kernels of its own for a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers

from hf_bias_patch.assets import folder as embedded
from tests.gpu.runs import changed, glue, losses, saved

pytestmark = pytest.mark.gpu
VALUES = {f"bert.encoder.layer.{layer}.attention.self.value.bias" for layer in range(4)}


def without_dropout(folder: Path) -> Path:
    """The embedded BERT, without dropout."""
    out = folder / "bert"
    config = transformers.AutoConfig.from_pretrained(embedded("bert"))
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    transformers.AutoModelForMaskedLM.from_pretrained(embedded("bert"), config=config).save_pretrained(out)
    transformers.AutoTokenizer.from_pretrained(embedded("bert")).save_pretrained(out)
    return out


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # inductor's own
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_compiled_it_learns_the_same(device: str, tmp_path: Path, precision: str) -> None:
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    # Without dropout's random numbers, which compiled code draws in another order, and one length.
    given = {
        "model_name_or_path": str(without_dropout(tmp_path)),
        "mixed_precision": precision,
        "max_train_samples": 64,
    }
    glue(plain, **given)
    glue(compiled, **given, torch_compile=True)
    tolerance = 1e-3 if precision == "no" else 0.05
    assert losses(compiled) == pytest.approx(losses(plain), rel=tolerance, abs=tolerance)
    assert max(losses(plain)) - min(losses(plain)) > 0.05, "vacuous"
    assert saved(compiled).keys() == saved(plain).keys()
    assert changed(compiled) == changed(plain) == VALUES
