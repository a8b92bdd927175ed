"""Which config changes are tried: those that the source code tells apart, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hf_bias_patch.architecture.family_files import drafted, text_of
from hf_bias_patch.family_check.cases import Case
from hf_bias_patch.family_check.one_type import NotBuiltError, changes_of_type, check_type
from hf_bias_patch.family_check.small_models.config import small_config
from hf_bias_patch.family_check.sweep import sweep
from hf_bias_patch.family_check.variations import Change, changes_of, pairs, variations


def values(key: str, value: Any, source: str) -> list[Any]:
    """What a key is changed to, where it is all that the config has."""
    found = variations({key: value}, source)
    assert all(change.key == key for change in found)
    return [change.value for change in found]


def test_a_flag_is_flipped_if_the_source_reads_it() -> None:
    assert values("is_decoder", False, "if config.is_decoder: pass") == [True]
    assert values("is_decoder", True, 'getattr(config, "is_decoder", False)') == [False]
    assert values("is_decoder", False, "if config.is_decoder_too: pass") == []
    assert values("is_decoder", False, "config.is_decoder = 1") == [], "it is only written"
    assert values("is_decoder", False, '"""is_decoder is a flag"""') == [], "it is only described"


@pytest.mark.parametrize(
    "source",
    [
        'if config.kind == "b": pass\nelif "c" != self.kind: pass',
        'kind in ("a", "b") or config.kind.lower() not in ["c"]',
        'TABLE = {"a": 1, "b": 2, "c": 3}\nTABLE[config.kind]',
        'class Config:\n    kind: Literal["a", "b", "c"] = "a"\n\nconfig.kind',
        'match config.kind:\n    case "a" | "b": pass\n    case "c": pass',
        'self.inner = config.kind\nself.inner == "b" or self.inner == "c"',
        'other = config.kind\nLayer(inner=other)\nself.inner == "b" or self.inner == "c"',
        'getattr(config, "kind", None) == "b" or config.get("kind") == "c"',
    ],
)
def test_a_string_becomes_each_other_one_the_source_knows(source: str) -> None:
    assert values("kind", "a", source) == ["b", "c"]


def test_a_table_of_another_key_tells_nothing() -> None:
    assert values("kind", "a", 'TABLE = {"a": 1, "b": 2}\nTABLE[config.other]\nconfig.kind') == []


def test_none_becomes_what_its_class_allows() -> None:
    def of(annotation: str) -> list[Any]:
        asked = 'if config.x == "s" or "m" in config.x or "n" in config.x: pass'
        return values("x", None, f"class Config:\n    x: {annotation} = None\n\n{asked}")

    lists = [["m"], ["n"], ["m", "n"]]
    assert of("int | None") == [3, *lists]
    assert of("float | None") == of("float | int | None") == [2.0, *lists]
    assert of("bool | None") == [True, *lists]
    assert of("str | list[str] | None") == ["s", *lists]
    assert values("clip", None, "config.clip") == [2.0], "no annotation tells"
    assert values("head_dim", None, "config.head_dim") == [], "a size"


def test_a_number_becomes_none_or_zero_where_that_is_asked_for() -> None:
    def of(annotation: str, source: str) -> list[Any]:
        return values("cap", 30.0, f"class Config:\n    cap: {annotation} = 30.0\n\n{source}")

    assert of("float | None", "config.cap") == [None]
    assert of("float", "if config.cap and config.x: pass") == of("float", "config.cap > 0") == [0]
    assert of("float", "2.0 * config.cap") == []
    assert values("kind", 1, "config.kind == 2 or config.kind in (1, 3)") == [2, 3]
    assert values("ranks", 1, "config.ranks > 1") == [2] and values("ranks", 2, "config.ranks <= 1") == [1], "a bound"
    assert values("hidden_size", 64, "if config.hidden_size: pass") == [], "a size"


def test_a_key_that_the_config_lacks_gets_another_value_than_is_meant() -> None:
    def of(source: str) -> list[tuple[str, Any]]:
        return [(change.key, change.value) for change in variations({"there": 1}, source)]

    assert of('getattr(config, "share_att_key", False)') == [("share_att_key", True)]
    assert of('getattr(self.config, "kernel", 5)\ngetattr(config, "kernel", -1)') == [("kernel", 5), ("kernel", -1)]
    assert of('getattr(config, "norm", "none") == "layer"') == [("norm", "layer")]
    assert of('getattr(config, "there", False)') == of('getattr(module, "hook", False)') == []
    assert of('getattr(config, "hidden_size", None)') == of('getattr(config, "x", config.there)') == []


def test_pairs_are_of_two_keys_of_one_config() -> None:
    one, two, three = Change("a", True), Change("a", None), Change("b", 1)
    assert list(pairs([one, two, three, Change("text.b", 1)])) == [(one, three), (two, three)]


def test_key_value_heads_become_one() -> None:
    assert values("num_key_value_heads", 2, "config.num_key_value_heads") == [1]
    assert values("num_key_value_heads", 1, "config.num_key_value_heads") == []


def test_a_kind_of_layer_comes_in_front_and_throughout() -> None:
    source = 'for kind in config.layer_types:\n    if kind == "full": pass\n    elif kind == "sliding": pass'
    found = values("layer_types", ["full", "full"], source)
    assert found == [["sliding", "full"], ["sliding", "sliding"]]
    assert values("depths", [1, 2], "config.depths") == []


def test_what_attention_never_reads_stays() -> None:
    assert values("auxiliary_loss", False, "if config.auxiliary_loss: pass") == [True], "it does, in DETR"
    for key in (
        "use_cache",
        "guided_attention_loss",
        "attention_dropout",
        "pad_token_id",
        "layer_norm_eps",
        "tie_word_embeddings",
    ):
        assert values(key, True, f"if config.{key}: pass") == []


def test_tables_without_a_class_are_entered_and_others_left() -> None:
    config = {"attn": {"clip": None}, "text_config": {"model_type": "bert", "clip": None}, "id2label": {0: "x"}}
    assert variations(config, "config.clip") == (Change("attn.clip", 2.0),)


def test_a_change_says_what_it_is() -> None:
    assert str(Change("pos_att_type", ["p2c"])) == 'pos_att_type = ["p2c"]'
    assert (
        str(Case("bert", (Change("x", None), Change("y", 1)))) == "bert with x = null, y = 1"
        and str(Case("bert")) == "bert"
    )


def test_changes_of_real_types() -> None:
    def of(model_type: str) -> set[str]:
        return {str(change) for change in changes_of_type(model_type)}

    assert {'pos_att_type = ["p2c"]', "relative_attention = true", "share_att_key = true"} <= of("deberta-v2")
    assert {"alibi = true", "new_decoder_architecture = true", "bias = false", "num_kv_heads = 1"} <= of("falcon")
    assert {"clip_qkv = 2.0", "attention_bias = false"} <= of("olmo")
    llava = of("llava")
    assert {'vision_feature_select_strategy = "full"', "text_config.num_key_value_heads = 1"} <= llava
    assert "num_key_value_heads = 1" not in llava


def test_a_config_is_left_as_it_is() -> None:
    config = small_config("llava")
    before = config.to_dict()
    assert changes_of(config) and config.to_dict() == before


def test_what_cannot_be_built_is_told_from_what_cannot_be_checked() -> None:
    with pytest.raises(NotBuiltError, match="not a multiple of the number of attention heads"):
        check_type("bert", changes={"num_attention_heads": 7})
    with pytest.raises(NotBuiltError, match="no_such_type"):
        changes_of_type("no_such_type")
    items = [Case("bert", (Change("num_attention_heads", 7),)), Case("bert", (Change("is_decoder", True),))]
    refused, fine = sorted(sweep(items), key=lambda swept: swept.built)
    assert not refused.built and "not a multiple" in refused.problem and not refused.agreed
    assert fine.built and not fine.problem and fine.agreed == 6
    assert fine.plain()["changes"] == ({"key": "is_decoder", "value": True},)


def test_a_config_that_overrules_a_change_is_no_check_of_it() -> None:
    with pytest.raises(NotBuiltError, match="makes sliding_window = None of it"):
        check_type("qwen2", changes={"sliding_window": 4, "use_sliding_window": False})


@pytest.fixture
def widened() -> Iterator[None]:
    """OLMo's family, taken to cover clipped projections."""
    with drafted("olmo", text_of("olmo").replace('[handled]\nclip_qkv = ["null"]\n', "")):
        yield


def test_a_family_that_covers_too_much_is_found(widened: None) -> None:
    changes = [change for change in changes_of_type("olmo") if change.key == "clip_qkv"]
    default, clipped = sweep([Case("olmo"), *(Case("olmo", (change,)) for change in changes)])
    assert default.agreed and not default.wrong and not default.problem
    assert clipped.wrong and not clipped.problem


def test_a_family_that_does_not_cover_a_value_promises_nothing() -> None:
    change = {"position_embedding_type": "relative_key"}
    checked = check_type("bert", changes=change)
    assert not checked.wrong and not checked.agreed and checked.differences
    assert all("does not cover position_embedding_type" in item.table for item in checked.differences)
