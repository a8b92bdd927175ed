"""Files made to cost more than they hold: each is refused, or read, in little memory and time."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from hf_bias_patch import inspect, patch, revert
from hf_bias_patch.checkpoint.guards import ASSETS
from hf_bias_patch.checkpoint.source import resolve
from hf_bias_patch.errors import BiasPatchError
from hf_bias_patch.patching.rebuild import rebuild
from hf_bias_patch.patching.recipe import read_recipe
from tests.fuzz.limits import limited
from tests.fuzz.seeds import alone

LAYERS = {"bert": "num_hidden_layers", "gpt2": "n_layer", "bart": "encoder_layers"}
HEADS = {"bert": "num_attention_heads", "gpt2": "n_head", "bart": "encoder_attention_heads"}
NUMBERS = {"2**31": 2**31, "2**70": 2**70, "10**400": 10**400, "-1": -1, "NaN": float("nan"), "inf": 1e999,
           "text": "9" * 5000, "list": [1] * 20_000}  # fmt: skip


def refusal(call: Callable[[], object]) -> str:
    """The text of our error; empty if there was none. It is short enough to read."""

    def job() -> str:
        try:
            call()
            return ""
        except BiasPatchError as error:
            return str(error)

    said = limited(job)
    assert len(said) < 1500
    return said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A BERT to be damaged."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(ASSETS / "bert" / name, tmp_path)
    return tmp_path


def configure(folder: Path, **fields: Any) -> None:
    """Change fields of config.json."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def write_header(folder: Path, text: bytes, body: bytes = b"") -> None:
    """A weight file with this header."""
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("key", [LAYERS, HEADS], ids=["layers", "heads"])
def test_no_number_of_a_config_is_work(key: dict[str, str], number: str, tmp_path: Path) -> None:
    for name, field in key.items():
        shutil.copytree(ASSETS / name, tmp_path / name)
        configure(tmp_path / name, **{field: NUMBERS[number]})
        assert field in refusal(partial(inspect, tmp_path / name))
        assert field in refusal(partial(patch, tmp_path / name, tmp_path / "out", fold="key"))
        assert not (tmp_path / "out").exists()


def test_a_name_for_every_tensor_is_not_looked_up_in_every_name(folder: Path) -> None:
    """A prefix of its own, or a layer of its own, for each; and what is called twice is found at once."""
    entry = {"dtype": "F32", "shape": [0, 2], "data_offsets": [0, 0]}
    wrapped = {f"p{number}.encoder.layer.0.attention.self.query.weight": entry for number in range(10_000)}
    write_header(folder, json.dumps(wrapped).encode())
    assert "begin with" in refusal(lambda: inspect(folder))
    layers = {f"encoder.layer.{number}.attention.self.query.weight": entry for number in range(10_000)}
    write_header(folder, json.dumps(layers).encode())
    configure(folder, model_type="nobody's")
    assert "No family covers" in refusal(lambda: inspect(folder))
    twice = ",".join(f'"t{number}":0' for number in [*range(60_000), 59_999])
    write_header(folder, f"{{{twice}}}".encode())
    assert "names 't59999' twice" in refusal(lambda: inspect(folder))


SHAPES = {
    "of an empty one": ([0, 2**62], "larger than any array"),
    "of many empty ones": ([0] + [2**31] * 40, "larger than any array"),
    "of too many axes": ([1] * 65, "65 axes"),
    "of very many axes": ([0] * 100_000, "axes"),
    "no number": ([1e999], "NaN|Infinity|JSON"),
}


@pytest.mark.parametrize("which", SHAPES)
def test_no_shape_is_larger_than_what_it_describes(which: str, folder: Path) -> None:
    shape, said = SHAPES[which]
    write_header(folder, json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode())
    assert any(word in refusal(lambda: inspect(folder)) for word in said.split("|"))


@pytest.mark.parametrize("text", ['{"a":' + "[" * 100_000, '{"a":' + "[" * 300 + "]" * 300 + "}"], ids=["", "closed"])
@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json", "model.safetensors"])
def test_brackets_within_brackets(file: str, text: str, folder: Path) -> None:
    if file.endswith("safetensors"):
        write_header(folder, text.encode())
    else:
        (folder / file).write_text(text)
    if "index" in file:
        (folder / "model.safetensors").unlink()
    assert file in refusal(lambda: inspect(folder))


