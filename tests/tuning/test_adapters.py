"""What a run leaves for peft: stock peft, transformers and `evaluate` all have the trained model and its head."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

from hf_bias_patch import patch
from hf_bias_patch.assets import folder
from hf_bias_patch.errors import CheckpointError, RecipeError, TuneError
from hf_bias_patch.scoring.data import load_split
from hf_bias_patch.scoring.loading import load_scorable
from hf_bias_patch.scoring.score import evaluate_model
from hf_bias_patch.scoring.tasks import load_task
from hf_bias_patch.tuning.adapters import add
from hf_bias_patch.tuning.merging import merged_state
from hf_bias_patch.tuning.run import TuneResult, tune
from hf_bias_patch.tuning.settings import make_settings
from hf_bias_patch.tuning.task_settings import GenerationSettings, GlueSettings, LanguageSettings
from tests.models import fresh
from tests.tuning.jobs import alone

# Stock peft asks stock transformers for what it deprecated, and says that a map without a bias cannot be merged.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias:UserWarning"),
]

_SHORT = {
    "max_train_samples": 24,
    "max_eval_samples": 10,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-2,
}
_ROUNDING = 1e-5
"""Of the largest logit: adding a vector in a layer or behind it, or W + BA or both apart, rounds differently (6e-8)."""


def run(out: Path, train: str, model: Any = "embedded:bert", kind: Any = GlueSettings, **fields: Any) -> TuneResult:
    alone()
    given = {"model_name_or_path": str(model), "task_name": "embedded:opinion", "train": train, "output_dir": out}
    return tune(make_settings(kind, **{**given, **_SHORT, **fields}))


def tiny(place: Path, kind: str = "Llama") -> Path:
    """A model without biases in its attention, every value random, with GPT-2's tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder("gpt2"))
    ends = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    common = {"vocab_size": len(tokenizer), **ends}
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    stack = common | sizes | {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128}
    if kind == "T5Gemma":
        config: Any = transformers.T5GemmaConfig(encoder=dict(stack), decoder=dict(stack), **common)
        model: Any = transformers.T5GemmaForConditionalGeneration(config)
    else:
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**stack))
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(float(parameter.ndim == 1), 0.2, generator=random)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def ids_of(model: Any) -> torch.Tensor:
    ids = torch.randint(3, model.config.vocab_size, (1, 12), generator=torch.Generator().manual_seed(3))
    ids[0, -1] = model.config.eos_token_id or 2
    return ids


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=ids_of(model)).logits
    return found


