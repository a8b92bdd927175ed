"""A folder that holds no weights itself says where they are, or in which format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hf_bias_patch import inspect
from hf_bias_patch.checkpoint.choice import entry_name
from hf_bias_patch.errors import CheckpointError

Saved = Callable[..., Path]


def test_the_module_of_an_old_sentence_transformers_folder(saved: Saved, tmp_path: Path) -> None:
    """Before release 2 the transformer was in a folder of its own, and config.json was of the whole."""
    shutil.copytree(saved("bert"), tmp_path / "0_Transformer")
    (tmp_path / "config.json").write_text('{"__version__": "0.4.1"}')
    (tmp_path / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "0_Transformer"}]))
    with pytest.raises(CheckpointError, match=r"modules\.json.*Point to \S+/0_Transformer\.$"):
        inspect(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json.*modules\.json.*0_Transformer"):
        inspect(tmp_path)
    assert inspect(tmp_path / "0_Transformer").sites


def test_a_pipeline_and_a_run_name_all_of_their_models(saved: Saved, tmp_path: Path) -> None:
    for name in ("text_encoder", "text_encoder_2"):
        shutil.copytree(saved("bert"), tmp_path / name)
    (tmp_path / "tokenizer").mkdir()
    with pytest.raises(CheckpointError, match=r"in a folder below: text_encoder, text_encoder_2\. Point to"):
        inspect(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"pipeline of several models"):
        inspect(tmp_path)


def test_of_a_model_on_the_hub_a_folder_is_downloaded() -> None:
    below = ["0_Transformer/config.json", "0_Transformer/model.safetensors", "1_Pooling/config.json"]
    with pytest.raises(CheckpointError, match=r"hf download owner/name.*point to its 0_Transformer"):
        entry_name(Path("owner/name"), ["config.json", "modules.json"], {}, below)


def test_nothing_at_all_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match=r"holds no weights\. There is no model\.safetensors"):
        inspect(tmp_path)