@pytest.mark.parametrize(
    "name", ["f" * 300, "d/" * 2000 + "f", "\ud800", "a\0b", ""], ids=["long", "deep", "half", "0", ""]
)
def test_shard_names_that_no_file_can_have(name: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert "weight file" in refusal(lambda: inspect(folder))


def test_an_index_of_many_files_names_some(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    weight_map = {f"t{number}": f"f{number}.safetensors" for number in range(10_000)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert "lacks 10,000 of 10,000 weight files" in refusal(lambda: inspect(folder))


_DOUBLED = [
    f"{this}: &{this} [{','.join([f'*{last}'] * 9)}]" for last, this in zip("abcdefghij", "bcdefghijk", strict=True)
]
RECIPES = {
    "repetitions": "\n".join(["a: &a [x]", *_DOUBLED, "fold: *k"]),
    "merged": "\n".join(["a: &a {fold: key}", *(line.replace("[", "{<<: [").replace("]", "]}") for line in _DOUBLED)]),
    "of itself": "fold: &a [*a]",
    "sixties": "seed: 1" + ":1" * 100_000,
    "digits": f"fold: key\nseed: 0x{'f' * 9000}",
    "layers": "fold: key\nlayers: 0-999999999999",
    "nested": "fold: " + "[" * 3000,
    "wrong many times": "fold: key\nlayers: [" + "a," * 20_000 + "]",
    "large": "# " + "x" * 2_000_000,
}


@pytest.mark.parametrize("which", RECIPES)
def test_recipes(which: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPES[which])
    assert "recipe" in refusal(lambda: read_recipe(tmp_path / "recipe.yaml"))


def test_repetitions_that_are_few_are_none_of_it(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("layers: &some [0, 1]\nfold: [key]\n")
    assert read_recipe(tmp_path / "recipe.yaml").layers == (0, 1)


_PAIRS = b"\x80\x02]q\x00(" + b"K\x01K\x01\x86" * 30_000 + b"eccollections\nOrderedDict\nq\x01"
PICKLES = {
    "one table many times": _PAIRS + b"h\x01h\x00\x85R" * 30_000 + b".",
    "marks": b"\x80\x02" + b"(" * 200_000 + b".",
    "deep": b"\x80\x02]q\x00" + b"h\x00\x85q\x00" * 50_000 + b".",
    "doubled": b"\x80\x02]q\x00" + b"h\x00h\x00\x86q\x00" * 300 + b".",
    "long": b"\x80\x02\x8b\xff\xff\xff\x7f" + bytes(1000) + b".",
    "longer": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.",
    "digits": b"\x80\x02L" + b"9" * 1_000_000 + b"L\n.",
    "a name": b"\x80\x02c" + b"x" * 1_000_000 + b"\ny\n.",
}


@pytest.mark.parametrize("which", PICKLES)
def test_pickles(which: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", PICKLES[which])
        archive.writestr("archive/byteorder", "little")
    assert "pytorch_model.bin" in refusal(lambda: inspect(folder))
    (folder / "pytorch_model.bin").write_bytes(PICKLES[which])
    assert "pytorch_model.bin" in refusal(lambda: inspect(folder))


def test_an_archive_is_not_unpacked(folder: Path) -> None:
    """Neither PyTorch nor an undo file of ours ever packs: a megabyte may stand for a gigabyte."""
    (folder / "model.safetensors").unlink()
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(20_000_000))
    assert "compressed" in refusal(lambda: inspect(folder))


def test_an_undo_file_is_not_unpacked(tmp_path: Path) -> None:
    out = tmp_path / "out"
    patch(ASSETS / "bert", out, fold="key,query")
    with zipfile.ZipFile(out / "bias_patch/undo.zip") as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    rows = next(name for name in kept if name.endswith("/rows"))
    for content, packed in ((bytes(20_000_000), zipfile.ZIP_DEFLATED), (_bomb(), zipfile.ZIP_STORED)):
        with zipfile.ZipFile(out / "bias_patch/undo.zip", "w", packed) as archive:
            for name, old in kept.items():
                archive.writestr(name, content if name == rows else old)
        assert "undo.zip is damaged" in refusal(lambda: revert(out, tmp_path / "back"))
        assert not (tmp_path / "back").exists()


def test_new_values_of_what_the_plan_leaves_alone(tmp_path: Path) -> None:
    """A patch without weights brings new values, and may bring those of anything."""
    patch(ASSETS / "bert", tmp_path / "variant", fold="key,value")
    alone(tmp_path / "variant", tmp_path / "alone")
    values = tmp_path / "alone/bias_patch/patch.safetensors"
    tensors = load_file(values)
    name = next(iter(tensors))
    for changed in ({"other": tensors[name]}, {name: tensors[name][:-1]}, {name: tensors[name].astype("float64")}):
        save_file(tensors | changed, values)
        call = partial(rebuild, resolve(tmp_path / "alone"), resolve(ASSETS / "bert"), tmp_path / "out")
        assert "The patch holds values of" in refusal(call)
        assert not (tmp_path / "out").exists()


def _bomb() -> bytes:
    """What a matrix's rows are kept as: a piece and its length before it. This one unpacks to more than may be held."""
    packer = zlib.compressobj(1)
    piece = b"".join(packer.compress(bytes(1_000_000)) for _ in range(600)) + packer.flush()
    return len(piece).to_bytes(8, "little") + piece
