"""Inputs: every length, no special ids, what each model class needs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from hf_bias_patch.assets import folder
from hf_bias_patch.errors import VerifyError
from hf_bias_patch.evidence.certificate import Certificate
from hf_bias_patch.evidence.run import verify
from hf_bias_patch.models.inputs.text import TextFormat, padded, prompt_batches, text_batches
from hf_bias_patch.models.inputs.token_ids import first_known, pad_of, unknown_ids
from tests.evidence.helpers import variant_of
from tests.models import NAMES, config_of, fresh


@pytest.mark.parametrize("name", NAMES)
def test_lengths_and_special_ids(name: str) -> None:
    form = TextFormat.of(fresh(name))
    assert form.limit == 38
    probes = text_batches(form, [], seed=0)
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
    form = TextFormat.of(fresh("gpt2"))
    ids = [text_batches(form, [], seed)[2].inputs["input_ids"] for seed in (0, 0, 1)]
    assert torch.equal(ids[0], ids[1]) and not torch.equal(ids[0], ids[2])


def test_barts_classifier_gets_one_end_per_row() -> None:
    form = TextFormat.of(fresh("bart", transformers.BartForSequenceClassification))
    for probe in text_batches(form, [[5, 6, 7, 2], [8, 2]], seed=0):
        assert ((probe.inputs["input_ids"] == 2).sum(1) == 1).all()
        assert "decoder_input_ids" not in probe.inputs


def test_multiple_choice_has_one_axis_more() -> None:
    form = TextFormat.of(fresh("bert", transformers.BertForMultipleChoice))
    assert all(probe.inputs["input_ids"].ndim == 3 for probe in text_batches(form, [], seed=0))


def test_a_decoder_that_reads_states_gets_some() -> None:
    probes = text_batches(TextFormat.of(fresh("gpt2-cross")), [], seed=0)
    assert all(probe.inputs["encoder_hidden_states"].shape[2] == 32 for probe in probes)


def test_a_model_of_few_positions() -> None:
    config = config_of("bert", max_position_embeddings=3)
    form = TextFormat.of(transformers.BertForMaskedLM(config))
    probes = text_batches(form, [], seed=0)
    assert form.limit == 1 and all(probe.inputs["input_ids"].shape[1] == 1 for probe in probes)


def test_prompts() -> None:
    form = TextFormat.of(fresh("gpt2"))
    prompts = prompt_batches(form, [[5, 6], [7, 8, 9]], seed=0)
    assert [len(prompt.mask) for prompt in prompts] == [1, 4, 2]
    assert prompts[2].inputs["input_ids"].tolist() == [[0, 5, 6], [7, 8, 9]], "padded on the left"
    assert all(prompt.mask.shape[1] + 24 <= form.limit for prompt in prompts)
    assert prompt_batches(TextFormat.of(fresh("bert")), [], seed=0) == []


def test_rows_of_different_lengths() -> None:
    rows = [torch.tensor([3, 4]), torch.tensor([5])]
    ids, mask = padded(rows, 9, left=False)
    assert ids.tolist() == [[3, 4], [5, 9]] and mask.tolist() == [[True, True], [True, False]]
    with pytest.raises(VerifyError, match="no tokens"):
        padded([torch.tensor([3]), torch.tensor([], dtype=torch.int64)], 9, left=True)


@pytest.mark.parametrize(
    ("ids", "pad"),
    [
        ({"pad_token_id": 5}, 5),
        ({"pad_token_id": 60, "eos_token_id": 2}, 2),
        ({"pad_token_id": -1, "eos_token_id": [60, 7, 3]}, 7),
        ({"pad_token_id": None, "eos_token_id": None}, 0),
        ({"pad_token_id": True, "eos_token_id": 10**9}, 0),
    ],
    ids=str,
)
def test_padding_holds_an_id_that_the_model_has(ids: dict[str, Any], pad: int) -> None:
    config = SimpleNamespace(vocab_size=60, **ids)
    assert pad_of(config) == pad
    assert pad_of(SimpleNamespace(encoder=config, decoder=SimpleNamespace(vocab_size=90), **ids)) == pad


def test_what_is_no_id() -> None:
    assert first_known([None, "3", 2.0, [], [99, -1], [4, 3]], 60) == 4
    assert first_known([99], None) == 99 and first_known([0], 60) == 0 and first_known([60], 60) is None


def test_ids_that_the_model_lacks_are_named(tmp_path: Path) -> None:
    assert unknown_ids(tmp_path, 60) == ""
    (tmp_path / "config.json").write_text('{"pad_token_id": -1, "eos_token_id": [2, 60], "bos_token_id": null}')
    (tmp_path / "generation_config.json").write_text(
        '{"forced_eos_token_id": 99, "eos_token_id": 2, "x_token_id": "y"}'
    )
    said = unknown_ids(tmp_path, 60)
    assert "0 to 59" in said and "pad_token_id -1 (config.json), eos_token_id 60 (config.json)" in said
    assert "forced_eos_token_id 99 (generation_config.json)" in said and "bos" not in said


@pytest.mark.parametrize(
    "ids", [{"pad_token_id": 60}, {"pad_token_id": 60, "bos_token_id": 77, "eos_token_id": [60, 2]}], ids=str
)
def test_a_padding_id_outside_the_vocabulary_shrinks_no_evidence(
    saved: Callable[..., Path], ids: dict[str, Any], tmp_path: Path
) -> None:
    """It was added to the tokenizer, and the embedding was not resized."""
    plain = saved("gpt2")
    source = tmp_path / "source"
    shutil.copytree(plain, source)
    for name in ("config.json", "generation_config.json"):
        (source / name).write_text(json.dumps(json.loads((plain / name).read_text()) | ids))
    found = verify(variant_of(source, tmp_path / "out", fold="value"), source, attention=("sdpa",))
    expected = verify(variant_of(plain, tmp_path / "plain", fold="value"), plain, attention=("sdpa",))
    assert isinstance(found, Certificate) and isinstance(expected, Certificate) and found.passed
    assert found.probes == expected.probes and found.runs[0].decoding is not None
    assert any("pad_token_id 60 (config.json)" in note for note in found.notes)


def test_texts_with_tokens_that_the_model_lacks(tmp_path: Path) -> None:
    shutil.copytree(folder("gpt2"), tmp_path / "source")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "source")
    tokenizer.add_tokens(["snark"])
    tokenizer.save_pretrained(tmp_path / "source")
    variant = variant_of(tmp_path / "source", tmp_path / "out", fold="value")
    certificate = verify(variant, tmp_path / "source", texts=["the old man", "a snark"], attention=("sdpa",))
    assert isinstance(certificate, Certificate) and certificate.passed and "texts 1 to 1" in certificate.probes
    assert any(note.startswith("1 of 2 texts were left out") for note in certificate.notes)
