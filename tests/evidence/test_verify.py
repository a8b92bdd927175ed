"""`verify` on real variants of tiny models: what passes, what does not, and what cannot be verified."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_bias_patch.errors import CheckpointError, VerifyError
from hf_bias_patch.evidence.certificate import Certificate
from hf_bias_patch.evidence.run import verify
from hf_bias_patch.patching.record import CERTIFICATE, PLAN
from tests.evidence.helpers import edited, variant_of
from tests.models import NAMES, heads

Saved = Callable[..., Path]


def passes(certificate: Certificate) -> None:
    assert certificate.passed, certificate.reasons
    assert certificate.comparisons > 1000, "vacuous"
    assert certificate.algebra is not None and certificate.algebra.error < 1e-13
    tensors = certificate.tensors
    assert tensors is not None and tensors.exact == tensors.planned and tensors.exact > 0
    assert certificate.equal and all(claim.held is not False for claim in certificate.equal if claim.claimed)
    assert Certificate.loads(certificate.dumps()) == certificate


@pytest.mark.parametrize("name", NAMES)
def test_key_and_value_of_every_model(saved: Saved, name: str, tmp_path: Path) -> None:
    certificate = verify(variant_of(saved(name), tmp_path / "out", fold="key,value"), saved(name))
    passes(certificate)
    assert [run.where for run in certificate.runs] == ["eager", "sdpa"]
    assert certificate.if_dropped is not None and certificate.if_dropped > 0.05, "the models are too tame to tell"
    outputs = {figure.output for figure in certificate.runs[0].deployed}
    assert outputs >= {"logits", "last_hidden_state"}
    assert ("encoder_last_hidden_state" in outputs) == ("bart" in name or "+" in name)
    decodes = name not in ("bert", "roberta", "distilbert", "electra", "electra-projected")
    for run in certificate.runs:
        assert (run.decoding is not None) == decodes
        assert run.decoding is None or run.decoding.tokens > 100


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("name", ["distilbert", "gpt2", "mbart"])
def test_everything_into_weights_in_every_dtype(saved: Saved, name: str, dtype: str, tmp_path: Path) -> None:
    source = saved(name, dtype)
    variant = variant_of(source, tmp_path / "out", fold="key:weight,value:weight,query", max_loss=1)
    certificate = verify(variant, source, attention=("sdpa",))
    passes(certificate)
    assert certificate.dtype == dtype
    claimed = {claim.flag for claim in certificate.equal if claim.claimed}
    assert claimed >= {"logits", "hidden_states", "attention_weights", "lora", "kv_cache"}


@pytest.mark.parametrize("family", ["bert", "gpt2", "bart"])
def test_every_head(saved: Saved, family: str, tmp_path: Path) -> None:
    for head in heads(family):
        source = saved(family, head=head)
        variant = variant_of(source, tmp_path / head.__name__, fold="key,value")
        passes(verify(variant, source, attention=("eager",)))


def test_absent_storage(saved: Saved, tmp_path: Path) -> None:
    for name in ("distilbert", "gpt2"):
        variant = variant_of(saved(name), tmp_path / name, fold="key,value,query", storage="absent")
        certificate = verify(variant, saved(name))
        passes(certificate)
        assert certificate.load_report == ()
        assert verify(variant, saved(name), layerwise=True).passed


def test_query_into_the_norm(saved: Saved, tmp_path: Path) -> None:
    variant = variant_of(saved("bert", "F64"), tmp_path / "out", fold="query:norm")
    certificate = verify(variant, saved("bert", "F64"))
    passes(certificate)
    measured = {claim.flag: claim.held for claim in certificate.equal}
    assert measured["attention_weights"] and measured["logits"] and not measured["hidden_states"]


def test_amplified_rounding_fails_and_is_explained(saved: Saved, tmp_path: Path) -> None:
    source = saved("bart")
    certificate = verify(variant_of(source, tmp_path / "out", fold="query:norm", max_loss=1), source)
    assert certificate.algebra is not None and certificate.algebra.passed
    assert not certificate.passed
    assert any("its own rounding error" in note for note in certificate.notes)


def test_lossy_never_passes(saved: Saved, tmp_path: Path) -> None:
    certificate = verify(variant_of(saved("bert"), tmp_path / "out", drop="value"), saved("bert"))
    assert certificate.lossy and not certificate.passed
    assert "on purpose" in certificate.reasons[0]
    for run in certificate.runs:
        assert run.algebra and not any(figure.passed for figure in (*run.algebra, *run.deployed))


def test_dropping_a_redundant_bias_is_not_lossy(saved: Saved, tmp_path: Path) -> None:
    certificate = verify(variant_of(saved("bert"), tmp_path / "out", drop="key"), saved("bert"), attention=("sdpa",))
    passes(certificate)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_in_the_variant_fails(saved: Saved, bad: float, tmp_path: Path) -> None:
    variant = variant_of(saved("bert"), tmp_path / "right", fold="key")

    def spoil(values: dict[str, torch.Tensor]) -> None:
        values["cls.predictions.bias"][5] = bad

    for plan in (True, False):
        wrong = edited(variant, tmp_path / f"wrong{plan}", spoil, plan=plan)
        certificate = verify(wrong, saved("bert"), attention=("sdpa",))
        assert not certificate.passed
        assert any("the variant gives NaN" in reason for reason in certificate.reasons), certificate.reasons
        assert Certificate.loads(certificate.dumps()).reasons == certificate.reasons


def test_nan_in_both_fails(saved: Saved, tmp_path: Path) -> None:
    variant = variant_of(saved("bert"), tmp_path / "right", fold="key")

    def spoil(values: dict[str, torch.Tensor]) -> None:
        values["cls.predictions.bias"][5] = float("nan")

    wrong = edited(variant, tmp_path / "wrong", spoil, plan=False)
    certificate = verify(wrong, wrong, attention=("sdpa",))
    assert not certificate.passed
    assert any("no noise floor" in reason for reason in certificate.reasons)


def test_a_tensor_missing_from_the_variant_fails(saved: Saved, tmp_path: Path) -> None:
    variant = variant_of(saved("bert"), tmp_path / "right", fold="key")
    name = "bert.encoder.layer.1.attention.self.query.bias"
    certificate = verify(edited(variant, tmp_path / "wrong", lambda values: values.pop(name)), saved("bert"))
    assert certificate.load_report == (f"missing {name}",)
    assert certificate.tensors is not None and certificate.tensors.wrong == (f"{name}: not in the variant",)
    assert not certificate.passed and len(certificate.reasons) > 2


def test_a_head_that_neither_has_is_said(saved: Saved, tmp_path: Path) -> None:
    lacking = ("cls.predictions.transform.dense.weight", "cls.predictions.transform.dense.bias")

    def behead(values: dict[str, torch.Tensor]) -> None:
        for name in lacking:
            del values[name]

    whole = variant_of(saved("bert"), tmp_path / "whole", freeze="query")
    source = edited(whole, tmp_path / "source", behead, plan=False)
    (source / "config.json").write_bytes((saved("bert") / "config.json").read_bytes())
    shutil.rmtree(source / "bias_patch")
    certificate = verify(variant_of(source, tmp_path / "out", fold="value"), source)
    passes(certificate)
    assert any(note.startswith("The source lacks") and lacking[1] in note for note in certificate.notes)


def test_the_plan_of_another_source(saved: Saved, tmp_path: Path) -> None:
    variant = variant_of(saved("bert", "F16"), tmp_path / "out", fold="value")
    certificate = verify(variant, saved("bert"), attention=("sdpa",))
    assert certificate.algebra is None and "another checkpoint" in certificate.no_algebra
    assert not certificate.passed


@pytest.mark.parametrize("layerwise", [False, True])
def test_another_architecture_is_refused(saved: Saved, tmp_path: Path, layerwise: bool) -> None:
    from transformers import BertModel

    variant = variant_of(saved("bert"), tmp_path / "out", fold="value")
    with pytest.raises(VerifyError, match=r"out is a bert and .*gpt2.* a gpt2\. Two different architectures"):
        verify(variant, saved("gpt2"), layerwise=layerwise)
    with pytest.raises(VerifyError, match=r"out is a BertForMaskedLM and .* a BertModel"):
        verify(variant, saved("bert", head=BertModel), layerwise=layerwise)


def test_a_plan_that_is_not_what_its_recipe_gives(saved: Saved, tmp_path: Path) -> None:
    variant = variant_of(saved("bert"), tmp_path / "out", fold="key,value")
    text = json.loads((variant / PLAN).read_text())
    text["edits"] = [edit for edit in text["edits"] if edit["site"] != "encoder.1.self"]
    (variant / PLAN).write_text(json.dumps(text))
    certificate = verify(variant, saved("bert"), attention=("sdpa",))
    assert certificate.algebra is None and "not what its recipe gives" in certificate.no_algebra
    assert not certificate.passed


def test_an_unknown_attention_is_left_out_or_refused(saved: Saved, tmp_path: Path) -> None:
    variant = variant_of(saved("bert"), tmp_path / "out", fold="key")
    certificate = verify(variant, saved("bert"), attention=("sdpa", "of_my_own"))
    assert certificate.passed and [run.where for run in certificate.runs] == ["sdpa"]
    assert any("of_my_own attention was left out" in note for note in certificate.notes)
    with pytest.raises(VerifyError, match="of_my_own"):
        verify(variant, saved("bert"), attention=("of_my_own",))
    with pytest.raises(VerifyError, match="No attention"):
        verify(variant, saved("bert"), attention=())


class ManyTexts(Sequence[str]):
    """More texts than any machine has memory for their outputs."""

    def __len__(self) -> int:
        return 10**12

    def __getitem__(self, index: Any) -> Any:
        return "Some text."


def test_too_little_memory_is_refused_with_numbers(saved: Saved, tmp_path: Path) -> None:
    variant = variant_of(saved("bert"), tmp_path / "out", fold="key")
    with pytest.raises(VerifyError, match=r"takes about [\d,.]+ GiB of memory, and [\d,.]+ GiB are free.*--layerwise"):
        verify(variant, saved("bert"), texts=ManyTexts())
    assert verify(variant, saved("bert"), layerwise=True).passed


def test_quantised_weights_are_refused(saved: Saved, tmp_path: Path) -> None:
    variant = variant_of(saved("bert"), tmp_path / "out", fold="key")
    source = tmp_path / "source"
    shutil.copytree(saved("bert"), source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"quantization_config": {"bits": 4}}))
    with pytest.raises(VerifyError, match="quantised"):
        verify(variant, source)


def test_seeds_and_progress(saved: Saved, tmp_path: Path) -> None:
    variant = variant_of(saved("bert"), tmp_path / "out", fold="value")
    steps: list[str] = []
    runs = [verify(variant, saved("bert"), attention=("sdpa",), seed=seed, progress=steps.append) for seed in (1, 1, 2)]
    assert runs[0].runs == runs[1].runs and runs[0].runs != runs[2].runs
    assert "variant in F32, sdpa" in steps


def test_texts(saved: Saved, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    source = tmp_path / "source"
    shutil.copytree(saved("gpt2"), source)
    words = {word: index for index, word in enumerate(["[pad]", "[bos]", "[eos]", "a", "b", "c", "d"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[eos]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    stock: Any = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[pad]", eos_token="[eos]")
    stock.save_pretrained(source)
    variant = variant_of(source, tmp_path / "out", fold="value")
    texts = ["a b c", "d " * 100, *["b d"] * 8]
    certificate = verify(variant, source, texts=texts, attention=("sdpa",))
    passes(certificate)
    assert {"texts 1 to 8", "texts 9 to 10", "greedy decoding: texts as prompts"} <= set(certificate.probes)
    assert not any("random ids" in note for note in certificate.notes)
    with pytest.raises(VerifyError, match="no tokens"):
        verify(variant, source, texts=[""])


def test_texts_are_refused_site_by_site(saved: Saved, tmp_path: Path) -> None:
    variant = variant_of(saved("bert"), tmp_path / "out", fold="value")
    with pytest.raises(VerifyError, match=r"cannot use texts.*--layerwise"):
        verify(variant, saved("bert"), texts=["a text"], layerwise=True)


def test_texts_without_a_tokenizer_are_left_out(saved: Saved, tmp_path: Path) -> None:
    variant = variant_of(saved("bert"), tmp_path / "out", fold="value")
    certificate = verify(variant, saved("bert"), texts=["a text"], attention=("sdpa",))
    assert any("no tokenizer" in note and "1 texts were left out" in note for note in certificate.notes)


def test_nothing_about_the_machine_is_in_the_certificate(saved: Saved, tmp_path: Path) -> None:
    variant = variant_of(saved("bert"), tmp_path / "out", fold="value")
    certificate = verify(variant, saved("bert"), attention=("sdpa",))
    assert certificate.variant.name == "out"
    assert str(tmp_path) not in certificate.dumps()


def test_a_source_that_was_moved_keeps_its_name(saved: Saved, tmp_path: Path) -> None:
    variant = variant_of(saved("bert"), tmp_path / "out", fold="value")
    shutil.copytree(saved("bert"), tmp_path / "elsewhere")
    certificate = verify(variant, tmp_path / "elsewhere", attention=("sdpa",))
    assert certificate.source.name == saved("bert").name and certificate.passed


def test_by_default_the_source_is_restored_from_the_variant(saved: Saved, tmp_path: Path) -> None:
    for storage in ("zeros", "absent"):
        variant = variant_of(saved("distilbert"), tmp_path / storage, fold="key,value,query", storage=storage)
        certificate = verify(variant, attention=("sdpa",))
        passes(certificate)
        assert certificate.source.name == saved("distilbert").name
        assert verify(variant, layerwise=True).passed
    assert {path.name for path in tmp_path.iterdir()} == {"zeros", "absent"}, "nothing is left lying about"


def test_what_restores_no_source_needs_one_given(
    saved: Saved, tree: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    with pytest.raises(VerifyError, match=r"nothing to compare .* with\..*--against MODEL"):
        verify(saved("bert"))
    right = variant_of(saved("bert"), tmp_path / "right", fold="value")

    def train(values: dict[str, torch.Tensor]) -> None:
        values["bert.encoder.layer.1.attention.output.dense.bias"] += 1

    trained = edited(right, tmp_path / "trained", train)
    with pytest.raises(VerifyError, match=r"made from cannot be restored.* changed since.*--against MODEL") as caught:
        verify(trained)
    assert "Revert the variant" not in str(caught.value)
    assert not verify(trained, saved("bert"), attention=("sdpa",)).passed
    assert {path.name for path in tmp_path.iterdir()} == {"right", "trained"}


def test_an_interrupted_edit_in_place_is_left_alone(saved: Saved, tmp_path: Path) -> None:
    from hf_bias_patch.checkpoint.journal import JOURNAL

    variant = variant_of(saved("bert"), tmp_path / "out", fold="value")
    (variant / JOURNAL).write_bytes(b"")
    with pytest.raises(CheckpointError, match="interrupted"):
        verify(variant)
    assert (variant / JOURNAL).exists()


def test_the_certificate_is_kept_and_all_else_only_read(
    saved: Saved, tree: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    variant = variant_of(saved("gpt2"), tmp_path / "out", fold="value")
    before = tree(variant)
    certificate = verify(variant, saved("gpt2"), attention=("eager",))
    after = tree(variant)
    assert set(after) - set(before) == {CERTIFICATE} and before.items() <= after.items()
    assert Certificate.loads((variant / CERTIFICATE).read_bytes()) == certificate
    again = verify(variant, saved("gpt2"), layerwise=True)
    assert Certificate.loads((variant / CERTIFICATE).read_bytes()) == again != certificate


def test_what_is_not_ours_gets_no_certificate(
    saved: Saved, tree: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    variant = variant_of(saved("gpt2"), tmp_path / "out", fold="value")
    plain = edited(variant, tmp_path / "plain", lambda values: None, plan=False)
    cached = tmp_path / "hub" / "models--owner--name" / "snapshots" / ("0" * 40)
    (cached.parent.parent / "blobs").mkdir(parents=True)
    shutil.copytree(variant, cached)
    before = tree(tmp_path)
    for folder in (plain, cached):
        assert verify(folder, saved("gpt2"), attention=("sdpa",)).passed
    assert tree(tmp_path) == before


def test_a_linked_certificate_is_replaced_and_not_followed(saved: Saved, tmp_path: Path) -> None:
    variant = variant_of(saved("gpt2"), tmp_path / "out", fold="value")
    (tmp_path / "other").write_text("not ours")
    (variant / CERTIFICATE).symlink_to(tmp_path / "other")
    certificate = verify(variant, saved("gpt2"), layerwise=True)
    assert Certificate.loads((variant / CERTIFICATE).read_bytes()) == certificate
    assert (tmp_path / "other").read_text() == "not ours"


def test_importing_loads_no_framework() -> None:
    code = "import sys, hf_bias_patch.evidence.run; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
