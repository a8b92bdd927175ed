"""Pickles become safetensors, and are never executed."""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_bias_patch.checkpoint.checkpoint import open_checkpoint
from hf_bias_patch.checkpoint.convert import convert
from hf_bias_patch.checkpoint.header import read_header
from hf_bias_patch.checkpoint.pickled import is_pickled
from hf_bias_patch.checkpoint.pickled_file import read_pickled
from hf_bias_patch.errors import CheckpointError

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2)
INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32)


def state() -> dict[str, Any]:
    """One tensor of each dtype, and the shapes and strides that trip writers."""
    torch.manual_seed(0)
    tensors = {f"float.{kind}": torch.randn(3, 5).to(kind) for kind in FLOATS}
    tensors |= {f"integer.{kind}": torch.randint(0, 2, (7,)).to(kind) for kind in INTEGERS}
    base = torch.randn(4, 6)
    return tensors | {
        "complex": torch.randn(3, dtype=torch.complex64),
        "conjugate": torch.randn(3, dtype=torch.complex64).conj(),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "transposed": base.t(),
        "strided": base[:, ::2],
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "pytorch_model.bin").write_bytes(b"its own")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def expect_equal(folder: Path, expected: dict[str, Any]) -> None:
    """What the safetensors library and our reader find is what was saved, bit for bit."""
    from safetensors.torch import load_file

    checkpoint = open_checkpoint(folder)
    assert set(checkpoint.tensors) == set(expected)
    loaded = {name: value for file in checkpoint.files for name, value in load_file(folder / file).items()}
    for name, value in expected.items():
        assert loaded[name].dtype == value.dtype and loaded[name].shape == value.shape
        assert torch.equal(loaded[name].reshape(-1).view(torch.uint8), plain(value).view(torch.uint8))
        assert checkpoint.read(name).tobytes() == plain(value).view(torch.uint8).numpy().tobytes()
    for header in checkpoint.files.values():
        assert header.metadata == {"format": "pt"}
        # Aligned: a loader that maps the file can use every tensor where it lies.
        for info in header.tensors.values():
            assert info.start % max(1, np.gcd(8, info.nbytes // max(info.size, 1))) == 0


def plain(value: Any) -> Any:
    return value.detach().resolve_conj().contiguous().reshape(-1)


@pytest.mark.parametrize("zipped", [True, False])
def test_values_survive(zipped: bool, pickled: Path, out: Path) -> None:
    """Also from the format of before torch 1.6, which cannot be mapped."""
    newer = (torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32)
    expected = {name: value for name, value in state().items() if zipped or value.dtype not in newer}
    torch.save(expected, pickled / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    assert is_pickled(pickled)
    counts: list[int] = []
    shared = convert(pickled, out, counts.append)
    expect_equal(out, expected)
    assert shared == [("transposed", "strided")]
    assert sum(counts) == sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert (out / "config.json").read_bytes() == (pickled / "config.json").read_bytes()
    assert (out / "2_Dense" / "pytorch_model.bin").read_bytes() == b"its own"
    assert not (out / "pytorch_model.bin").exists() and not is_pickled(out)


def test_shards_stay_shards(pickled: Path, out: Path) -> None:
    expected = state()
    weight_map = {}
    for number, names in enumerate((list(expected)[::2], list(expected)[1::2]), start=1):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({name: expected[name] for name in names}, pickled / file)
        weight_map |= dict.fromkeys(names, file)
    (pickled / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert is_pickled(pickled)
    convert(pickled, out)
    assert sorted(path.name for path in out.glob("model*")) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(v.numel() * v.element_size() for v in expected.values())
    expect_equal(out, expected)


def test_tied_tensors_are_written_whole_and_told(pickled: Path, out: Path) -> None:
    weight = torch.randn(3, 3)
    torch.save({"a": weight, "b": weight, "c": torch.randn(3)}, pickled / "pytorch_model.bin")
    assert convert(pickled, out) == [("a", "b")]
    expect_equal(out, {**torch.load(pickled / "pytorch_model.bin", weights_only=True)})


class Malice:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["zip", "old", "plain"])
def test_code_is_never_executed(kind: str, pickled: Path, out: Path, tmp_path: Path) -> None:
    evil, trace = {"a": torch.randn(2), "b": Malice(tmp_path / "executed")}, tmp_path / "executed"
    file = pickled / "pytorch_model.bin"
    if kind == "plain":
        file.write_bytes(pickle.dumps({"b": Malice(trace)}))
    else:
        torch.save(evil, file, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin .*not executed"):
        convert(pickled, out)
    assert not trace.exists() and not any(out.iterdir())
    # The trap works: whoever does execute it makes the file.
    torch.load(file, weights_only=False) if kind != "plain" else pickle.loads(file.read_bytes())
    assert trace.exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"a": torch.zeros(1), "epoch": 3}, "Entry 'epoch'"),
        ({"state_dict": {"a": torch.zeros(1)}, "epoch": 3}, r"in its entry 'state_dict'\..*\(FILE\)\['state_dict'\]"),
        ({"model": {"b": 3}}, "Entry 'model' .* is a dict"),
        ([torch.zeros(1)], "list"),
        ({3: torch.zeros(1)}, "Entry 3"),
        ({"a": torch.zeros(3, 3).to_sparse()}, "Tensor 'a'"),
        ({"a": torch.zeros(1, dtype=torch.complex128)}, "complex128"),
        ({"a": torch.zeros(3, device="meta")}, "Tensor 'a'"),
        ({"a\ud800": torch.zeros(1)}, "cannot hold"),
        ({"__metadata__": torch.zeros(1)}, "cannot hold"),
    ],
)
def test_other_content_is_refused_by_name(content: Any, expected: str, pickled: Path, out: Path) -> None:
    torch.save(content, pickled / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=expected):
        convert(pickled, out)


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html>", "web page"),
        (b"GGUF\3\0\0\0", "GGUF"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
    ],
)
def test_a_file_of_another_kind_is_told_by_its_first_bytes(first: bytes, said: str, pickled: Path) -> None:
    for name, read in (("pytorch_model.bin", read_pickled), ("model.safetensors", read_header)):
        (pickled / name).write_bytes(first + bytes(100))
        with pytest.raises(CheckpointError, match=said):
            read(pickled / name)


