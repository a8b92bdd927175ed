"""The embedded checkpoints: small, loadable by stock transformers, pretrained, with biases throughout."""

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
import transformers

from hf_bias_patch.assets import NAMES, folder
from hf_bias_patch.assets.lexicon import opposite
from hf_bias_patch.assets.stories import sentences, stories
from hf_bias_patch.assets.world import Opinion, Relation, make_world

SCRIPT = Path(__file__).parents[2] / "scripts" / "pretrain_tiny.py"
LARGEST = 1_500_000  # bytes a folder
SENTENCES = "affc15d03d319fa5b67fe477cc84b7190a6cbb4fe6ec47ddeedb3e68c53246cc"  # sha256 of the first 100
# What the checkpoint must save against the best model that is blind to context, in nats a token.
MARGINS = {"bart": 4.0, "bert": 2.0, "gpt2": 3.0}
MODULES = {"bart": 6, "bert": 4, "gpt2": 4}  # attention modules; BART's decoder layers have two each


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The pretraining script, for the evaluation and the bias layout it trained with."""
    spec = importlib.util.spec_from_file_location("pretrain_tiny", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up here
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def warnings_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What transformers warns of; the other tests keep it quiet."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_warning()
    transformers.logging.enable_propagation()
    yield caplog
    transformers.logging.disable_propagation()
    transformers.logging.set_verbosity(level)


def load(
    name: str,
) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase, dict[str, object]]:
    """Load a checkpoint through the class its own config names, with the report of the loading."""
    config = transformers.AutoConfig.from_pretrained(folder(name))
    cls = getattr(transformers, config.architectures[0])
    model, info = cls.from_pretrained(folder(name), output_loading_info=True)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder(name)), info


def test_folder_names_the_choices_for_an_unknown_name() -> None:
    with pytest.raises(ValueError, match="bart, bert, gpt2"):
        folder("llama")


@pytest.mark.parametrize("name", NAMES)
def test_folder_is_small(name: str) -> None:
    sizes = [path.stat().st_size for path in folder(name).rglob("*") if path.is_file()]
    assert len(sizes) >= 4
    assert sum(sizes) <= LARGEST


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_loaded_and_used(name: str) -> None:
    model, tokenizer, info = load(name)
    assert not any(info.values()), info
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.model_max_length == 128
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", NAMES)
def test_all_query_key_and_value_biases_are_far_from_zero(name: str, script: ModuleType) -> None:
    model, _, _ = load(name)
    biases = script.attention_biases(model)
    assert {projection: len(found) for projection, found in biases.items()} == dict.fromkeys(
        ("query", "key", "value"), MODULES[name]
    )
    for found in biases.values():
        assert all(bias.shape == (64,) and bias.norm() > 0.3 for bias in found)


@pytest.mark.parametrize("name", NAMES)
def test_held_out_loss_is_far_below_a_unigram_model(name: str, script: ModuleType) -> None:
    model, tokenizer, _ = load(name)
    texts = script.held_out(worlds=10, per_world=10)
    assert sum(len(document.sentences) for document in texts) > 300
    score = script.evaluate(name, model, tokenizer, texts)
    assert score.loss < score.unigram - MARGINS[name], score


@pytest.mark.parametrize("name", ["bart", "gpt2"])
def test_generation_ends_by_itself_without_warnings(name: str, warnings_logged: pytest.LogCaptureFixture) -> None:
    model, tokenizer, _ = load(name)
    prompt = tokenizer("Anna has a red bicycle. She", return_tensors="pt")
    with torch.no_grad():
        written = model.generate(**prompt, max_new_tokens=110, do_sample=False)
    assert written[0, -1] == tokenizer.eos_token_id
    assert written.shape[1] < 110
    assert not warnings_logged.records


def test_text_follows_from_the_seed_alone() -> None:
    text = "\n".join(sentences(make_world(0), 100, seed=0))
    assert text == "\n".join(sentences(make_world(0), 100, seed=0))
    assert text != "\n".join(sentences(make_world(0), 100, seed=1))
    assert text != "\n".join(sentences(make_world(1), 100, seed=0))
    assert hashlib.sha256(text.encode()).hexdigest() == SENTENCES


def test_documents_say_their_facts() -> None:
    world = make_world(3)
    found = list(stories(world, 50, seed=0))
    assert found == list(stories(world, 50, seed=0))
    for document in found:
        assert len(document.facts) == len(document.sentences) in range(1, 13)
        assert set(document.facts) <= set(world.facts)
        assert document.text[0].isupper()


def test_facts_do_not_contradict_one_another() -> None:
    world = make_world(5)
    relations = {(fact.who, fact.other): fact.kind for fact in world.facts if isinstance(fact, Relation)}
    mutual = {"sister": "sibling", "brother": "sibling"}
    assert all(
        mutual.get(relations[other, who], relations[other, who]) == mutual.get(kind, kind)
        for (who, other), kind in relations.items()
    )
    for fact in world.facts:
        if isinstance(fact, Opinion):
            assert fact.adjectives[0] not in (fact.adjectives[1], opposite(fact.adjectives[1]))
