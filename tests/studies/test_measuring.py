"""An arm's figures are those of the plain way: a model of its own, edited, run as a whole."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AlbertConfig, AlbertModel, LlamaConfig, LlamaForCausalLM

from hf_bias_patch.studies.biases.arms import Arm, Target, head_arms, layer_arms, removal_arms, whole_arms
from hf_bias_patch.studies.biases.fills import filled
from hf_bias_patch.studies.measuring.bench import Bench
from hf_bias_patch.studies.measuring.effects import run
from hf_bias_patch.studies.measuring.inputs import TokenisedTexts
from tests.models import fresh, randomise

FORMS = {"bert": "masked", "gpt2": "causal", "bart": "seq2seq"}
WIDTH, HEADS = 32, 4


def _inputs(form: str | None) -> TokenisedTexts:
    random = np.random.default_rng(0)
    rows = tuple(tuple(int(token) for token in random.integers(4, 60, length)) for length in (9, 17, 5, 12, 30, 2))
    return TokenisedTexts(rows, 0, 40, form, 0, 3, 2, 0)  # type: ignore[arg-type]


def _bench(name: str, dtype: torch.dtype = torch.float32) -> Bench:
    return Bench(fresh(name, dtype=dtype), _inputs(FORMS[name]), batch_tokens=48)


def _arms(bench: Bench) -> list[Arm]:
    sites = list(bench.biases.sites.values())
    layers = list(layer_arms(sites))
    return [
        *whole_arms(sites, ["zeros", "uniform in ±5", "shuffled across heads"]),
        *layers,
        *list(head_arms(sites, ("value", "query")))[::5],
        *removal_arms([arm.targets[0] for arm in layers], 3),
    ]


def _plainly_changed(bench: Bench, arm: Arm) -> Any:
    """Written for tiny models of three layouts alone: maps of their own, and GPT-2's fused one."""
    model = copy.deepcopy(bench.model)
    parameters = dict(model.named_parameters())
    for target in arm.targets:
        name = bench.biases.sites[target.site].slots[target.projection].bias
        assert name is not None
        start = WIDTH * ("query", "key", "value").index(target.projection) if name.endswith("c_attn.bias") else 0
        part = parameters[name].data[start : start + WIDTH]
        new = torch.from_numpy(
            filled(arm.fill, part.double().numpy().copy(), HEADS, 0, f"{target.site}.{target.projection}")
        )
        rows = slice(None) if target.head is None else slice(8 * target.head, 8 * target.head + 8)
        part[rows] = new[rows].to(part.dtype)
    return model


@pytest.mark.parametrize("name", FORMS)
def test_figures_are_those_of_the_plain_way(name: str) -> None:
    bench = _bench(name)
    arms = _arms(bench)
    moved = 0
    for arm, found in zip(arms, bench.measure(arms), strict=True):
        model = _plainly_changed(bench, arm)
        one, two, losses, divergences = [], [], [], []
        for batch in bench.inputs.batches(48, "cpu"):
            before, after = run(bench.model, batch), run(model, batch)
            one.append(before.states.double())
            two.append(after.states.double())
            assert before.losses is not None and after.losses is not None
            assert before.log_probs is not None and after.log_probs is not None
            losses.append(torch.stack([before.losses, after.losses]).double())
            apart = before.log_probs.double().exp() * (before.log_probs.double() - after.log_probs.double())
            divergences.append(apart.sum(-1))
        first, second, both = torch.cat(one), torch.cat(two), torch.cat(losses, 1)
        apart = second - first
        assert found["largest"] == float(apart.abs().max())
        assert found["relative"] == pytest.approx(float(apart.norm() / first.norm()), rel=1e-9)
        assert found["distance"] == pytest.approx(float(apart.norm(dim=-1).mean()), rel=1e-9)
        cosine = (first * second).sum(-1) / first.norm(dim=-1) / second.norm(dim=-1)
        assert found["cosine"] == pytest.approx(float(cosine.mean()), rel=1e-9)
        assert found["kl"] == pytest.approx(float(torch.cat(divergences).mean()), rel=1e-4, abs=1e-7)
        rounds = 1e-6 if bench.narrows else 1e-12  # a product of another shape rounds otherwise, in float32
        assert found["loss_change"] == pytest.approx(float((both[1] - both[0]).mean()), rel=1e-6, abs=rounds)
        assert found["perplexity"] == pytest.approx(math.exp(float(both[1].mean())), rel=max(1e-9, rounds))
        assert 0 <= found["agreement"] <= 1
        moved += found["relative"] > 1e-3
        keys_only = {target.projection for target in arm.targets} == {"key"}
        assert (found["relative"] < 1e-5) if keys_only else (found["relative"] > 1e-4)
    assert moved > len(arms) / 3, "vacuous"
    assert bench.skips and not bench.notes and bench.narrows == (name == "bert")


def test_a_head_is_asked_where_a_token_is() -> None:
    """To the last digits of float64, and only where the head takes it."""
    narrow, wide = (_bench("bert", torch.float64) for _ in range(2))
    wide.narrows = False
    arms, shapes = _arms(narrow), set()
    head = narrow.model.get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, output: shapes.add(output.ndim))
    ours, theirs = narrow.measure(arms), wide.measure(arms)
    for one, two in zip(ours, theirs, strict=True):
        assert one == pytest.approx(two, rel=1e-9, abs=1e-12)
    assert narrow.narrows and shapes == {2, 3} and any(abs(one["loss_change"]) > 1e-3 for one in ours)


def test_a_head_that_answers_otherwise_gets_all_places() -> None:
    bench = _bench("bert")
    head = bench.model.get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, output: output * 2 if output.ndim > 2 else output)
    assert bench.measure(_arms(bench)[:1])[0]["kl"] > 0 and not bench.narrows


