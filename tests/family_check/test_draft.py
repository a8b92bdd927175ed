"""Drafted families: what a draft says, what it asks a person to look at, and that the check after it can fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from hf_bias_patch.architecture.family import is_known, parsed
from hf_bias_patch.architecture.family_files import drafted
from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.family_check.added_biases import give_biases
from hf_bias_patch.family_check.draft.config_keys import blocker_tables, by_layers
from hf_bias_patch.family_check.draft.family_file import family_text, joined
from hf_bias_patch.family_check.draft.names import Numbering, reads_pattern
from hf_bias_patch.family_check.draft.run import Draft, draft
from hf_bias_patch.family_check.draft.several import Drafts
from hf_bias_patch.family_check.one_type import check_type, config_of_type
from hf_bias_patch.family_check.published import tomllib
from hf_bias_patch.family_check.small_models.config import small_config
from hf_bias_patch.family_check.small_models.model import small_model
from hf_bias_patch.models.float64 import in_single_steps
from hf_bias_patch.models.inputs.random_inputs import inputs_of
from hf_bias_patch.models.run import run
from hf_bias_patch.patching.in_memory import ModelTensors
from hf_bias_patch.probing.probe import probe
from hf_bias_patch.probing.trace import Trace
from tests.probing.traps import WIDTH, Attention, Model, tokens


def entries(found: Draft) -> list[dict[str, Any]]:
    attention: list[dict[str, Any]] = tomllib.loads(found.text)["attention"]
    return attention


@contextmanager
def instead(found: Draft, text: str = "") -> Iterator[None]:
    """A draft, or another text, in place of all that the families say of its type."""
    with Drafts() as drafts:
        drafts._forget(found.model_type)
        with drafted("drafted", text or found.text):
            yield


@pytest.mark.parametrize("model_type", ["phi", "whisper", "gpt2", "vit", "gpt_oss"])
def test_a_draft_agrees_with_the_numbers_and_promises_what_the_hand_written_family_does(model_type: str) -> None:
    by_hand = check_type(model_type)
    (found,) = draft(model_type, vary=False)
    with instead(found):
        checked = check_type(model_type)
    assert not checked.differences and checked.agreed == by_hand.agreed > 0
    assert checked.closable == by_hand.closable


def test_flags_that_give_biases_are_told() -> None:
    (found,) = draft("llama", vary=False)
    assert "off by default, and on in the draft: attention_bias" in found.look[-1] and "rotary" in found.text


def test_a_config_value_that_brings_a_trap_is_its_condition() -> None:
    (found,) = draft("phi")
    (entry,) = entries(found)
    traps = {trap["trap"]: trap for trap in entry["traps"]}
    assert traps["rotary"] == {"trap": "rotary"}
    assert traps["qk_norm"]["when"] == {"qk_layernorm": {"not": [False, "missing"]}}
    assert entry["reads"] == "layers.{layer}.input_layernorm"


def test_the_check_convicts_a_draft_that_promises_too_much() -> None:
    (found,) = draft("phi", vary=False)
    text = found.text.replace('traps = [{trap = "rotary"}]\n', "")
    assert text != found.text
    with instead(found, text):
        checked = check_type("phi")
    assert {difference.kind for difference in checked.wrong} == {"wrong"}


def test_a_norm_of_another_stack_and_of_the_layer_before() -> None:
    (found,) = draft("bart", vary=False)
    encoder, decoder, cross = entries(found)
    assert encoder["reads"] == "encoder.layers.{before}.final_layer_norm"
    assert encoder["reads_first"] == "encoder.layernorm_embedding" and encoder["dropout_after_first"]
    assert encoder["layerdrop"] == "encoder_layerdrop" and decoder["layerdrop"] == "decoder_layerdrop"
    assert cross["kind"] == "cross" and cross["reads"]["value"] == "encoder.layers.{last}.final_layer_norm"
    assert cross["reads"]["query"] == "decoder.layers.{layer}.self_attn_layer_norm"


def test_orders_that_look_alike_with_few_heads_are_told_apart_with_more() -> None:
    """CodeGen's four shards are its four heads in a small model."""
    (found,) = draft("codegen", vary=False)
    (entry,) = entries(found)
    assert entry["layouts"] == [{"order": "four shards"}]
    assert entry["maps"]["h.{layer}.attn.qkv_proj"] == ["query", "value", "key"]
    assert any("has no bias there" in text for text in found.look)


