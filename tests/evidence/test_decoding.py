"""Greedy decoding, token for token: what is a tie, what is a difference."""

from __future__ import annotations

import pytest
import torch

from hf_bias_patch.evidence.decoding import Decoded, compare_decoded, decode
from hf_bias_patch.models.inputs.text import TextFormat, TokenBatch, prompt_batches
from hf_bias_patch.patching.in_memory import apply
from tests.models import fresh

PROMPT = TokenBatch("prompts", {}, torch.ones(2, 3, dtype=torch.bool))


def decoded(*rows: list[int], gap: float = 1.0) -> Decoded:
    tokens = torch.tensor(rows)
    return Decoded(tokens, torch.full(tokens.shape, gap, dtype=torch.float64))


def test_equal_tokens() -> None:
    found = compare_decoded([PROMPT], [decoded([1, 2], [3, 4])], [decoded([1, 2], [3, 4])], floor=0.1)
    assert (found.sequences, found.tokens, found.forks) == (2, 4, ())


@pytest.mark.parametrize(("gap", "tie"), [(0.0, True), (0.2, True), (0.21, False), (float("nan"), False)])
def test_a_fork_is_a_tie_within_the_noise_of_two_logits(gap: float, tie: bool) -> None:
    ours, theirs = decoded([1, 2, 3], [4, 5, 6], gap=gap), decoded([1, 9, 9], [4, 5, 6])
    found = compare_decoded([PROMPT], [ours], [theirs], floor=0.1)
    (fork,) = found.forks
    assert (fork.row, fork.step, fork.tie) == (0, 1, tie)
    assert found.tokens == 1 + 3, "nothing behind a fork is compared"


@pytest.mark.parametrize("name", ["gpt2", "bart", "mbart", "bert-cross", "bert+bert", "bert+gpt2"])
def test_with_the_cache_as_without(name: str) -> None:
    """The decoding used as evidence is what the model says when it is run on the whole text again at every step."""
    model = fresh(name)
    form = TextFormat.of(model)
    prompts = prompt_batches(form, [], seed=0)
    for prompt, found in zip(prompts[:1], decode(model, form, prompts[:1]), strict=True):
        assert found.tokens.shape == (1, 24) and (found.gaps > 0).all()
        said = list(prompt.inputs["input_ids"][0].tolist()) if not form.encoder_decoder else [2]
        for token in found.tokens[0].tolist():
            ids = torch.tensor([said])
            given = {"decoder_input_ids": ids, **prompt.inputs} if form.encoder_decoder else {"input_ids": ids}
            with torch.no_grad():
                assert int(model(**given).logits[0, -1].argmax()) == token
            said.append(token)


@pytest.mark.parametrize("name", ["gpt2", "mbart"])
def test_a_dropped_bias_is_heard(name: str) -> None:
    model = fresh(name)
    form = TextFormat.of(model)
    prompts = prompt_batches(form, [], seed=0)
    ours = decode(model, form, prompts)
    with apply(model, fold="key,value,query"):
        same = compare_decoded(prompts, ours, decode(model, form, prompts), floor=1e-9)
    with apply(model, drop="value"):
        other = compare_decoded(prompts, ours, decode(model, form, prompts), floor=1e-9)
    assert same.forks == () and same.tokens == 5 * 24
    assert other.forks and not any(fork.tie for fork in other.forks)


def test_the_models_own_settings_come_back() -> None:
    model = fresh("gpt2")
    model.generation_config.num_beams = 4
    kept = model.generation_config
    form = TextFormat.of(model)
    decode(model, form, prompt_batches(form, [], seed=0))
    assert model.generation_config is kept and kept.num_beams == 4