@pytest.mark.parametrize("name", FORMS)
def test_the_model_is_as_it_was(name: str) -> None:
    bench = _bench(name)
    before = {key: value.clone() for key, value in bench.model.state_dict().items()}
    bench.measure(_arms(bench))
    assert all(torch.equal(value, before[key]) for key, value in bench.model.state_dict().items())
    assert not any("forward" in vars(module) for module in bench.model.modules())


FIRST = {"bert": "bert.encoder.layer.0", "gpt2": "transformer.h.0", "bart": "model.decoder.layers.0"}


def test_an_arm_that_fails_leaves_it_as_it_was() -> None:
    bench = _bench("bert")
    before = {key: value.clone() for key, value in bench.model.state_dict().items()}
    bias = bench.model.get_submodule(FIRST["bert"]).attention.self.value.bias

    def fail(module: Any, inputs: Any) -> None:
        if not bias.any():
            raise ZeroDivisionError

    bench.model.register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError):
        bench.measure(_arms(bench)[-1:])
    assert all(torch.equal(value, before[key]) for key, value in bench.model.state_dict().items())
    assert not any("forward" in vars(module) for module in bench.model.modules())


@pytest.mark.parametrize("memory", [0, 2**20])
@pytest.mark.parametrize("name", FORMS)
def test_layers_before_a_change_do_not_run(name: str, memory: int) -> None:
    """But once, for what arms are compared with: for all calls, or where that takes too much memory, for each."""
    bench = _bench(name)
    bench.memory = memory
    arms = [Arm("layer", "", "value", "zeros", (Target(list(bench.biases.sites)[-1], "value"),))]
    first = bench.measure(arms)
    inner = next(bench.model.get_submodule(FIRST[name]).children())
    ran: list[str] = []
    inner.register_forward_hook(lambda *_: ran.append(name))
    assert bench.measure(arms) == first and first[0]["relative"] > 1e-4
    assert len(ran) == (0 if memory else len(list(bench.inputs.batches(48, "cpu"))))


def test_a_forward_that_somebody_put_there_stays() -> None:
    bench = _bench("bert")
    layer = bench.model.get_submodule(FIRST["bert"])
    mine = layer.forward
    layer.forward = mine  # type: ignore[method-assign]
    bench.measure(_arms(bench)[-4:])
    assert vars(layer)["forward"] is mine


def test_layers_that_are_shared_all_run() -> None:
    config = AlbertConfig(
        vocab_size=60,
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
    )
    bench = Bench(randomise(AlbertModel(config)).eval(), _inputs(None), batch_tokens=48)
    arms = list(layer_arms(list(bench.biases.sites.values())))
    found = bench.measure(arms)
    assert all(set(figures) == {"largest", "distance", "root_square", "relative", "cosine"} for figures in found)
    plain = copy.deepcopy(bench.model)
    name = bench.biases.sites[arms[-1].targets[0].site].slots["value"].bias
    dict(plain.named_parameters())[str(name)].data.zero_()
    batch = next(bench.inputs.batches(10_000, "cpu"))
    apart = run(plain, batch).states.double() - run(bench.model, batch).states.double()
    assert arms[-1].projection == "value" and found[-1]["distance"] == pytest.approx(
        float(apart.norm(dim=-1).mean()), rel=1e-5
    )


def test_rotary_keys_matter() -> None:
    config = LlamaConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, max_position_embeddings=40, attention_bias=True,
    )  # fmt: skip
    bench = Bench(randomise(LlamaForCausalLM(config)).eval(), _inputs("causal"), batch_tokens=48)
    arms = [arm for arm in whole_arms(list(bench.biases.sites.values()), ["zeros"]) if arm.projection == "key"]
    assert bench.measure(arms)[0]["relative"] > 1e-3


def test_a_skip_that_changes_anything_is_not_used() -> None:
    """The last layer of this model gives out something else where the first one did not run."""
    bench = _bench("bert")
    first = bench.model.get_submodule(FIRST["bert"])
    ran: list[bool] = []

    def last(module: Any, inputs: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        changed = states if ran else states * 1.01
        ran.clear()
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    first.attention.register_forward_hook(lambda *_: ran.append(True))
    bench.model.bert.encoder.layer[-1].register_forward_hook(last)
    found = bench.measure(_arms(bench))
    assert not bench.skips and len(bench.notes) == 1 and "ran the whole model" in bench.notes[0]
    assert found == _bench("bert").measure(_arms(bench))


def test_the_floor_is_rounding_and_falls_with_the_dtype() -> None:
    floors = [_bench("gpt2", dtype).floor()["relative"] for dtype in (torch.bfloat16, torch.float32, torch.float64)]
    assert floors[0] > 1e3 * floors[1] > 1e3 * floors[2] and floors[2] == 0


def test_where_memory_does_not_suffice_batches_are_halved() -> None:
    bench = _bench("bert")
    arms = _arms(bench)[:3]
    usual = bench.measure(arms)

    def short(module: Any, inputs: Any, keywords: Any) -> None:
        if keywords["input_ids"].numel() > 32:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    small = _bench("bert")
    small.batch_tokens = 96
    hook = small.model.register_forward_pre_hook(short, with_kwargs=True)
    found = small.measure(arms)
    assert small.batch_tokens <= 32 and "batches are of" in small.notes[-1]
    for one, two in zip(found, usual, strict=True):
        assert one == pytest.approx(two, rel=1e-3, abs=1e-5)
    hook.remove()

    def broken(module: Any, inputs: Any) -> None:
        raise RuntimeError("a bug")

    small.model.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="a bug"):
        small.measure(arms)
