"""`inspect --probe` and `patch --trust-probe`, as a user types them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hf_bias_patch.architecture.family_files import drafted, text_of
from hf_bias_patch.assets import folder as embedded

Run = Callable[..., tuple[int, str, str]]
EMBEDDED = embedded("bert")
CODE = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


class OddConfig(PretrainedConfig):
    model_type = "odd"

    def __init__(self, width=16, vocab_size=40, **kwargs):
        self.width, self.vocab_size = width, vocab_size
        super().__init__(**kwargs)


class Mix(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.pre = nn.LayerNorm(width)
        self.abc = nn.Linear(width, 3 * width)
        self.back = nn.Linear(width, width)

    def forward(self, x):
        a, b, c = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in self.abc(self.pre(x)).chunk(3, -1))
        mixed = (a @ b.transpose(-1, -2)).softmax(-1) @ c
        return x + self.back(mixed.transpose(1, 2).flatten(2))


class OddModel(PreTrainedModel):
    config_class = OddConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Mix(config.width) for _ in range(2))
        self.post_init()

    def forward(self, input_ids, **kwargs):
        x = self.words(input_ids)
        for block in self.blocks:
            x = block(x)
        return BaseModelOutput(last_hidden_state=x)
"""


@pytest.fixture
def run(run: Run) -> Run:
    """The same, its messages as one line each."""

    def command(*arguments: object) -> tuple[int, str, str]:
        code, out, err = run(*arguments)
        return code, out, " ".join(err.split())

    return command


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of a type that nobody knows, with its own code."""
    from safetensors.torch import save_file

    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "modeling_odd.py").write_text(CODE)
    auto = {"AutoConfig": "modeling_odd.OddConfig", "AutoModel": "modeling_odd.OddModel"}
    config = {"model_type": "odd", "architectures": ["OddModel"], "auto_map": auto}
    (folder / "config.json").write_text(json.dumps(config))
    shapes: dict[str, tuple[int, ...]] = {"words.weight": (40, 16)}
    for block in ("blocks.0", "blocks.1"):
        for name, width in (("pre", 16), ("abc", 48), ("back", 16)):
            shapes[f"{block}.{name}.bias"] = (width,)
            shapes[f"{block}.{name}.weight"] = (16,) if name == "pre" else (width, 16)
    random = torch.Generator().manual_seed(0)
    tensors = {name: 0.4 * torch.randn(shape, generator=random) for name, shape in shapes.items()}
    for block in ("blocks.0", "blocks.1"):
        tensors[f"{block}.pre.weight"] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def changed(folder: Path, tmp_path: Path, **entries: object) -> Path:
    """A copy of a checkpoint with other config entries."""
    copy = tmp_path / "changed"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | entries))
    return copy


def test_numbers_stand_beside_the_table(run: Run, saved: Callable[..., Path]) -> None:
    code, out, _ = run("inspect", saved("gpt2"), "--probe")
    assert code == 0
    assert (
        len(re.findall(r"decoder\.\d\.self +key +redundant +redundant \(probed\) +\d\.\de-1\d +nothing, weight", out))
        == 3
    )
    assert len(re.findall(r"decoder\.\d\.self +value +foldable +needed +\d\.\de-0\d +weight, output", out)) == 3
    assert "Noise floor" in out and "family gpt2" in out


def test_a_table_that_promises_too_much_is_an_error_that_shows_both(run: Run, saved: Callable[..., Path]) -> None:
    folder, traps = _small("gpt_neox", saved, "neox"), 'traps = [{trap = "rotary"}]\n'
    assert traps in text_of("gpt_neox"), "vacuous"
    with drafted("gpt_neox", text_of("gpt_neox").replace(traps, "")):
        code, out, err = run("inspect", folder, "--probe", "--json")
        refused = run("patch", folder, folder.parent / "out", "--fold", "value", "--trust-probe")
    assert code == 1
    assert "disagree" in err and "table: nothing: exact" in err and "numbers: needed" in err
    found = json.loads(out)
    assert {item["kind"] for item in found["disagreements"]} == {"wrong"} and len(found["disagreements"]) == 2
    assert refused[0] == 2 and "neither is trusted" in refused[2] and not (folder.parent / "out").exists()


def _small(name: str, saved: Callable[..., Path], label: str) -> Path:
    from hf_bias_patch.family_check.small_models.config import small_config
    from hf_bias_patch.family_check.small_models.model import small_model

    folder = saved("bert").parent / f"{label}-{torch.initial_seed()}" / "model"
    if not folder.exists():
        small_model(small_config(name)).float().save_pretrained(folder)
    return folder


def test_unknown_code_is_run_only_when_trusted(run: Run, odd: Path) -> None:
    code, _, err = run("inspect", odd)
    assert code == 2 and "No family covers the model type 'odd'" in err and "--probe" in err
    code, _, err = run("inspect", odd, "--probe")
    assert code == 2 and "code of its own" in err and "--trust-remote-code" in err
    code, _, err = run("inspect", odd, "--trust-remote-code")
    assert code == 2 and "needs --probe" in err
    assert not (odd.parent / "modules").exists(), "its code was imported"


def test_a_model_that_nobody_knows_is_shown_by_module_paths(run: Run, odd: Path) -> None:
    code, out, _ = run("inspect", odd, "--probe", "--trust-remote-code", "--json")
    found = json.loads(out)
    assert code == 0 and found["family"] is None and "odd" in found["no_family"]
    verdicts = {(bias["site"], bias["projection"]): bias["probe"] for bias in found["biases"]}
    assert len(verdicts) == 6
    assert verdicts["blocks.1.abc", "key"]["verdict"] == "redundant (probed)"
    assert verdicts["blocks.1.abc", "value"]["exact"] == ["weight", "output"]
    assert all(bias["table"] is None for bias in found["biases"])


def test_sites_of_unknown_code_can_be_planned_from_python(odd: Path) -> None:
    import hf_bias_patch

    sites = hf_bias_patch.probe(odd, trust_remote_code=True).sites
    plan = hf_bias_patch.plan(odd, fold="key,value,query", sites=sites)
    assert [edit.label for edit in plan.edits[:3]] == ["fold key:nothing", "fold value:output", "fold query:weight"]
    assert plan.edits[0].site == "blocks.0.abc" and plan.edits[1].slot.view.start == 32 and plan.family == ""


def test_unknown_slots_are_folded_on_the_evidence_of_a_probe(
    run: Run, saved: Callable[..., Path], tmp_path: Path
) -> None:
    model, out = changed(saved("bert"), tmp_path, position_embedding_type="new"), tmp_path / "out"
    arguments = ("patch", model, out, "--fold", "key,value,query")
    code, _, err = run(*arguments)
    assert code == 2 and "does not cover position_embedding_type" in err
    code, _, err = run(*arguments, "--trust-probe", "--no-verify")
    assert code == 2 and "always verified" in err and not out.exists()
    code, printed, _ = run(*arguments, "--trust-probe")
    assert code == 0 and "PASSED" in printed and "algebra, float64" in printed
    assert all(word in printed for word in ("fold key:nothing", "fold value:output", "fold query:weight"))
    code, printed, _ = run("verify", out)
    assert code == 0 and "algebra, float64" in printed, "the plan holds the sites it rests on"
    code, _, _ = run("revert", out, tmp_path / "again")
    assert code == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_what_does_not_fit_into_memory_is_refused_with_the_bytes(run: Run, tmp_path: Path) -> None:
    """A file with a hole of 256 GiB in it: its header says how large it is, and nothing of it is read."""
    large = tmp_path / "large"
    shutil.copytree(EMBEDDED, large)
    count = 2**36
    header = json.dumps({"large.weight": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}).encode()
    with open(large / "model.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 4 * count)
    code, _, err = run("inspect", large, "--probe")
    assert code == 2 and re.search(r"takes about 2,048\.0 GiB of memory, and [\d,.]+ GiB are free", err)


def test_a_quantised_model_is_refused(run: Run, tmp_path: Path) -> None:
    code, _, err = run("inspect", changed(EMBEDDED, tmp_path, quantization_config={"bits": 4}), "--probe")
    assert code == 2 and "quantised" in err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": None}, "has no `model_type`"),
        ({"model_type": ["bert"]}, "model_type is ['bert']"),
        ({"model_type": "frobnicator"}, "no model type 'frobnicator'"),
        ({"model_type": "llama"}, "and `model_type` is llama"),
        ({"model_type": "llama", "architectures": None}, "lacks most tensors of a model of type llama"),
        ({"hidden_size": 48}, "do not have the shapes that config.json asks for"),
    ],
)
def test_a_config_of_other_weights_is_refused(tmp_path: Path, run: Run, changes: dict[str, object], said: str) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(EMBEDDED, folder)
    config = json.loads((folder / "config.json").read_text("utf-8")) | changes
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    code, _, err = run("inspect", folder, "--probe")
    assert code == 2 and said in " ".join(err.split())
