"""A head that a checkpoint brings: its outputs keep their meaning, or training is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from hf_bias_patch.assets import folder
from hf_bias_patch.checkpoint.source import resolve
from hf_bias_patch.errors import TaskError, TuneError
from hf_bias_patch.models.load import quiet
from hf_bias_patch.scoring.data import load_split
from hf_bias_patch.scoring.labels import label_order
from hf_bias_patch.scoring.loading import load_scorable
from hf_bias_patch.scoring.score import Scores, evaluate_model
from hf_bias_patch.scoring.tasks import load_task, make_task
from hf_bias_patch.tuning.loading import load_classifier
from hf_bias_patch.tuning.run import TuneResult, tune
from hf_bias_patch.tuning.settings import make_settings
from hf_bias_patch.tuning.task_settings import GlueSettings
from hf_bias_patch.tuning.watcher import Watcher
from tests.tuning.jobs import alone

OPINION, ENTAILMENT = "embedded:opinion", "embedded:entailment"
CLASSIFIER = transformers.AutoModelForSequenceClassification


class Said(Watcher):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def checkpoint(out: Path, names: list[str], name: str = "bert", seed: int = 0, **config: Any) -> Path:
    """An embedded checkpoint with a head of its own, of random values and random biases."""
    torch.manual_seed(seed)
    with quiet():
        model = CLASSIFIER.from_pretrained(folder(name), num_labels=len(names))
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder(name))
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: number for number, name in enumerate(names)}
    for key, value in config.items():
        setattr(model.config, key, value)
    for key, parameter in model.named_parameters():
        if not key.startswith(("bert", "transformer", "model")):
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def run(place: Path, out: Path, task: str = ENTAILMENT, said: Watcher | None = None, **fields: Any) -> TuneResult:
    alone()
    short = {"max_train_samples": 40, "max_eval_samples": 24, "max_train_steps": 4, "per_device_train_batch_size": 10}
    given = {"model_name_or_path": str(place), "task_name": task, "output_dir": out, **short, **fields}
    return tune(make_settings(GlueSettings, **given), said)


def scored(place: Path, task: str = ENTAILMENT) -> Scores:
    asked = load_task(task)
    return evaluate_model(*load_scorable(str(place), asked.kind), asked, load_split(asked, "validation", limit=24))


def reordered(place: Path, out: Path, order: list[int]) -> Path:
    """The same classifier with its outputs, and their names, in another order; names in capitals."""
    model = CLASSIFIER.from_pretrained(place)
    names = [model.config.id2label[number].upper().replace("_", "-") for number in order]
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: number for number, name in enumerate(names)}
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.copy_(parameter[order].clone())
    model.save_pretrained(out)
    transformers.AutoTokenizer.from_pretrained(place).save_pretrained(out)
    return out


def test_a_head_of_another_order_is_trained_as_the_same_head(tmp_path: Path) -> None:
    plain = checkpoint(tmp_path / "plain", ["entailment", "neutral", "contradiction"])
    other = reordered(plain, tmp_path / "other", [1, 2, 0])
    said = Said()
    first = run(plain, tmp_path / "a", train_head=True)
    second = run(other, tmp_path / "b", said=said, train_head=True)
    assert dict(second.metrics) == pytest.approx(dict(first.metrics), abs=1e-4)
    assert any("keeps its own order of labels: NEUTRAL, CONTRADICTION, ENTAILMENT" in line for line in said.lines)
    config = json.loads((tmp_path / "b" / "model" / "config.json").read_text())
    assert config["id2label"] == {"0": "NEUTRAL", "1": "CONTRADICTION", "2": "ENTAILMENT"}
    assert config["label2id"] == {"NEUTRAL": 0, "CONTRADICTION": 1, "ENTAILMENT": 2}
    trained = [CLASSIFIER.from_pretrained(tmp_path / name / "model").classifier for name in "ab"]
    untrained = CLASSIFIER.from_pretrained(plain).classifier
    assert (trained[0].weight - untrained.weight).abs().min() > 1e-5, "the head has trained"
    assert torch.allclose(trained[0].weight[[1, 2, 0]], trained[1].weight, atol=1e-6)
    assert scored(tmp_path / "b" / "model").metrics == pytest.approx(scored(tmp_path / "a" / "model").metrics, abs=1e-4)


def test_a_kept_head_answers_as_before(tmp_path: Path) -> None:
    """One step of next to no learning rate changes no answer."""
    other = checkpoint(tmp_path / "other", ["Neutral", "contradiction ", "ENTAILMENT"])
    result = run(other, tmp_path / "run", max_train_steps=1, learning_rate=1e-9)
    assert result.plain["trained"] == result.plain["trained_without_head"], "a head that is not new does not train"
    before = scored(other)
    assert scored(tmp_path / "run" / "model").predictions == before.predictions
    assert dict(result.metrics) == pytest.approx(before.metrics, abs=1e-4)
    assert abs(before.metrics["loss"] - math.log(3)) > 0.2, "vacuous: the order of labels would not matter"


def test_names_are_the_same_however_they_are_spelt(tmp_path: Path) -> None:
    place = checkpoint(tmp_path / "x", ["Not Equivalent", "EQUIVALENT"])
    ready = load_classifier(resolve(place), CLASSIFIER, load_task("embedded:paraphrase"))
    assert ready.new == () and ready.notes == ()
    assert ready.model.config.id2label == {0: "Not Equivalent", 1: "EQUIVALENT"}


@pytest.mark.parametrize(
    ("names", "more", "message"),
    [
        (["yes", "no", "perhaps"], {}, r"head has yes, no, perhaps; the task has entailment, neutral, contradiction"),
        (["good", "bad"], {}, r"does not fit the task.* has 2 outputs, and the task needs 3.* has good, bad; the"),
        (["a", "b", "c", "d"], {}, "has 4 outputs, and the task needs 3"),
        (["score"], {"problem_type": "regression"}, "has 1 outputs, and the task needs 3"),
        (["LABEL_0", "LABEL_1", "LABEL_2"], {"problem_type": "regression"}, "is a regression head, and"),
    ],
)
def test_heads_that_answer_something_else(tmp_path: Path, names: list[str], more: Any, message: str) -> None:
    place = checkpoint(tmp_path / "x", names, **more)
    with pytest.raises(TuneError, match=message) as caught:
        run(place, tmp_path / "run")
    assert "--new-head" in str(caught.value) and not (tmp_path / "run").exists()
    said = Said()
    result = run(place, tmp_path / "run", said=said, new_head=True, train="none", max_train_steps=1)
    assert result.plain["trained"] == 3 * 64 + 3
    config = transformers.AutoConfig.from_pretrained(tmp_path / "run" / "model")
    assert config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}
    assert config.problem_type == "single_label_classification"


def test_a_new_head_that_does_not_train_is_said_to_be_random(tmp_path: Path) -> None:
    place, said = checkpoint(tmp_path / "x", ["entailment", "neutral", "contradiction"]), Said()
    run(place, tmp_path / "run", said=said, new_head=True, train_head=False, train="value", max_train_steps=1)
    assert any("does not train: it stays random" in line for line in said.lines)


def test_a_head_for_scores(tmp_path: Path) -> None:
    """A regression keeps a head of one output, and refuses one of several."""
    similarity = load_task("embedded:similarity")
    ready = load_classifier(resolve(checkpoint(tmp_path / "one", ["score"])), CLASSIFIER, similarity)
    assert ready.new == () and ready.model.config.id2label == {0: "score"}
    assert ready.model.config.problem_type == "regression"
    with pytest.raises(TuneError, match=r"has 2 outputs, and the task needs 1.* a score instead of labels"):
        load_classifier(resolve(checkpoint(tmp_path / "two", ["bad", "good"])), CLASSIFIER, similarity)


def test_a_new_head_is_new(tmp_path: Path) -> None:
    place = checkpoint(tmp_path / "x", ["negative", "positive"])
    task = load_task(OPINION)
    kept = load_classifier(resolve(place), CLASSIFIER, task)
    torch.manual_seed(1)
    new = load_classifier(resolve(place), CLASSIFIER, task, new_head=True)
    assert kept.new == () and new.new == ("classifier.bias", "classifier.weight")
    old, begun = kept.model.classifier, new.model.classifier
    assert not begun.bias.any() and old.bias.all()
    assert 0 < begun.weight.std() < old.weight.std() / 3 and begun.weight.requires_grad
    for (name, first), second in zip(kept.model.bert.named_parameters(), new.model.bert.parameters(), strict=True):
        assert torch.equal(first, second), name


@pytest.mark.parametrize(("name", "head"), [("gpt2", "score"), ("bart", "classification_head")])
def test_heads_of_other_architectures(tmp_path: Path, name: str, head: str) -> None:
    task = load_task(OPINION)
    place = checkpoint(tmp_path / "x", ["POSITIVE", "NEGATIVE"], name)
    ready = load_classifier(resolve(place), CLASSIFIER, task)
    assert ready.new == () and ready.model.config.id2label == {0: "POSITIVE", 1: "NEGATIVE"}
    new = load_classifier(resolve(place), CLASSIFIER, load_task(ENTAILMENT), new_head=True)
    assert new.new and all(name.startswith(head) for name in new.new)
    assert set(new.model.config.id2label.values()) == {"entailment", "neutral", "contradiction"}


def test_no_head_at_all() -> None:
    """A checkpoint without a classifier may name labels all the same; they are of no head, and the task's stand."""
    ready = load_classifier(resolve("embedded:bart"), CLASSIFIER, load_task(ENTAILMENT))
    assert ready.model.config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"} and ready.notes == ()
    assert all(name.startswith("classification_head") for name in ready.new) and len(ready.new) == 4


