"""Small models: no two sizes agree by accident, and every parameter is read by a run, or it is said why not."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from hf_bias_patch.family_check.one_type import check_type
from hf_bias_patch.family_check.reasons import reasons
from hf_bias_patch.family_check.reasons.untouched import Untouched, summary, unexplained, untouched
from hf_bias_patch.family_check.small_models.config import model_types, small_config
from hf_bias_patch.family_check.small_models.model import small_model
from hf_bias_patch.family_check.small_models.sizes import forced
from hf_bias_patch.models.inputs.random_inputs import sets_of
from hf_bias_patch.models.run import run
from hf_bias_patch.probing.check import Difference


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers, about the library itself
        yield


def sizes(model_type: str, *fields: str) -> list[int]:
    config = small_config(model_type)
    found = []
    for field in fields:
        value: Any = config
        for part in field.split("."):
            value = getattr(value, part)
        found.append(value)
    return found


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("bert", ("hidden_size", "intermediate_size", "vocab_size", "max_position_embeddings")),
        ("electra", ("hidden_size", "embedding_size", "intermediate_size")),
        ("roformer", ("hidden_size", "embedding_size", "intermediate_size")),
        ("mobilebert", ("hidden_size", "embedding_size", "intra_bottleneck_size", "intermediate_size")),
        ("opt", ("hidden_size", "word_embed_proj_dim", "ffn_dim")),
        (
            "bart",
            ("d_model", "encoder_ffn_dim", "decoder_ffn_dim", "encoder_attention_heads", "decoder_attention_heads"),
        ),
        ("whisper", ("encoder_layers", "decoder_layers", "encoder_attention_heads")),
        ("mistral", ("num_attention_heads", "num_key_value_heads")),
        ("llava", ("vision_config.hidden_size", "text_config.hidden_size")),
        ("llava", ("vision_config.num_attention_heads", "text_config.num_attention_heads")),
        ("clip", ("vision_config.hidden_size", "text_config.hidden_size", "projection_dim")),
    ],
)
def test_no_two_sizes_agree(model_type: str, fields: tuple[str, ...]) -> None:
    found = sizes(model_type, *fields)
    assert len(set(found)) == len(found), dict(zip(fields, found, strict=True))


@pytest.mark.parametrize("model_type", ["llama", "mistral", "t5", "gemma2"])
def test_heads_are_no_part_of_the_width(model_type: str) -> None:
    config = small_config(model_type)
    size = config.d_kv if model_type == "t5" else config.head_dim
    assert size * config.num_attention_heads != config.hidden_size


def test_forced_sizes_are_sizes_of_types() -> None:
    known = set(model_types())
    named = [name for name in known if forced(name)]
    assert 5 < len(named) < 200
    for name in sorted(named)[::20]:
        values = small_config(name).to_dict()
        for field in forced(name):
            part = values
            for key in field.split(".")[:-1]:
                part = part[key]
            assert field.split(".")[-1] in part, (name, field)


def test_values_may_read_another_width_than_keys() -> None:
    """Behind MobileBERT's bottleneck."""
    model = small_model(small_config("mobilebert"))
    attention = model.encoder.layer[0].attention.self
    assert attention.query.in_features == attention.key.in_features != attention.value.in_features
    checked = check_type("mobilebert")
    assert checked.agreed == 6 and not checked.differences


def test_a_map_may_stand_behind_the_embeddings() -> None:
    """RoFormer's, where they are narrower than hidden states: layer 0 reads no norm then."""
    checked = check_type("roformer")
    assert checked.agreed == 6 and not checked.differences


def test_optional_inputs_are_given_and_left_out() -> None:
    model = small_model(small_config("luke"))
    full, plain = sets_of(model)
    assert {"entity_ids", "entity_attention_mask", "entity_position_ids"} <= full.keys() - plain.keys()
    before = run(model, full)
    with torch.no_grad():
        model.encoder.layer[0].attention.self.w2e_query.bias += 1
    after = run(model, full)
    assert not torch.allclose(before["last_hidden_state"], after["last_hidden_state"])
    assert len(sets_of(small_model(small_config("gpt2")))) == 1


def test_inputs_of_another_kind_reach_other_towers() -> None:
    video, image = sets_of(small_model(small_config("video_llava")))
    assert "pixel_values_videos" in video and "pixel_values" not in video and "pixel_values" in image


def test_what_a_model_keeps_of_earlier_runs_is_forgotten() -> None:
    class LRUCache:
        def __init__(self) -> None:
            self.cache: dict[str, torch.Tensor] = {}
            self.current_load = 0

    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.store, self.weight = LRUCache(), nn.Parameter(torch.ones(2))

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": self.store.cache.setdefault("seen", x * self.weight)}

    model: Any = Keeps()
    before = run(model, {"x": torch.ones(2)})["out"]
    with torch.no_grad():
        model.weight += 1
    assert torch.equal(run(model, {"x": torch.ones(2)})["out"], 2 * before)


def test_attention_that_no_run_reads_fails_the_sweep_unless_it_is_explained() -> None:
    model = small_model(small_config("bert"))
    names = ["encoder.layer.0.attention.self.key.weight", "embeddings.word_embeddings.weight"]
    never = untouched(model, "bert", names)
    assert [(one.attention, one.reason) for one in never] == [(True, ""), (False, "")]
    (found,) = unexplained(never)
    assert isinstance(found, Difference) and found.kind == "wrong" and found.slot == names[0]
    assert list(unexplained([Untouched(names[0], True, "because")])) == []
    lines = summary([*never, Untouched("a.0.b", True, "because"), Untouched("a.1.b", True, "because")])
    assert lines[0].startswith("no run read 2 parameters: ") and lines[1] == "no run read 2 parameters (because): a.*.b"


def test_what_is_explained_is_still_there() -> None:
    known = set(model_types())
    entries = [entry for table in ("unchecked", "uncovered", "unseen", "untouched") for entry in reasons(table)]
    assert all(set(entry.model_types) <= known and len(entry.reason) > 20 for entry in entries)
    checked = check_type("levit")
    assert checked.untouched and all(one.reason for one in checked.untouched) and not checked.wrong


def test_a_map_beside_that_no_run_read_leaves_a_bias_open() -> None:
    """Without its entities, LUKE's key bias moves nothing; that proves nothing."""
    from hf_bias_patch.probing.probe import probe

    model = small_model(small_config("luke"))
    plain = sets_of(model)[-1]
    found = probe(model, lambda: run(model, plain))
    keys = [finding for finding in found.findings if finding.projection == "key"]
    assert len(keys) == 2 and {key.state for key in keys} == {"not reached"}
    assert all("w2e_query" in key.reason or "e2" in key.reason for key in keys)
    assert all(key.effect < 1e-9 for key in keys), "vacuous"