def differ(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def heads(model: Any) -> dict[str, torch.Tensor]:
    """The head's values that are in use, by the end of their names."""
    names = ("classifier.", "score.", "classification_head.")
    return {
        name.replace("modules_to_save.default.", "").removeprefix("base_model.model."): value
        for name, value in model.state_dict().items()
        if any(part in name for part in names) and "original_module" not in name
    }


def check(out: Path, base: Path, auto: str, **labels: Any) -> Any:
    """All ways of loading a run give the same model; the merged one."""
    stock: Any = getattr(transformers, f"AutoModelFor{auto}")
    merged, report = stock.from_pretrained(out / "model", output_loading_info=True)
    assert not any(report.values())
    alone_ = getattr(peft, f"AutoPeftModelFor{auto}").from_pretrained(out / "adapter", **labels)
    plain = stock.from_pretrained(base, **labels)
    untouched = logits(plain)
    on_base = peft.PeftModel.from_pretrained(plain, out / "adapter")
    by_transformers = stock.from_pretrained(out / "adapter", **labels)
    expected = logits(merged)
    assert differ(untouched, expected) > 1e-3, "vacuous: nothing was trained"
    for found in (alone_, on_base, by_transformers):
        assert differ(logits(found), expected) < _ROUNDING
        assert heads(found).keys() == heads(merged).keys()
        assert all(torch.equal(value, heads(found)[name]) for name, value in heads(merged).items())
    return merged


def score(place: Path, task: str = "embedded:opinion") -> dict[str, float]:
    model, tokenizer = load_scorable(str(place), load_task(task).kind, device="cpu")
    return dict(
        evaluate_model(model, tokenizer, load_task(task), load_split(load_task(task), "validation", limit=10)).metrics
    )


@pytest.mark.parametrize("train", ["lora", "beft", "value", "query,value", "output"])
def test_a_classifier(tmp_path: Path, train: str) -> None:
    result = run(tmp_path / "run", train)
    assert result.plain["adapter"] == "adapter" and result.plain["saved_as"] == "model"
    merged = check(tmp_path / "run", folder("bert"), "SequenceClassification")
    assert heads(merged), "vacuous"
    config = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS" and config["base_model_name_or_path"] == str(folder("bert"))
    assert (config["peft_type"] == "LORA") == (train == "lora")
    for place in ("model", "adapter"):
        assert score(tmp_path / "run" / place) == pytest.approx(dict(result.metrics), abs=1e-4)


def test_what_changed_is_named(tmp_path: Path) -> None:
    for train, ending in (("lora", "weight"), ("beft", "bias"), ("value", "bias")):
        run(tmp_path / train, train)
        listed = json.loads((tmp_path / train / "trained.json").read_text())["tensors"]
        named = {tensor["name"] for tensor in listed}
        before, after = (
            load_file(folder("bert") / "model.safetensors"),
            load_file(tmp_path / train / "model" / "model.safetensors"),
        )
        moved = {name for name, value in after.items() if name not in before or not torch.equal(value, before[name])}
        assert moved == named
        assert all(name.endswith(ending) for name in named if "attention" in name)


def test_several_labels_and_their_names(tmp_path: Path) -> None:
    """The base knows two labels; peft is told how many, `evaluate` finds them beside the adapter."""
    result = run(tmp_path / "run", "lora", task_name="embedded:entailment", lora_rank=3, lora_alpha=5)
    check(tmp_path / "run", folder("bert"), "SequenceClassification", num_labels=3)
    config = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (3, 5, ["query", "value"])
    found, _ = load_scorable(str(tmp_path / "run" / "adapter"), "classification", device="cpu")
    assert list(found.config.id2label.values()) == list(load_task("embedded:entailment").labels)
    expected = pytest.approx(dict(result.metrics), abs=1e-4)
    assert score(tmp_path / "run" / "adapter", "embedded:entailment") == expected
    shutil.rmtree(tmp_path / "run" / "adapter" / "bias_patch")  # as plain peft leaves it
    assert score(tmp_path / "run" / "adapter", "embedded:entailment") == expected


def test_rank_and_alpha_are_of_lora(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="lora_rank and lora_alpha are for train lora, and train is value"):
        run(tmp_path / "run", "value", lora_rank=4)
    assert not (tmp_path / "run").exists()


def test_language_models(tmp_path: Path) -> None:
    base = tiny(tmp_path / "llama")
    for train in ("lora", "beft"):
        result = run(tmp_path / train, train, base, LanguageSettings, task_name="embedded:letters")
        check(tmp_path / train, base, "CausalLM")
        again = score(tmp_path / train / "adapter", "embedded:letters")
        assert again == pytest.approx(dict(result.metrics), rel=1e-5)


def test_generation(tmp_path: Path) -> None:
    few = {"num_beams": 1, "max_new_tokens": 4, "max_eval_samples": 2}
    run(tmp_path / "run", "value", "embedded:bart", GenerationSettings, **few, task_name="embedded:summary")
    check(tmp_path / "run", folder("bart"), "Seq2SeqLM")


def test_masked_language_model(tmp_path: Path) -> None:
    """peft has no task type for it, and keeps the class."""
    run(tmp_path / "run", "beft", kind=LanguageSettings, task_name="embedded:letters")
    found = peft.AutoPeftModel.from_pretrained(tmp_path / "run" / "adapter")
    merged = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "run" / "model")
    assert differ(logits(found), logits(merged)) < _ROUNDING
    load_scorable(str(tmp_path / "run" / "adapter"), "language_modelling", device="cpu")


def test_a_bart_classifier(tmp_path: Path) -> None:
    run(tmp_path / "run", "beft", "embedded:bart")
    assert heads(check(tmp_path / "run", folder("bart"), "SequenceClassification", num_labels=2))


@pytest.mark.parametrize(("kind", "saved_as"), [("Llama", "model"), ("T5Gemma", "model and adapter")])
def test_beft_without_a_bias_keeps_the_head(tmp_path: Path, kind: str, saved_as: str) -> None:
    base = tiny(tmp_path / "base", kind)
    result = run(tmp_path / "run", "beft", base)
    assert result.plain["saved_as"] == saved_as
    merged = check(tmp_path / "run", base, "SequenceClassification")
    trained = load_file(tmp_path / "run" / "trained.safetensors")
    found = heads(merged)
    assert found and all(torch.equal(value, trained[f"base_model.model.{name}"]) for name, value in found.items())
    for place in ("model", "adapter"):
        assert score(tmp_path / "run" / place) == pytest.approx(dict(result.metrics), abs=1e-4)
    if kind == "Llama":
        assert result.plain["switched_on"]["option"] == "attention_bias" and merged.config.attention_bias
        after = load_file(tmp_path / "run" / "model" / "model.safetensors")
        vector = trained["base_model.model.model.layers.1.self_attn.v_proj.beft_bias.default"]
        assert torch.equal(after["model.layers.1.self_attn.v_proj.bias"], vector[0])
        assert not any(after[f"model.layers.1.self_attn.{name}_proj.bias"].any() for name in "qko")