def test_a_file_under_the_name_of_the_other_format(pickled: Path) -> None:
    save_file({"a": torch.zeros(1)}, pickled / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="It is a safetensors file"):
        read_pickled(pickled / "pytorch_model.bin")
    for zipped in (True, False):
        torch.save({"a": torch.zeros(1)}, pickled / "model.safetensors", _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match="It is a PyTorch pickle"):
            read_header(pickled / "model.safetensors")


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04 not a zip", bytes(1000)])
def test_damaged_pickles_are_named(content: bytes, pickled: Path, out: Path) -> None:
    (pickled / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        convert(pickled, out)


def test_truncated_pickles_are_named(pickled: Path, out: Path) -> None:
    file = pickled / "pytorch_model.bin"
    torch.save(state(), file)
    for cut in (0.3, 0.7, 0.99):
        whole = file.read_bytes()
        (pickled / "pytorch_model.bin").write_bytes(whole[: int(len(whole) * cut)])
        with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
            convert(pickled, out)
        file.write_bytes(whole)


def test_missing_shards_and_hostile_indexes_are_refused(pickled: Path, out: Path) -> None:
    index = pickled / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.bin", "b": "two.bin"}}))
    with pytest.raises(CheckpointError, match=r"one\.bin, two\.bin"):
        convert(pickled, out)
    index.write_text(json.dumps({"weight_map": {"a": "../one.bin"}}))
    with pytest.raises(CheckpointError, match="not inside the folder"):
        convert(pickled, out)


def test_no_torch_is_needed(pickled: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = state()
    torch.save(expected, pickled / "pytorch_model.bin")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "torch", None)
        convert(pickled, out)
    expect_equal(out, expected)
