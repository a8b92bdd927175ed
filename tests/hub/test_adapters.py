"""An adapter of a base on the Hub: the commit that it was trained on counts, whatever the base is by now."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
import transformers

from hf_bias_patch import card
from hf_bias_patch.assets import folder
from hf_bias_patch.errors import SourceError
from hf_bias_patch.scoring.loading import load_scorable
from hf_bias_patch.tuning.run import tune
from hf_bias_patch.tuning.task_settings import GlueSettings
from tests.hub.server import Hub, offline
from tests.models import randomise
from tests.tuning.jobs import alone

BASE, ADAPTER = "owner/base", "owner/adapter"
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


@pytest.fixture
def adapter(hub: Hub, tmp_path: Path) -> Path:
    """Trained on the base's first commit; since then the base was changed, and this machine has forgotten it."""
    alone()
    hub.add(BASE, folder("bert"))
    short = {"max_train_samples": 16, "max_eval_samples": 4, "num_train_epochs": 1, "learning_rate": 1e-2}
    given = {"model_name_or_path": BASE, "task_name": "embedded:opinion", "train": "query,value"}
    tune(GlueSettings(output_dir=tmp_path / "run", **given, **short))
    later = tmp_path / "later"
    shutil.copytree(folder("bert"), later)
    randomise(transformers.AutoModelForMaskedLM.from_pretrained(later)).save_pretrained(later)
    hub.add(BASE, later)
    shutil.rmtree(tmp_path / "cache")
    return tmp_path / "run" / "adapter"


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=torch.arange(5, 15)[None]).logits
    return found


def test_the_base_is_taken_at_its_commit(hub: Hub, adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == BASE and len(config["revision"]) == 40
    merged = transformers.AutoModelForSequenceClassification.from_pretrained(adapter.parent / "model")
    hub.add(ADAPTER, adapter)
    found = [load_scorable(place, "classification", device="cpu")[0] for place in (str(adapter), ADAPTER)]
    found.append(peft.AutoPeftModelForSequenceClassification.from_pretrained(adapter))
    for model in found:
        assert torch.allclose(logits(model), logits(merged), rtol=1e-5, atol=1e-5)


def test_an_adapters_card_names_a_base_that_cannot_be_checked_now(hub: Hub, adapter: Path) -> None:
    with offline():
        made = card(adapter, base_model="owner/other")
    assert made.unchecked and made.base.name == "owner/other" and "base_model: owner/other" in made.text


def test_a_base_that_is_gone_is_named(hub: Hub, adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "owner/gone"}))
    with pytest.raises(SourceError, match=r"The base of the adapter .*, owner/gone at [0-9a-f]{40}, is missing"):
        load_scorable(str(adapter), "classification", device="cpu")