_STRANGER = """
import sys, torch
from pathlib import Path
from safetensors.torch import save_file
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoModelForSequenceClassification
place, ids = Path(sys.argv[1]), torch.tensor([[5, 9, 33, 7, 2]])
found = {}
for name, kind in (("model", AutoModelForSequenceClassification), ("adapter", AutoPeftModelForSequenceClassification)):
    model = kind.from_pretrained(place / name).eval()
    found[f"{name} logits"] = model(input_ids=ids).logits.detach()
    head = [n for n in model.state_dict() if "score." in n and "weight" in n and "original_module" not in n]
    found[f"{name} head"] = model.state_dict()[head[0]]
save_file({name: value.clone() for name, value in found.items()}, place / "found.safetensors")
"""


def test_in_a_fresh_process(tmp_path: Path) -> None:
    """Where this package was never imported."""
    run(tmp_path / "run", "beft", tiny(tmp_path / "base", "T5Gemma"))
    done = subprocess.run(
        [sys.executable, "-c", _STRANGER, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "run" / "found.safetensors")
    head = load_file(tmp_path / "run" / "trained.safetensors")["base_model.model.score.out_proj.weight"]
    assert torch.equal(found["model head"], head) and torch.equal(found["adapter head"], head)
    assert differ(found["model logits"], found["adapter logits"]) < _ROUNDING


@pytest.mark.parametrize(
    ("train", "model", "fields", "reason"),
    [
        ("biases", "bert", {}, r"LayerNorm\.bias trains, and peft supports only the whole bias of a linear layer"),
        ("all", "bert", {}, r"embeddings\.weight trains, and peft"),
        ("none", "bert", {}, "only the head trains"),
        ("value", "gpt2", {}, r"a part of .*c_attn\.bias trains, and peft supports only the whole bias"),
        ("output", "gpt2", {}, r"c_proj\.bias trains, and peft supports only"),
        ("lora", "bert", {"fold": "key,value"}, "the model was patched before training"),
        ("output", "bert", {"drop": "query"}, "the model was patched before training"),
    ],
)
def test_what_peft_cannot_express(tmp_path: Path, train: str, model: str, fields: Any, reason: str) -> None:
    result = run(tmp_path / "run", train, f"embedded:{model}", **fields)
    assert result.plain["adapter"] is None and not (tmp_path / "run" / "adapter").exists()
    assert re.search(reason, result.plain["no_adapter"])


@pytest.mark.parametrize("train", ["output", "lora"])
def test_a_variant_is_a_base(tmp_path: Path, train: str) -> None:
    patch("embedded:bert", tmp_path / "variant", fold="key,value")
    run(tmp_path / "run", train, tmp_path / "variant")
    check(tmp_path / "run", tmp_path / "variant", "SequenceClassification")


def test_a_base_from_the_hub_is_named_by_id_and_commit(tmp_path: Path) -> None:
    cached = tmp_path / "models--some--bert"
    (cached / "blobs").mkdir(parents=True)
    shutil.copytree(folder("bert"), cached / "snapshots" / "0123abc")
    run(tmp_path / "run", "value", cached / "snapshots" / "0123abc")
    config = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("some/bert", "0123abc")


@pytest.mark.parametrize(("kind", "name"), [("lora", "gpt2"), ("lora", "bert"), ("beft", "bert")])
def test_merging_what_was_gathered_is_what_peft_merges(tmp_path: Path, kind: str, name: str) -> None:
    """As of a model in shards, of which only the tensors are whole."""
    wrapped, _ = add(fresh(name, dtype=torch.float32), kind, head=False)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    found = merged_state(wrapped, {name: value.clone() for name, value in wrapped.state_dict().items()})
    wrapped.get_base_model().save_pretrained(tmp_path, state_dict=dict(found))  # which it empties
    expected = wrapped.merge_and_unload()
    again = type(expected).from_pretrained(tmp_path)
    for state in (found, again.state_dict()):
        assert state.keys() == expected.state_dict().keys()
        assert all(torch.equal(state[name], value) for name, value in expected.state_dict().items())


def test_a_tuned_model_is_a_base_too(tmp_path: Path) -> None:
    """Its head does not train again, and goes along all the same."""
    run(tmp_path / "first", "value")
    result = run(tmp_path / "second", "lora", tmp_path / "first" / "model")
    assert result.plain["trained"] == result.plain["trained_without_head"]
    check(tmp_path / "second", tmp_path / "first" / "model", "SequenceClassification")


def test_an_earlier_adapter_is_taken_away(tmp_path: Path) -> None:
    run(tmp_path / "run", "value")
    run(tmp_path / "run", "biases", overwrite=True)
    assert not (tmp_path / "run" / "adapter").exists()


def test_an_adapter_is_no_model_to_tune(tmp_path: Path) -> None:
    run(tmp_path / "first", "beft", tiny(tmp_path / "base", "T5Gemma"))
    with pytest.raises(CheckpointError, match="is a peft adapter, not a model"):
        run(tmp_path / "second", "value", tmp_path / "first" / "adapter")
    with pytest.raises(TuneError, match="holds an adapter beside its model"):
        run(tmp_path / "second", "beft", tmp_path / "first" / "model")
    assert not (tmp_path / "second").exists()
