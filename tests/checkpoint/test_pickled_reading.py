"""What a pickle says is read as data: every tensor where it lies, what is tied, and nothing ever executed."""

from __future__ import annotations

import io
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_bias_patch.checkpoint.pickled import open_pickled
from hf_bias_patch.checkpoint.unpickle import unpickle
from hf_bias_patch.errors import CheckpointError
from tests.checkpoint.test_pickled import plain, state

torch = pytest.importorskip("torch")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def save(folder: Path, tensors: Any, zipped: bool = True) -> Path:
    file = folder / "pytorch_model.bin"
    torch.save(tensors, file, _use_new_zipfile_serialization=zipped)
    return file


@pytest.mark.parametrize("zipped", [True, False])
def test_values_and_rows_are_read_where_they_lie(zipped: bool, folder: Path) -> None:
    newer = (torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32)
    expected = {name: value for name, value in state().items() if zipped or value.dtype not in newer}
    base = torch.randn(6, 4)
    expected |= {
        "later": base[2:, 1:3],
        "deep": torch.randn(2, 3, 4).permute(2, 0, 1),
        "expanded": base[0].expand(3, 4),
    }
    save(folder, expected, zipped)
    opened = open_pickled(folder)
    assert set(opened.tensors) == set(expected)
    assert opened.parameters == sum(value.numel() for value in expected.values())
    for name, value in expected.items():
        found = opened.read(name)
        assert found.shape == tuple(value.shape) and found.flags.writeable
        assert found.tobytes() == plain(value).view(torch.uint8).numpy().tobytes(), name
        if len(found.shape) > 1 and found.shape[0]:
            assert opened.rows(name, 1, 3).tobytes() == found[1:3].tobytes(), name


@pytest.mark.parametrize("zipped", [True, False])
def test_tied_is_what_has_values_in_common(zipped: bool, folder: Path) -> None:
    fused, wide, one = torch.randn(9), torch.randn(4, 6), torch.randn(3, 3)
    tensors = dict(zip(("query", "key", "value"), fused.chunk(3), strict=True))
    tensors |= dict(zip(("left", "right"), wide.chunk(2, dim=1), strict=True))
    save(folder, tensors, zipped)
    assert open_pickled(folder).shared == ()
    save(folder, tensors | {"whole": fused, "embedding": one, "decoder": one, "row": wide[1]}, zipped)
    assert open_pickled(folder).shared == (
        ("query", "key", "value", "whole"),
        ("left", "right", "row"),
        ("embedding", "decoder"),
    )


def test_many_views_that_cross_are_tied_rather_than_compared_for_ever(folder: Path) -> None:
    base = torch.randn(200, 200)
    save(folder, {f"column{index}": base[:, index] for index in range(200)})
    assert [len(group) for group in open_pickled(folder).shared] == [200]


def test_a_view_that_repeats_without_end_is_refused(folder: Path) -> None:
    save(folder, {"a": torch.zeros(1).expand(10**9, 10**9)})
    with pytest.raises(CheckpointError, match=r"'a'.*repeats its values"):
        open_pickled(folder)


def test_ordered_tables_of_either_python(folder: Path) -> None:
    """Modules give an OrderedDict with attributes; Python 2 pickled one as a list of pairs, its text as bytes."""
    model = torch.nn.Linear(2, 2)
    save(folder, model.state_dict())
    assert set(open_pickled(folder).tensors) == {"weight", "bias"}
    text = b"\x80\x02ccollections\nOrderedDict\n]]q\x00(U\x01aK\x01ea\x85R."
    assert unpickle(io.BytesIO(text), lambda name: True) == {"a": 1}


def rewritten(file: Path, changes: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, changes.get(name.split("/", 1)[1], content))


def test_archives_that_pytorch_does_not_write_are_refused(folder: Path) -> None:
    file = save(folder, {"a": torch.randn(30)})
    rewritten(file, {})
    assert open_pickled(folder).tensors["a"].shape == (30,)
    for changes, compression, says in (
        ({"byteorder": b"big"}, zipfile.ZIP_STORED, "little-endian"),
        ({"data/0": b"short"}, zipfile.ZIP_STORED, "storage 0 has 5 bytes"),
        ({"data.pkl": b"no pickle"}, zipfile.ZIP_STORED, "not a readable"),
        ({}, zipfile.ZIP_DEFLATED, "compressed"),
    ):
        save(folder, {"a": torch.randn(30)})
        rewritten(file, changes, compression)
        with pytest.raises(CheckpointError, match=says):
            open_pickled(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}r\xff\xff\xff\xff.",  # a place in the memo that would take gigabytes as a list
        b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",  # bytes without end
        pickle.dumps((1,) * 5),
        b"\x80\x02(" + b"t" * 100,
        b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.",
    ],
)
def test_hostile_pickles_are_refused(content: bytes, folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        open_pickled(folder)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # the standard library's, about damaged text
@pytest.mark.parametrize("zipped", [True, False])
def test_any_damage_ends_in_a_result_or_a_refusal(zipped: bool, folder: Path) -> None:
    base = torch.randn(6, 6)
    file = save(folder, {"a": base, "b": base[:, ::2], "c": torch.randn(5).bfloat16()}, zipped)
    whole, draw = file.read_bytes(), random.Random(1)
    refused = 0
    for _ in range(500):
        damaged = bytearray(whole)
        place = draw.randrange(min(len(whole), 1000))
        damaged[place : place + draw.choice((0, 1, 1, 8))] = draw.randbytes(draw.choice((0, 1, 1, 8)))
        file.write_bytes(damaged)
        try:
            opened = open_pickled(folder)
            assert all(np.size(opened.read(name)) >= 0 for name in opened.tensors) and opened.shared is not None
        except CheckpointError:
            refused += 1
    assert refused > 100