def test_maps_of_latent_attention_share_a_head_in_other_sizes() -> None:
    (found,) = draft("deepseek_v3", vary=False)
    (entry,) = entries(found)
    assert entry["layouts"] == [{"order": "per head", "sizes": {"key": "qk_nope_head_dim", "value": "v_head_dim"}}]
    assert any("kv_a_proj_with_mqa" in text for text in found.look)
    # No stock model reads biases there, so a check of the type leaves out those that were given: the rows are held
    # against what the probe sees.
    model = small_model(config_of_type("deepseek_v3", {"v_head_dim": 24, "q_lora_rank": 40}))
    with instead(found):
        sites = find_sites(model.config.to_dict(), ModelTensors(model).tensors)
    slots = [slot for site in sites for slot in site.slots.values() if slot.projection != "output"]
    rows = {(str(s.weight), s.projection): s.rows.take(np.arange(s.rows.axis)).tolist() for s in slots}
    inputs = inputs_of(model)
    give_biases(model, lambda: run(model, inputs))
    probed = probe(model, lambda: run(model, inputs)).findings
    seen = {(one.parameter.removesuffix("bias") + "weight", one.projection): list(one.indices) for one in probed}
    assert len(rows) == 6 and rows.items() <= seen.items()


def test_types_of_one_body_end_in_one_file_and_stay_there_while_the_block_lasts() -> None:
    with Drafts() as drafts:
        found = list(drafts.draft(["glm", "convnext", "no_such_type"], vary=False))
        assert [one.model_type for one in found] == ["glm", "convnext"] and drafts.failed.keys() == {"no_such_type"}
        assert found[0].joins in ("qwen2", "llama") and found[1].joins == "without_attention"
        assert "glm" in parsed("x", drafts.files[found[0].joins]).model_types
        assert is_known("glm") and is_known("convnext")
    assert is_known("glm")


def test_a_draft_stands_beside_the_families_for_a_block_only() -> None:
    assert not is_known("made_up")
    with drafted("made_up", 'model_types = ["made_up"]\n'):
        assert is_known("made_up")
    assert not is_known("made_up")


def test_biases_are_given_where_there_are_none() -> None:
    model = small_model(small_config("gpt_neo"))
    inputs = inputs_of(model)
    before = set(dict(model.named_parameters()))
    given = give_biases(model, lambda: run(model, inputs))
    assert set(given) == set(dict(model.named_parameters())) - before
    assert {name.split(".")[-2] for name in given} == {"q_proj", "k_proj", "v_proj"}
    assert all(float(model.get_parameter(name).detach().abs().min()) > 0 for name in given)
    assert give_biases(model, lambda: run(model, inputs)) == ()


def test_no_bias_is_given_to_a_map_that_has_one_apart() -> None:
    """As in DeBERTa: a bias of queries is a parameter of its own, added to what one map makes of them and of keys."""

    class Apart(Attention):
        def __init__(self) -> None:
            super().__init__()
            self.fused = torch.nn.Linear(WIDTH, 2 * WIDTH, bias=False)
            self.value = torch.nn.Linear(WIDTH, WIDTH, bias=False)
            self.query_bias = torch.nn.Parameter(torch.zeros(WIDTH))

        def scores(self, query: torch.Tensor, key: torch.Tensor, normed: torch.Tensor) -> torch.Tensor:
            query, key = self.fused(normed).chunk(2, -1)
            return super().scores(self.split(query + self.query_bias), self.split(key), normed)

    model = Model(Apart)
    assert give_biases(model, lambda: model(tokens())) == ("layer.value.bias",)


