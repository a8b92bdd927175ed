"""Where the settings of generation come from, and that those are the ones that are used."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from datasets import Dataset

from hf_bias_patch.assets import folder
from hf_bias_patch.errors import TaskError
from hf_bias_patch.models.load import quiet
from hf_bias_patch.scoring.generation import DEFAULTS, resolve_generation
from hf_bias_patch.scoring.score import ScoringOptions, evaluate_model
from hf_bias_patch.scoring.tasks import GenerationOptions, Task

Make = Callable[..., Task]
Loaded = Callable[..., tuple[Any, Any]]
SOURCES = ["Anna lives in", "Tom is a cook. Every Monday, he", "The boots"]

CNN = {
    "num_beams": 4,
    "length_penalty": 2.0,
    "max_length": 42,
    "min_length": 16,
    "no_repeat_ngram_size": 3,
    "early_stopping": True,
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 2,
    "decoder_start_token_id": 2,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
"""As facebook/bart-large-cnn has it, with shorter answers."""


def bart(place: Path, generation: dict[str, Any] | None, **config: Any) -> tuple[Any, Any]:
    """The embedded BART with a generation_config.json, or none, and fields of its config.json."""
    shutil.copytree(folder("bart"), place)
    if generation is None:
        (place / "generation_config.json").unlink()
    else:
        (place / "generation_config.json").write_text(json.dumps(generation))
    fields = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(fields | config))
    with quiet():
        return (
            transformers.AutoModelForSeq2SeqLM.from_pretrained(place),
            transformers.AutoTokenizer.from_pretrained(place),
        )


def scores(model: Any, tokenizer: Any, task: Task, **asked: Any) -> Any:
    dataset = Dataset.from_dict({"source": SOURCES, "references": [["Harwick."]] * 3})
    return evaluate_model(
        model, tokenizer, task, dataset, ScoringOptions(batch_tokens=400, decode=GenerationOptions(**asked))
    )


@pytest.mark.parametrize("in_config", [False, True])
def test_the_models_own_settings_are_used(tmp_path: Path, made: Make, in_config: bool) -> None:
    """Of generation_config.json, or, of an older model, of config.json."""
    given = (None, CNN) if in_config else (CNN, {})
    model, tokenizer = bart(tmp_path / "x", given[0], **given[1])
    found = scores(model, tokenizer, made("generation"))
    for source, said in zip(SOURCES, found.predictions, strict=True):
        with quiet():
            ids = model.generate(**tokenizer(source, return_tensors="pt"))[0]
        assert said == tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert found.decode == {
        "num_beams": 4, "max_new_tokens": 41, "min_new_tokens": 15, "length_penalty": 2.0, "no_repeat_ngram_size": 3,
        "early_stopping": True, "forced_bos_token_id": 0, "forced_eos_token_id": 2,
    }  # fmt: skip
    assert found.plain()["decode"] == found.decode
    assert "(the model)" in found.notes[0] and "default" not in found.notes[0]


def test_who_says_what(tmp_path: Path, made: Make) -> None:
    model, tokenizer = bart(tmp_path / "x", {**CNN, "early_stopping": "never"})
    task = made("generation", decode={"num_beams": 3, "max_new_tokens": 30, "length_penalty": 0.5})
    found = resolve_generation(model, task, GenerationOptions(num_beams=2), "seq2seq")
    assert dict(found.settings) == {
        "num_beams": 2, "max_new_tokens": 30, "min_new_tokens": 15, "length_penalty": 0.5, "no_repeat_ngram_size": 3,
        "early_stopping": "never",
    }  # fmt: skip
    assert found.notes[0] == (
        "Generation settings: num_beams 2 (asked for); max_new_tokens 30, length_penalty 0.5 (the task); "
        "min_new_tokens 15, no_repeat_ngram_size 3, early_stopping never (the model)."
    )
    assert scores(model, tokenizer, task, early_stopping=False).decode["early_stopping"] is False


def test_where_nobody_says_anything(loaded: Loaded, made: Make) -> None:
    found = resolve_generation(loaded("seq2seq")[0], made("generation"), None, "seq2seq")
    assert dict(found.settings) == DEFAULTS and found.notes[0].endswith("early_stopping True (default).")
    assert DEFAULTS == {
        "num_beams": 4, "max_new_tokens": 64, "min_new_tokens": 0, "length_penalty": 1.0, "no_repeat_ngram_size": 0,
        "early_stopping": True,
    }  # fmt: skip


def test_early_stopping_is_what_is_searched_with(loaded: Loaded, made: Make) -> None:
    """With long beams favoured, a search that goes on finds other texts."""
    model, tokenizer = loaded("seq2seq")
    task = made("generation", decode={"num_beams": 4, "max_new_tokens": 40, "length_penalty": 3.0})
    stopped = scores(model, tokenizer, task).predictions
    assert stopped == scores(model, tokenizer, task, early_stopping=True).predictions
    assert stopped != scores(model, tokenizer, task, early_stopping="never").predictions


def test_whole_lengths_of_a_decoder_count_the_prompt(loaded: Loaded, made: Make) -> None:
    model = copy.deepcopy(loaded("causal")[0])
    model.generation_config.max_length, model.generation_config.min_length = 128, 20
    found = resolve_generation(model, made("generation"), None, "causal")
    assert (found.max_new_tokens, found.settings["min_new_tokens"]) == (64, 0)
    model.generation_config.max_new_tokens = 7
    assert resolve_generation(model, made("generation"), None, "causal").max_new_tokens == 7


def test_lengths_that_do_not_go_together(tmp_path: Path, made: Make) -> None:
    model, _ = bart(tmp_path / "x", CNN)
    found = resolve_generation(model, made("generation"), GenerationOptions(max_new_tokens=9), "seq2seq")
    assert (found.max_new_tokens, found.settings["min_new_tokens"]) == (9, 9)
    assert "min_new_tokens is 9, not 15: no answer is longer." in found.notes
    with pytest.raises(TaskError, match=r"min_new_tokens 50 \(asked for\) is above max_new_tokens 41 \(the model\)"):
        resolve_generation(model, made("generation"), GenerationOptions(min_new_tokens=50), "seq2seq")


def test_one_beam_is_weighed_against_none(loaded: Loaded, made: Make) -> None:
    found = scores(*loaded("seq2seq"), made("generation"), num_beams=1, max_new_tokens=5)
    assert found.decode == {"num_beams": 1, "max_new_tokens": 5, "min_new_tokens": 0, "no_repeat_ngram_size": 0,
        "forced_eos_token_id": 2,
    }  # fmt: skip


def test_other_ways_to_search_are_never_the_models(loaded: Loaded, made: Make) -> None:
    """Samples, several answers a text, groups of beams: the score is of the one answer of a beam search."""
    model, tokenizer = loaded("seq2seq")
    expected = scores(model, tokenizer, made("generation"), max_new_tokens=12)
    other = copy.deepcopy(model)
    other.generation_config.update(
        do_sample=True, temperature=3.0, top_k=4, penalty_alpha=0.6, num_return_sequences=2, num_beam_groups=2,
        diversity_penalty=0.5, return_dict_in_generate=True,
    )  # fmt: skip
    for beams in (1, 4):
        first = scores(other, tokenizer, made("generation"), max_new_tokens=12, num_beams=beams).predictions
        assert first == scores(model, tokenizer, made("generation"), max_new_tokens=12, num_beams=beams).predictions
    assert first == expected.predictions


def test_texts_to_stop_at(loaded: Loaded, made: Make) -> None:
    model, tokenizer = copy.deepcopy(loaded("causal")[0]), loaded("causal")[1]
    plain = scores(model, tokenizer, made("generation"), num_beams=1, max_new_tokens=20).predictions
    model.generation_config.stop_strings = [" a"]
    found = scores(model, tokenizer, made("generation"), num_beams=1, max_new_tokens=20)
    assert found.predictions != plain and found.decode["stop_strings"] == [" a"]
    for text, whole in zip(found.predictions, plain, strict=True):
        assert whole.startswith(text) and " a" not in text[:-2]


def test_answers_begin_with_what_targets_began_with(tmp_path: Path, made: Make) -> None:
    """A generation config without a start token must not begin answers with another one."""
    model, tokenizer = bart(tmp_path / "x", {name: CNN[name] for name in ("bos_token_id", "eos_token_id")})
    assert model.generation_config.decoder_start_token_id is None and model.config.decoder_start_token_id == 2
    found = scores(model, tokenizer, made("generation"), num_beams=1, max_new_tokens=8).predictions
    ids = model.generate(
        **tokenizer(SOURCES[1], return_tensors="pt"), max_new_tokens=8, num_beams=1, decoder_start_token_id=2
    )
    assert found[1] == tokenizer.decode(ids[0], skip_special_tokens=True).strip()
    begun = model.generate(**tokenizer(SOURCES[1], return_tensors="pt"), max_new_tokens=8, num_beams=1)
    assert not torch.equal(begun, ids), "vacuous"