@pytest.mark.parametrize(
    ("names", "labels", "kept"),
    [
        (["LABEL_0", "LABEL_1"], ("negative", "positive"), ["negative", "positive"]),
        (["0", "1"], ("negative", "positive"), ["negative", "positive"]),
        (["bad", "good"], ("0", "1"), ["bad", "good"]),
        (["LABEL_0", "LABEL_1"], ("0", "1"), ["LABEL_0", "LABEL_1"]),
    ],
)
def test_names_that_say_nothing_are_taken_in_order(
    tmp_path: Path, names: list[str], labels: tuple[str, ...], kept: list[str]
) -> None:
    given = {"text": ("text",), "label": "label", "metrics": ("accuracy",), "main_metric": "accuracy"}
    task = make_task(name="toy", kind="classification", labels=labels, **given)
    ready = load_classifier(resolve(checkpoint(tmp_path / "x", names)), CLASSIFIER, task)
    assert ready.new == () and [*ready.model.config.id2label.values()] == kept
    assert "matched by their order: " in ready.notes[0] and f"{names[1]} as {labels[1]}" in ready.notes[0]


def test_a_head_of_several_labels_at_once(tmp_path: Path) -> None:
    place = checkpoint(tmp_path / "x", ["positive", "negative"], problem_type="multi_label_classification")
    ready = load_classifier(resolve(place), CLASSIFIER, load_task(OPINION))
    assert ready.model.config.problem_type == "single_label_classification"
    assert "several labels at once" in ready.notes[0] and "positive, negative" in ready.notes[1]
    assert any("several labels at once" in note for note in scored(place, OPINION).notes)
    scores = checkpoint(tmp_path / "y", ["LABEL_0", "LABEL_1"], problem_type="regression")
    assert any("trained to give scores" in note for note in scored(scores, OPINION).notes)


