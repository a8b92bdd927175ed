"""Inputs: every length, no special ids, what each model class needs."""

from __future__ import annotations

import pytest
import torch
import transformers

from hf_bias_patch.errors import VerifyError
from hf_bias_patch.evidence.probes import Form, make_probes, make_prompts, padded
from tests.models import NAMES, config_of, fresh


@pytest.mark.parametrize("name", NAMES)
def test_lengths_and_special_ids(name: str) -> None:
    form = Form.of(fresh(name))
    assert form.limit == 38
    probes = make_probes(form, [], seed=0)
    lengths = {probe.inputs["input_ids"].shape[1] for probe in probes}
    assert {1, 2, 16, 38, 33} == lengths
    assert any(probe.inner for probe in probes) and any(not probe.mask.all() for probe in probes)
    for probe in probes:
        for key in ("input_ids", "decoder_input_ids"):
            ids = probe.inputs.get(key, torch.tensor([5]))
            real = ids[probe.mask] if key == "input_ids" else ids
            assert (real > 2).all() and (real < 60).all()
        assert probe.mask.any(1).all()
    sides = {(bool(probe.mask[:, 0].all()), bool(probe.mask[:, -1].all())) for probe in probes}
    assert ((False, True) in sides) == (form.generates and not form.encoder_decoder), "left padding of decoders alone"


def test_seeds() -> None:
    form = Form.of(fresh("gpt2"))
    ids = [make_probes(form, [], seed)[2].inputs["input_ids"] for seed in (0, 0, 1)]
    assert torch.equal(ids[0], ids[1]) and not torch.equal(ids[0], ids[2])


def test_barts_classifier_gets_one_end_per_row() -> None:
    form = Form.of(fresh("bart", transformers.BartForSequenceClassification))
    for probe in make_probes(form, [[5, 6, 7, 2], [8, 2]], seed=0):
        assert ((probe.inputs["input_ids"] == 2).sum(1) == 1).all()
        assert "decoder_input_ids" not in probe.inputs


def test_multiple_choice_has_one_axis_more() -> None:
    form = Form.of(fresh("bert", transformers.BertForMultipleChoice))
    assert all(probe.inputs["input_ids"].ndim == 3 for probe in make_probes(form, [], seed=0))


def test_a_decoder_that_reads_states_gets_some() -> None:
    probes = make_probes(Form.of(fresh("gpt2-cross")), [], seed=0)
    assert all(probe.inputs["encoder_hidden_states"].shape[2] == 32 for probe in probes)


def test_a_model_of_few_positions() -> None:
    config = config_of("bert", max_position_embeddings=3)
    form = Form.of(transformers.BertForMaskedLM(config))
    probes = make_probes(form, [], seed=0)
    assert form.limit == 1 and all(probe.inputs["input_ids"].shape[1] == 1 for probe in probes)


def test_prompts() -> None:
    form = Form.of(fresh("gpt2"))
    prompts = make_prompts(form, [[5, 6], [7, 8, 9]], seed=0)
    assert [len(prompt.mask) for prompt in prompts] == [1, 4, 2]
    assert prompts[2].inputs["input_ids"].tolist() == [[0, 5, 6], [7, 8, 9]], "padded on the left"
    assert all(prompt.mask.shape[1] + 24 <= form.limit for prompt in prompts)
    assert make_prompts(Form.of(fresh("bert")), [], seed=0) == []


def test_rows_of_different_lengths() -> None:
    rows = [torch.tensor([3, 4]), torch.tensor([5])]
    ids, mask = padded(rows, 9, left=False)
    assert ids.tolist() == [[3, 4], [5, 9]] and mask.tolist() == [[True, True], [True, False]]
    with pytest.raises(VerifyError, match="no tokens"):
        padded([torch.tensor([3]), torch.tensor([], dtype=torch.int64)], 9, left=True)