def test_keys_that_are_copied_together_are_followed() -> None:
    weight = torch.nn.Parameter(torch.randn(4, 3, dtype=torch.float64))
    other = torch.nn.Parameter(torch.randn(2, 3, dtype=torch.float64))
    trace = Trace({"a": weight, "b": other})
    with in_single_steps(), trace:
        x = torch.randn(5, 3, dtype=torch.float64)
        one, two = x @ weight.T, x @ other.T
        key = one.new_empty(5, 6)
        key[..., :4].copy_(one)
        key[..., 4:].copy_(two)
        scores = (key @ key.T).softmax(-1)
        scores @ one
    (mixing,) = trace.mixings
    names = {elements.parameter for elements in trace.codes.elements(mixing.scores[0].left)}
    assert names == {"a", "b"}


def test_patterns_of_norms() -> None:
    own = {(0, layer): (f"layers.{layer}.norm", f"layers.{layer}.attn.q") for layer in range(3)}
    assert reads_pattern(own, 2) == ("layers.{layer}.norm", "")
    before = {
        (0, 0): ("embed", "layers.0.q"),
        (0, 1): ("layers.0.n", "layers.1.q"),
        (0, 2): ("layers.1.n", "layers.2.q"),
    }
    assert reads_pattern(before, 2) == ("layers.{before}.n", "embed")
    assert reads_pattern({**before, (0, 2): ("layers.0.n", "layers.2.q")}, 2) == ("layers.0.n", "embed")
    assert reads_pattern({**before, (0, 2): ("", "layers.2.q")}, 2) is None
    numbering = Numbering(["stages.0.blocks.0.q", "stages.0.blocks.1.q", "stages.1.blocks.0.q"])
    assert numbering.pattern("stages.1.blocks.0.q") == "stages.{stage}.blocks.{layer}.q"
    assert Numbering(["a.0.b.1.c", "a.1.b.1.c"]).pattern("a.1.b.1.c") == "a.{layer}.b.1.c"


def test_layers_are_told_by_a_list_of_the_config() -> None:
    config = {"layer_types": ["full", "sliding", "full"], "no_rope_layers": [1, 0, 1], "global": [1]}
    assert by_layers({0, 1, 2}, {0, 1, 2}, config) == {}
    assert by_layers({1}, {0, 1, 2}, config) == {"layers": "layer_types", "values": ["sliding"]}
    assert by_layers({1}, {1, 2}, {"global": [1]}) == {"only": "global"}
    assert by_layers({2}, {1, 2}, {"global": [1]}) == {"but": "global"}
    assert by_layers({0}, {0, 1, 2}, config) is None


def test_a_value_that_was_not_tried_counts_as_one_with_the_trap() -> None:
    flips = {"rotary": {"kind": [("alibi", None), ("rope", {})]}, "clip": {"clip": [(2.0, {}), (None, None)]}}
    tables = blocker_tables({"rotary": {}}, flips, {"kind": "rope", "clip": None})
    assert tables == [
        {"trap": "rotary", "when": {"kind": {"not": ["alibi"]}}},
        {"trap": "clip", "when": {"clip": {"not": ["null", "missing"]}}},
    ]


def test_texts_are_families() -> None:
    table = {
        "stack": "decoder",
        "kind": "self",
        "traps": [{"trap": "rotary", "when": {"a.b": {"not": [None, False, 'x"y']}}}] * 3,
        "maps": {"h.{layer}.q": ["query"], "h.{layer}.k": ["key"]},
    }
    table["traps"][0]["when"]["a.b"]["not"][0] = "null"  # type: ignore[index]
    text = family_text(["b", "a"], {"stacks": {"decoder": {"heads": "n_head"}}, "attention": [table]})
    assert tomllib.loads(text)["attention"] == [table] and parsed("x", text).model_types == ("a", "b")
    many = [f"type_{number:03}" for number in range(40)]
    more = joined(text, many)
    assert parsed("x", more).model_types == tuple(many) and more.partition("[stacks")[2] == text.partition("[stacks")[2]
    assert max(map(len, more.splitlines())) <= 120
