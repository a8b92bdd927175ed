"""The certificate attacked: variants that are wrong in every way one can think of fail, or are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from hf_bias_patch.errors import BiasPatchError
from hf_bias_patch.evidence.run import verify
from hf_bias_patch.patching.record import BLOCK, PLAN, UNDO
from tests.evidence.helpers import variant_of
from tests.models import fresh, randomise

Saved = Callable[..., Path]
Values = dict[str, torch.Tensor]
WEIGHTS = "model.safetensors"
LAYER = "bert.encoder.layer."
WORDS = "bert.embeddings.word_embeddings.weight"
HEAD = "cls.predictions.decoder.weight"


@dataclass(frozen=True)
class Case:
    """A source and a right variant of it, whose plan may have been taken away."""

    source: Path
    variant: Path


@pytest.fixture(scope="module")
def right(saved: Saved, tmp_path_factory: pytest.TempPathFactory) -> Case:
    place = tmp_path_factory.mktemp("right")
    source = place / "source"
    shutil.copytree(saved("bert"), source)
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3, "c": 4}, unk_token="[UNK]"))
    stock: Any = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    stock.save_pretrained(source)
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (source / "modules.json").write_text('[{"path": ""}, {"path": "1_Pooling"}]')
    torch.save({"weight": torch.ones(3)}, source / "colbert_linear.pt")
    return Case(source, variant_of(source, place / "variant", fold="key,value"))


def values_of(change: Callable[[Values], None]) -> Callable[[Path, Case], None]:
    def spoil(folder: Path, case: Case) -> None:
        values = load_file(folder / WEIGHTS)
        change(values)
        save_file({name: value.contiguous() for name, value in values.items()}, folder / WEIGHTS, {"format": "pt"})

    return spoil


def config_of(**changes: Any) -> Callable[[Path, Case], None]:
    def spoil(folder: Path, case: Case) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def text_in(name: str, text: str) -> Callable[[Path, Case], Any]:
    return lambda folder, case: (folder / name).write_text(text)


def swapped(values: Values, first: str, second: str) -> None:
    for name in [name for name in values if name.startswith(first)]:
        other = second + name.removeprefix(first)
        values[name], values[other] = values[other], values[name]


def heads_swapped(values: Values) -> None:
    for kind in ("weight", "bias"):
        name = f"{LAYER}1.attention.self.query.{kind}"
        values[name] = torch.cat([values[name][8:16], values[name][:8], values[name][16:]])


def rows_swapped(values: Values) -> None:
    values[WORDS][[57, 58]] = values[WORDS][[58, 57]]


def all_of(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Values], None]:
    return lambda values: values.update({name: change(value) for name, value in values.items()})


def renamed(prefix: str) -> Callable[[Values], None]:
    def change(values: Values) -> None:
        for name in list(values):
            values[prefix + name] = values.pop(name)

    return change


def anothers(values: Values) -> None:
    state = randomise(fresh("bert", dtype=torch.float32), seed=7).state_dict()
    values.update({name: state[name].clone() for name in values})


def biases_doubled(values: Values) -> None:
    values.update({name: 2 * value for name, value in values.items() if name.endswith("bias")})


def one(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Values], None]:
    return lambda values: values.update({name: change(values[name])})


def sharded_with_one_missing(folder: Path, case: Case) -> None:
    values = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    half = sorted(values)[::2]
    save_file({name: values[name] for name in half}, folder / "model-00001-of-00002.safetensors", {"format": "pt"})
    files = {name: f"model-0000{1 if name in half else 2}-of-00002.safetensors" for name in values}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def another_tokenizer(folder: Path, case: Case) -> None:
    text = json.loads((folder / "tokenizer.json").read_text())
    text["model"]["vocab"] |= {"a": 3, "b": 2}
    (folder / "tokenizer.json").write_text(json.dumps(text))


def another_plan(folder: Path, case: Case) -> None:
    other = variant_of(case.source, folder.with_name("other"), fold="key")
    shutil.copyfile(other / PLAN, folder / PLAN)


def a_plan_cut_short(folder: Path, case: Case) -> None:
    text = json.loads((folder / PLAN).read_text())
    text["edits"] = text["edits"][:-1]
    (folder / PLAN).write_text(json.dumps(text))


def the_plan_of_another_model(folder: Path, case: Case) -> None:
    shutil.copytree(case.source, source := folder.with_name("source-of-other"))
    values_of(lambda values: swapped(values, f"{LAYER}0.", f"{LAYER}2."))(source, case)
    other = variant_of(source, folder.with_name("other"), fold="key,value", layers="0-1")
    for name in (PLAN, UNDO):
        shutil.copyfile(other / name, folder / name)


WRONG: dict[str, tuple[str, Callable[[Path, Case], Any]]] = {
    "another model's weights": ("the deployed error", values_of(anothers)),
    "two layers swapped": ("the deployed error", values_of(lambda values: swapped(values, f"{LAYER}0.", f"{LAYER}1."))),
    "two heads of the query swapped": ("the deployed error", values_of(heads_swapped)),
    "all zero": ("the deployed error", values_of(all_of(torch.zeros_like))),
    "all noise": (
        "the deployed error",
        values_of(all_of(lambda value: torch.randn(value.shape, generator=torch.Generator().manual_seed(3)))),
    ),
    "all NaN": ("the variant gives NaN", values_of(all_of(lambda value: value * float("nan")))),
    "one NaN": (
        "the variant gives NaN",
        values_of(one(WORDS, lambda value: value.index_fill(0, torch.tensor([59]), float("nan")))),
    ),
    "a prefix of torch.compile": ("58 of 58 tensor names begin with `_orig_mod.`", values_of(renamed("_orig_mod."))),
    "a prefix of DDP": ("begin with `module.`", values_of(renamed("module."))),
    "a prefix of Lightning": ("begin with `model.`", values_of(renamed("model."))),
    "the base model's prefix twice": ("begin with `bert.`", values_of(renamed("bert."))),
    "another dtype": ("another dtype or shape", values_of(all_of(lambda value: value.bfloat16()))),
    "one tensor in another dtype": (
        "output.dense.bias: another dtype or shape",
        values_of(one(f"{LAYER}0.output.dense.bias", lambda value: value.double())),
    ),
    "the tied head cut": (
        "`tie_word_embeddings` is false, and true in the source",
        config_of(tie_word_embeddings=False),
    ),
    "a head that was tied": (
        "decoder.weight: not in the source",
        values_of(lambda values: values.update({HEAD: values[WORDS] + 1})),
    ),
    "another epsilon": ("`layer_norm_eps` is 1e-11, and 1e-12", config_of(layer_norm_eps=1e-11)),
    "another activation": ("`hidden_act` is", config_of(hidden_act="gelu_new")),
    "another number of heads": ("`num_attention_heads` is 8, and 4", config_of(num_attention_heads=8)),
    "fewer layers": ("BertForMaskedLM does not use 8 of the tensors under test", config_of(num_hidden_layers=2)),
    "another dropout": ("`attention_probs_dropout_prob` is 0.5", config_of(attention_probs_dropout_prob=0.5)),
    "another tokenizer": ("tokenizer.json is not the source's", another_tokenizer),
    "no vocabulary": ("tokenizer.json is in the source", lambda folder, case: (folder / "tokenizer.json").unlink()),
    "more words": ("added_tokens.json is in the variant", text_in("added_tokens.json", '{"d": 5}')),
    "another padding token": (
        "special_tokens_map.json is in",
        text_in("special_tokens_map.json", '{"pad_token": "c"}'),
    ),
    "another length": ("`max_length` is 5, and", text_in("generation_config.json", '{"max_length": 5}')),
    "another pooling": (
        "1_Pooling/config.json is not the source's",
        text_in("1_Pooling/config.json", '{"pooling_mode_cls_token": true}'),
    ),
    "other modules": ("modules.json is not the source's", text_in("modules.json", "[]")),
    "another head beside it": (
        "colbert_linear.pt is not the source's",
        lambda folder, case: torch.save({"weight": torch.zeros(3)}, folder / "colbert_linear.pt"),
    ),
    "code of its own": ("names own.Bert, and no code", config_of(auto_map={"AutoModelForMaskedLM": "own.Bert"})),
    "a bias dropped": (
        "query.bias: not in the variant",
        values_of(lambda values: values.__delitem__(f"{LAYER}1.attention.self.query.bias")),
    ),
    "the embedding dropped": (
        "missing bert.embeddings.word_embeddings.weight",
        values_of(lambda values: values.__delitem__(WORDS)),
    ),
    "an extra tensor": (
        "output.dense.bias: not in the source",
        values_of(lambda values: values.update({f"{LAYER}3.output.dense.bias": torch.ones(32)})),
    ),
    "biases doubled": ("the deployed error", values_of(biases_doubled)),
    "one norm scaled": (
        "the deployed error",
        values_of(one(f"{LAYER}1.output.LayerNorm.weight", lambda value: value * 1.001)),
    ),
    "one number by its last bit": (
        "word_embeddings.weight: differs, and nothing was to change it",
        values_of(
            one(
                WORDS,
                lambda value: (value.view(torch.int32) ^ torch.eye(60, 32, dtype=torch.int32)).view(torch.float32),
            )
        ),
    ),
    "two words swapped": ("the deployed error", values_of(rows_swapped)),
    "a shard missing": ("lacks 1 of 2 weight files", sharded_with_one_missing),
    "a square matrix transposed": (
        "the deployed error",
        values_of(one(f"{LAYER}0.attention.self.value.weight", lambda value: value.T)),
    ),
    "a matrix transposed": (
        "do not have the shapes that config.json asks for",
        values_of(one(f"{LAYER}0.intermediate.dense.weight", lambda value: value.T)),
    ),
    "a file cut short": (
        "is truncated",
        lambda folder, case: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-7]),
    ),
}
"""Name → what convicts it, and how it is made of a right one."""

OF_PLANS: dict[str, tuple[str, Callable[[Path, Case], Any]]] = {
    "the plan of another recipe": ("its recipe is another than that in config.json", another_plan),
    "a plan cut short": ("not what its recipe gives", a_plan_cut_short),
    "plan and undo file of another model": (
        "its recipe is another than that in config.json",
        the_plan_of_another_model,
    ),
}


def convicted(variant: Path, source: Path) -> str:
    """Why a variant fails or is refused; empty if it passes."""
    try:
        certificate = verify(variant, source, attention=("sdpa",))
    except BiasPatchError as error:
        return f"refused: {error}"
    return " ".join(certificate.reasons)


def spoilt(case: Case, place: Path, spoil: Callable[[Path, Case], Any]) -> Path:
    folder = place / "variant"
    shutil.copytree(case.variant, folder)
    spoil(folder, case)
    return folder


def test_the_right_one_passes(right: Case, tmp_path: Path) -> None:
    assert not convicted(right.variant, right.source)
    assert not convicted(spoilt(right, tmp_path, without_records), right.source), "or nothing is shown below"


@pytest.mark.parametrize("name", [*WRONG, *OF_PLANS])
def test_a_wrong_variant(right: Case, name: str, tmp_path: Path) -> None:
    why, spoil = (WRONG | OF_PLANS)[name]
    assert why in convicted(spoilt(right, tmp_path, spoil), right.source)


def without_records(folder: Path, *of: Case) -> None:
    """Make a variant a folder that says nothing of its making."""
    shutil.rmtree(folder / "bias_patch")
    path = folder / "config.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != BLOCK}))


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_one_without_a_plan(right: Case, name: str, tmp_path: Path) -> None:
    why, spoil = WRONG[name]
    folder = spoilt(right, tmp_path, spoil)
    without_records(folder)
    assert why in convicted(folder, right.source)
