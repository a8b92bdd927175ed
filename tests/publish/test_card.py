"""A variant's card: held to the facts beside it, and taken back with the rest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import hf_bias_patch as hbp
from hf_bias_patch import patch, patch_in_place, revert, verify
from hf_bias_patch.checkpoint.source import resolve
from hf_bias_patch.cli import app
from hf_bias_patch.errors import CheckpointError, TargetError
from hf_bias_patch.models.source_files import weight_files
from hf_bias_patch.publish.facts import read_facts

Saved = Callable[..., Path]
Tree = Callable[[Path], dict[str, str]]

BASE_CARD = "---\nlicense: mit\nlanguage: [en]\ntags: [mine]\npipeline_tag: fill-mask\nmodel-index: []\n---\n# Base\n"


@pytest.fixture
def source(saved: Saved, tmp_path: Path) -> Path:
    """A checkpoint with a card of its own."""
    shutil.copytree(saved("bert"), tmp_path / "source")
    (tmp_path / "source" / "README.md").write_text(BASE_CARD)
    return tmp_path / "source"


@pytest.fixture
def variant(source: Path, tmp_path: Path) -> Path:
    """Patched, and measured."""
    patch(source, tmp_path / "variant", fold="key,value")
    verify(tmp_path / "variant", source)
    return tmp_path / "variant"


def _matter(card: str) -> dict[str, object]:
    return yaml.safe_load(card.split("---\n")[1])


def test_every_figure_is_the_certificates(variant: Path) -> None:
    text = hbp.card(variant).text
    certificate = json.loads((variant / "bias_patch" / "certificate.json").read_text())
    for run in certificate["runs"]:
        for figure in (*run["algebra"], *run["deployed"]):
            assert f"| {figure['output']} | {figure['error']:.2g} |" in text and f"{figure['bound']:.2g} |" in text
    for claim in certificate["equal"]:
        assert claim["error"] is None or f"{claim['error']:.1e}" in text
    assert f"{certificate['comparisons']:,} numbers" in text and "It computes what its base computes" in text
    assert "without the key and value biases" in text and "softmax cancels" in text and "AutoModel" in text
    assert "Lossy" not in text and "trust_remote_code" not in text


def test_a_card_follows_the_certificate(variant: Path) -> None:
    path = variant / "bias_patch" / "certificate.json"
    certificate = json.loads(path.read_text())
    certificate["runs"][0]["deployed"][0]["error"] = 0.75
    path.write_text(json.dumps(certificate))
    text = hbp.card(variant).text
    assert "It does not pass" in text and "| 0.75 |" in text and "computes what its base computes" not in text
    path.unlink()
    assert "there is no certificate" in hbp.card(variant).text


def test_the_front_matter_is_the_hubs(variant: Path) -> None:
    assert "base_model" not in _matter(hbp.card(variant).text)  # a folder is no Hub id
    matter = _matter(hbp.card(variant, base_model="owner/base").text)
    assert matter["base_model"] == "owner/base" and matter["base_model_relation"] == "finetune"
    assert (matter["license"], matter["language"], matter["pipeline_tag"]) == ("mit", ["en"], "fill-mask")
    assert matter["library_name"] == "transformers" and {"hf-bias-patch", "bert", "mine"} <= set(matter["tags"])
    assert "model-index" not in matter and "metrics" not in matter
    assert _matter(hbp.card(variant).text)["base_model"] == "owner/base"  # it was kept


def test_a_card_is_the_same_again_and_keeps_the_bases(variant: Path) -> None:
    first = hbp.card(variant).path.read_bytes()
    assert (variant / "bias_patch" / "base_card.md").read_text() == BASE_CARD
    assert hbp.card(variant).path.read_bytes() == first
    assert (variant / "bias_patch" / "base_card.md").read_text() == BASE_CARD


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("had_card", [False, True])
def test_a_revert_takes_the_card_back(source: Path, tmp_path: Path, tree: Tree, in_place: bool, had_card: bool) -> None:
    if not had_card:
        (source / "README.md").unlink()
    before, variant = tree(source), tmp_path / "variant"
    patch(source, variant, fold="key")
    scores = tmp_path / "scores.json"
    scores.write_text('{"task": "embedded:letters", "metrics": {"perplexity": 3.5}}')
    hbp.card(variant, results=[scores])
    revert(variant, None if in_place else tmp_path / "again")
    assert tree(variant if in_place else tmp_path / "again") == before


def test_cards_of_a_chain_are_told_apart(source: Path, tmp_path: Path, tree: Tree) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    patch(source, first, fold="key")
    hbp.card(first)
    before = tree(first)
    patch(first, second, fold="value")
    hbp.card(second)
    assert (second / "bias_patch" / "base_card.md").read_bytes() == (first / "README.md").read_bytes()
    assert _matter((second / "README.md").read_text())["license"] == "mit"
    revert(second)
    assert tree(second) == before
    revert(second)
    assert tree(second) == tree(source)


@pytest.mark.parametrize("had_card", [False, True])
def test_a_patch_in_place_takes_what_it_makes_untrue(source: Path, tmp_path: Path, tree: Tree, had_card: bool) -> None:
    if not had_card:
        (source / "README.md").unlink()
    variant = tmp_path / "variant"
    patch(source, variant, fold="key")
    verify(variant, source)
    scores = tmp_path / "scores.json"
    scores.write_text('{"task": "sst2", "metrics": {"accuracy": 3.5}}')
    hbp.card(variant, results=[scores])
    before = tree(variant)
    patch_in_place(variant, fold="value")
    left = {path.name for path in variant.rglob("*") if path.is_file()}
    assert not left & {"certificate.json", "sst2.json", "base_card.md"}
    assert (variant / "README.md").read_text() == BASE_CARD if had_card else "README.md" not in left
    revert(variant)
    assert tree(variant) == before


def test_scores_are_stated(variant: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.json"
    scores.write_text(json.dumps({"task": "sst2", "rows": 872, "metrics": {"accuracy": 79.128, "loss": 0.44}}))
    text = hbp.card(variant, results=[scores]).text
    assert "| sst2 | data unknown, 872 rows | accuracy | 79.13 |" in text and _matter(text)["metrics"] == ["accuracy"]
    for bad in ('{"task": "x"}', "[]", "no json", '{"task": "x", "metrics": {"a": "b"}}'):
        scores.write_text(bad)
        with pytest.raises(CheckpointError, match="holds no scores"):
            hbp.card(variant, results=[scores])
    assert [path.name for path in (variant / "bias_patch" / "results").iterdir()] == ["sst2.json"]


def test_what_is_lossy_says_so_first(source: Path, tmp_path: Path) -> None:
    patch(source, tmp_path / "variant", drop="value")
    body = hbp.card(tmp_path / "variant").text.split("-->\n")[1].strip()
    assert body.startswith("**This model computes something else than")


def test_absent_biases_need_the_loader(source: Path, tmp_path: Path) -> None:
    patch(source, tmp_path / "variant", fold="key,value", storage="absent")
    text = hbp.card(tmp_path / "variant").text
    assert "trust_remote_code=True" in text and "modeling_bias_patch.py" in text


def test_on_the_command_line(variant: Path, source: Path) -> None:
    shown = CliRunner().invoke(app, ["card", str(variant), "--print", "--base-model", "owner/base"])
    assert shown.exit_code == 0 and (variant / "README.md").read_text() == BASE_CARD
    done = CliRunner().invoke(app, ["card", str(variant), "--base-model", "owner/base"])
    assert done.exit_code == 0 and (variant / "README.md").read_text() == shown.stdout
    assert "owner/base was not checked" in shown.stderr and "push` will check it" in done.stderr
    assert isinstance(CliRunner().invoke(app, ["card", str(source)]).exception, CheckpointError)
    with pytest.raises(CheckpointError, match="holds no patched and no fine-tuned model"):
        read_facts(source)


def test_what_somebody_wrote_into_a_card_is_not_lost(variant: Path) -> None:
    card = hbp.card(variant).path
    card.write_text(card.read_text() + "By hand.\n")
    with pytest.raises(TargetError, match="Somebody edited"):
        hbp.card(variant)
    assert "By hand." not in hbp.card(variant, overwrite=True).text


def test_the_hubs_cache_gets_no_card(variant: Path, tmp_path: Path) -> None:
    repo = tmp_path / "models--owner--variant"
    (repo / "blobs").mkdir(parents=True)
    snapshot = shutil.copytree(variant, repo / "snapshots" / ("0" * 40))
    before = (snapshot / "README.md").read_bytes()
    with pytest.raises(TargetError, match="belongs to the Hub's cache"):
        hbp.card(snapshot)
    assert (snapshot / "README.md").read_bytes() == before


def test_a_base_at_a_branch_is_no_commit(variant: Path) -> None:
    assert "(https://hf.co/owner/base) at `main` without" in hbp.card(variant, base_model="owner/base@main").text


@pytest.mark.parametrize(
    ("matter", "stated"),
    [
        ("---\r\nlicense: mit\r\nlanguage:\r\n- en\r\n---\r\n# x\r\n", {"license": "mit", "language": ["en"]}),
        ("\ufeff---\nlicense: mit\n---\n", {"license": "mit"}),
        ("\n--- \nlicense: mit\n---  \n", {"license": "mit"}),
        ("---\nlicense: mit\n---", {"license": "mit"}),
        ("---\nlicense: mit\nlanguage: no\n---\n", {"license": "mit", "language": "no"}),
        ("---\nlanguage: [en, no]\ndatasets: [2024-01-01, {a: b}]\n---\n", {"language": ["en", "no"]}),
        ("---\nlicense: {a: b}\nlanguage: []\npipeline_tag:\nlicense_name: ''\n---\n", {}),
        ("---\nlicense: [mit\n---\n", {}),
        ("---\n- license\n---\n", {}),
        ("---\n---\n", {}),
        ("", {}),
    ],
)
def test_front_matter_of_any_base_is_read_as_the_hub_reads_it(
    variant: Path, matter: str, stated: dict[str, object]
) -> None:
    (variant / "README.md").write_bytes(matter.encode())
    found = _matter(hbp.card(variant).text)
    assert {name: found[name] for name in ("license", "language", "pipeline_tag") if name in found} == stated


def test_a_licence_by_another_name_is_named(variant: Path) -> None:
    (variant / "README.md").write_text("---\nlicense: other\nlicense_name: llama9\nlicense_link: LICENSE\n---\n")
    text = hbp.card(variant).text
    assert "(other: llama9) holds" in text and _matter(text)["license_link"] == "LICENSE"


def test_scores_with_odd_names_and_values(variant: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.json"
    scores.write_text(json.dumps({"task": f"../a|b\nc{'x' * 300}", "metrics": {"m\nn": 1.0}}))
    assert "| ../a\\|b cxx" in hbp.card(variant, results=[scores]).text
    kept = [path.name for path in (variant / "bias_patch" / "results").iterdir()]
    assert len(kept) == 1 and not kept[0].startswith(".")
    scores.write_text('{"task": "sst2", "main_metric": "accuracy", "metrics": {"accuracy": NaN}}')
    hbp.card(variant, results=[scores])
    assert not (variant / ".eval_results").exists()
    sst2 = {"task": "sst2", "metrics": {"accuracy": 1.0}}
    for bad in ({"metrics": {}}, {"rows": "many"}, {"main_metric": ["accuracy"]}, {"task": " "}, {"task": None}):
        scores.write_text(json.dumps(sst2 | bad))
        with pytest.raises(CheckpointError, match="holds no scores"):
            hbp.card(variant, results=[scores])


def test_scores_of_other_data_stand_beside_and_those_of_another_model_are_refused(
    variant: Path, source: Path, tmp_path: Path
) -> None:
    def scores(name: str, split: str, of: Path) -> Path:
        data = {"origin": "generated", "name": "letters", "split": split, "rows": 3}
        model = {"name": of.name, "sha256": weight_files(resolve(of))}
        path = tmp_path / name
        path.write_text(json.dumps({"task": "mnli", "metrics": {"accuracy": 50.0}, "data": data, "model": model}))
        return path

    hbp.card(variant, results=[scores("a.json", "matched", variant), scores("b.json", "mismatched", variant)])
    hbp.card(variant, results=[scores("c.json", "matched", variant)])
    assert len(read_facts(variant).results) == 2
    with pytest.raises(CheckpointError, match=r"scores of another model \(source\)"):
        hbp.card(variant, results=[scores("d.json", "matched", source)])


def test_scores_are_drafted_without_being_kept_and_kept_only_with_the_card(variant: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.json"
    scores.write_text('{"task": "sst2", "metrics": {"accuracy": 61.5}}')
    shown = CliRunner().invoke(app, ["card", str(variant), "--print", "--results", str(scores)])
    assert (
        "| sst2 | data unknown | accuracy | 61.50 |" in shown.stdout and not (variant / "bias_patch/results").exists()
    )
    written = hbp.card(variant)
    written.path.write_text(written.text + "By hand.\n")
    with pytest.raises(TargetError, match="Somebody edited"):
        hbp.card(variant, results=[scores])
    assert not (variant / "bias_patch/results").exists()
    assert hbp.card(variant, results=[scores], overwrite=True).text == shown.stdout