def test_a_head_without_its_bias_is_still_the_checkpoints(tmp_path: Path) -> None:
    """A missing bias begins with zeros; the outputs are what they were."""
    place = checkpoint(tmp_path / "x", ["positive", "negative"])
    tensors = load_file(place / "model.safetensors")
    del tensors["classifier.bias"]
    save_file(tensors, place / "model.safetensors", {"format": "pt"})
    ready = load_classifier(resolve(place), CLASSIFIER, load_task(OPINION))
    assert ready.new == ("classifier.bias",) and ready.model.config.id2label == {0: "positive", 1: "negative"}


def test_a_trunk_of_another_size_is_no_matter_of_the_head(tmp_path: Path) -> None:
    place = checkpoint(tmp_path / "x", ["negative", "positive"])
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"intermediate_size": 100}))
    with pytest.raises(TuneError, match=r"cannot be loaded.*is stored as .*config\.json"):
        load_classifier(resolve(place), CLASSIFIER, load_task(OPINION), new_head=True)


@pytest.mark.parametrize("names", [["good", "negative"], ["positive", "bad"], ["negative", "Negative"]])
def test_evaluate_takes_no_label_for_its_opposite(tmp_path: Path, names: list[str]) -> None:
    config = transformers.AutoConfig.from_pretrained(checkpoint(tmp_path / "one", names))
    with pytest.raises(TaskError, match=f"The head has {names[0]}, {names[1]}; the task has negative, positive"):
        label_order(config, load_task("sst2"))
