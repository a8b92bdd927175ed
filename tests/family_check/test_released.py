"""Configs that released checkpoints have and the defaults of their types have not: the table holds for them too."""

from __future__ import annotations

from typing import Any

import pytest

from hf_bias_patch.architecture.condition import may_hold
from hf_bias_patch.family_check.one_type import check_type
from hf_bias_patch.family_check.small_models.overrides import CLASSES

DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": True, "position_buckets": 8}


@pytest.mark.parametrize(
    ("model_type", "changes", "agreed"),
    [
        ("deberta-v2", DEBERTA, 5),
        ("deberta-v2", DEBERTA | {"share_att_key": False}, 6),
        ("deberta-v2", DEBERTA | {"pos_att_type": ["c2p"], "share_att_key": False}, 6),
        ("deberta-v2", DEBERTA | {"conv_kernel_size": 3}, 6),
        ("wav2vec2-conformer", {"position_embeddings_type": "rotary"}, 4),
        ("wav2vec2-bert", {"position_embeddings_type": "rotary", "add_adapter": True}, 7),
        ("bloom", {"slow_but_exact": True, "pretraining_tp": 2}, 6),
        ("bloom", {"slow_but_exact": True}, 6),
        # Three decoder layers: the norm behind every layer feeds the value's map in the second and third, too.
        ("detr", {"auxiliary_loss": True}, 20),
        ("t5gemma", {"encoder.attn_logit_softcapping": None, "decoder.attn_logit_softcapping": None}, 18),
        ("higgs_audio_v2", {"attention_bias": False, "mlp_bias": True}, 0),  # a map that is given no tokens
        # Its cross-attention runs only where the caller passes hidden states in, and one of the runs does.
        ("bert", {"is_decoder": True, "add_cross_attention": True}, 12),
    ],
    ids=[
        "deberta-v3",
        "p2c",
        "c2p",
        "deberta-v2-xlarge",
        "rope",
        "adapter",
        "slices",
        "whole",
        "auxiliary",
        "uncapped",
        "no-tokens",
        "decoder",
    ],
)
def test_the_table_holds(model_type: str, changes: dict[str, Any], agreed: int) -> None:
    checked = check_type(model_type, changes=changes)
    assert not checked.wrong, checked.wrong
    assert checked.agreed == agreed and all(item.kind in ("missed", "unseen") for item in checked.differences)


def test_the_norm_that_feeds_a_map_depends_on_the_config() -> None:
    checked = check_type("wav2vec2", changes={"do_stable_layer_norm": True})
    assert not checked.wrong and checked.agreed + len(checked.differences) == 6


def test_a_missing_key_may_be_what_it_must_not() -> None:
    unless = {"kernel": {"not": [0, "missing"]}}
    assert may_hold(unless, {"kernel": 3}) and not may_hold(unless, {"kernel": 0}) and not may_hold(unless, {})
    assert may_hold({"kernel": {"not": [0]}}, {}), "nothing is known of it"


@pytest.mark.parametrize(
    ("model_type", "head", "agreed"),
    [
        # The first token is global: of the last layer only what the maps for global tokens give it is read, and the
        # three others are not reached.
        ("longformer", "LongformerForSequenceClassification", 9),
        ("perceiver", "PerceiverForSequenceClassification", 12),  # a decoder in its decoder
        ("blip", "BlipModel", 12),
        ("bart", "BartForCausalLM", 18),  # three layers; one of the runs has hidden states for cross-attention
    ],
)
def test_the_table_holds_for_another_class(
    model_type: str, head: str, agreed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CLASSES, model_type, head)
    checked = check_type(model_type)
    assert checked.agreed == agreed and {item.kind for item in checked.differences} <= {"unseen"}, checked.differences
