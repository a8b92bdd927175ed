"""The header reader believes what the safetensors library believes, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hf_bias_patch.checkpoint.dtypes import BITS
from hf_bias_patch.checkpoint.header import TensorInfo, build_header, read_header
from hf_bias_patch.errors import CheckpointError

ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def write(path: Path, header: Any, data: bytes = b"\0" * 4, length: int | None = None) -> Path:
    """A file with this header (JSON value or raw bytes), claiming its true length unless told otherwise."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def test_reads_what_the_library_wrote(tmp_path: Path, tensors: dict[str, Any]) -> None:
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, {"format": "pt", "note": "ä"})
    header = read_header(path)
    content = path.read_bytes()
    assert header.metadata == {"format": "pt", "note": "ä"}
    assert content.startswith(header.raw) and header.file_size == len(content)
    assert set(header.tensors) == set(tensors)
    starts = [info.start for info in header.tensors.values()]
    assert starts == sorted(starts) and starts[0] == len(header.raw)
    for name, value in tensors.items():
        info = header.tensors[name]
        assert (info.shape, info.size, info.nbytes) == (value.shape, value.size, value.nbytes)
        assert content[info.start : info.stop] == value.tobytes()


BROKEN = {
    "no object": ([], "not a JSON object"),
    "not text": (b'{"a\xff": 1}', "not valid JSON"),
    "not JSON": (b"{", "not valid JSON"),
    "NaN": (b'{"a": NaN}', "not valid JSON"),
    "too large a number": (b'{"a":' + json.dumps(ONE).encode()[:-1] + b', "x": 1e999}}', "not valid JSON"),
    "minus zero": (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-0, 4]}}', "not a range"),
    "surrogate": (b'{"\\ud800":' + json.dumps(ONE).encode() + b"}", "not valid JSON"),
    "two of a name": (
        b'{"a":' + json.dumps(ONE).encode() + b',"a":' + json.dumps(ONE).encode() + b"}",
        "'a' twice",
    ),
    "entry without fields": ({"a": {}}, "Tensor 'a'"),
    "unknown dtype": ({"a": ONE | {"dtype": "F31"}}, "'F31'"),
    "dtype no text": ({"a": ONE | {"dtype": ["F32"]}}, "Tensor 'a'"),
    "negative size": ({"a": ONE | {"shape": [-1]}}, "not a list of sizes"),
    "fractional size": ({"a": ONE | {"shape": [1.0]}}, "not a list of sizes"),
    "true as size": ({"a": ONE | {"shape": [True]}}, "not a list of sizes"),
    "shape no list": ({"a": ONE | {"shape": 1}}, "not a list of sizes"),
    "overflow": ({"a": ONE | {"shape": [2**40, 2**40]}}, "overflows"),
    "offsets backwards": ({"a": ONE | {"data_offsets": [4, 0]}}, "not a range"),
    "offset true": ({"a": ONE | {"shape": [0], "data_offsets": [True, 1]}}, "not a range"),
    "three offsets": ({"a": ONE | {"data_offsets": [0, 4, 4]}}, "Tensor 'a'"),
    "wrong length": ({"a": ONE | {"shape": [2]}}, "4 bytes apart"),
    "overlap": ({"a": ONE, "b": ONE | {"data_offsets": [2, 6]}}, "overlaps"),
    "same place": ({"a": ONE, "b": ONE}, "overlaps"),
    "hole": ({"a": ONE, "b": ONE | {"data_offsets": [8, 12]}}, "hole of 4"),
    "hole before the first": ({"a": ONE | {"data_offsets": [4, 8]}}, "hole of 4"),
    "truncated": ({"a": ONE | {"shape": [2], "data_offsets": [0, 8]}}, "truncated"),
    "trailing": ({"a": ONE | {"shape": [0], "data_offsets": [0, 0]}}, "behind the last tensor"),
    "metadata no table": ({"__metadata__": [], "a": ONE}, "__metadata__"),
    "metadata no text": ({"__metadata__": {"x": 1}, "a": ONE}, "__metadata__"),
    "half a byte": ({"a": {"dtype": "F4", "shape": [7], "data_offsets": [0, 4]}}, "4 bytes apart"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_names_file_and_fault(case: str, tmp_path: Path) -> None:
    header, expected = BROKEN[case]
    path = write(tmp_path / "bad.safetensors", header)
    with pytest.raises(CheckpointError, match=r"bad\.safetensors") as caught:
        read_header(path)
    assert expected in str(caught.value)
    assert library_reads(path) is None or case == "two of a name"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "0 bytes"),
        (b"1234567", "7 bytes"),
        ((100).to_bytes(8, "little") + b"{}", "the file has only"),
        ((2**63).to_bytes(8, "little") + b"{}", "over the limit"),
        ((100_000_001).to_bytes(8, "little") + b"{}", "over the limit"),
    ],
)
def test_refuses_a_lying_length(content: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=expected):
        read_header(path)


def test_a_missing_file_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.safetensors cannot be read"):
        read_header(tmp_path / "gone.safetensors")


def test_reads_no_data(tmp_path: Path) -> None:
    """A terabyte that is not really there opens as fast as anything: a reader of values would not finish."""
    size = 2**40
    path = write(tmp_path / "huge.safetensors", {"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}})
    start = read_header(write(tmp_path / "x.safetensors", {"a": ONE})).tensors["a"].start
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 4 + size)
    assert start and read_header(path).tensors["a"].nbytes == size


# --- agreement with the library -----------------------------------------------------------------------------

infos = st.lists(
    st.tuples(
        st.text(st.characters(codec="utf-8"), max_size=4),
        st.sampled_from(sorted(BITS)),
        st.lists(st.integers(0, 3), max_size=3),
    ),
    max_size=4,
    unique_by=lambda item: item[0],
).map(lambda items: [item for item in items if item[0] != "__metadata__"])

odd_values = st.one_of(
    st.sampled_from([-1, 0, 1, 2, 4, 8, 2**32, 2**63, 2**64 - 1, 2**64, 2**80, 1.0, 0.5, -0.0, True, None]),
    st.text(max_size=3),
    st.lists(st.integers(0, 8), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(0, 3), max_size=2),
)


def valid(items: list[tuple[str, str, list[int]]]) -> tuple[dict[str, Any], int]:
    """A header for these tensors, and the bytes of their data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, dtype, shape in items:
        bits = BITS[dtype] * int(np.prod(shape, dtype=object) if shape else 1)
        stop = position + bits // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, stop]}
        position = stop
    return header, position


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A safetensors file, mostly with one thing wrong."""
    header, nbytes = valid(draw(infos))
    kind = draw(st.sampled_from(["valid", "value", "delete", "shift", "text", "length", "size"]))
    if kind == "value":
        table = header
        key: Any = draw(st.sampled_from(sorted(header)))
        while isinstance(table[key], (dict, list)) and table[key] and draw(st.integers(0, 3)):
            table = table[key]
            key = draw(st.sampled_from(sorted(table) if isinstance(table, dict) else range(len(table))))
        table[key] = draw(odd_values)
    elif kind == "delete":
        entry = header[draw(st.sampled_from(sorted(header)))]
        del entry[draw(st.sampled_from(sorted(entry)))]
    elif kind == "shift":
        for entry in header.values():
            if "data_offsets" in entry:
                entry["data_offsets"] = [offset + draw(st.integers(-2, 2)) for offset in entry["data_offsets"]]
    text = bytearray(json.dumps(header, ensure_ascii=draw(st.booleans())).encode())
    if kind == "text":
        position = draw(st.integers(0, len(text) - 1))
        text[position : position + draw(st.integers(0, 2))] = draw(
            st.one_of(
                st.binary(max_size=2),
                st.sampled_from([b" ", b"\n", b"-", b".", b"e1", b",", b"0", b"\\u0041"]),
            )
        )
    length = len(text) + (draw(st.integers(-2, 2)) if kind == "length" else 0)
    nbytes += draw(st.integers(-2, 2)) if kind == "size" else 0
    return max(length, 0).to_bytes(8, "little") + bytes(text) + b"\0" * max(nbytes, 0)


def library_reads(path: Path) -> dict[str, tuple[str, list[int]]] | None:
    """What the library finds in a file; None if it refuses."""
    try:
        with safe_open(path, "numpy") as file:
            return {
                name: (file.get_slice(name).get_dtype(), file.get_slice(name).get_shape())
                for name in file.keys()  # noqa: SIM118 (no mapping)
            }
    except (SafetensorError, OSError):
        return None


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("header") / "case.safetensors"


@settings(max_examples=400, deadline=None)
@given(content=files())
def test_agrees_with_the_library(content: bytes, scratch: Path) -> None:
    scratch.write_bytes(content)
    expected = library_reads(scratch)
    try:
        found = {name: (info.dtype, list(info.shape)) for name, info in read_header(scratch).tensors.items()}
    except CheckpointError as error:
        # The one thing in which we are stricter.
        assert expected is None or "twice" in str(error), f"we refuse what the library reads: {error}"
    else:
        assert expected is not None, "we read what the library refuses"
        assert found == expected


whole_bytes = infos.map(lambda items: [item for item in items if BITS[item[1]] % 8 == 0])


@settings(max_examples=150, deadline=None)
@given(items=whole_bytes, metadata=st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2))
def test_built_headers_are_read_by_both(
    items: list[tuple[str, str, list[int]]], metadata: dict[str, str], scratch: Path
) -> None:
    table, nbytes = valid(items)
    del table["__metadata__"]
    # Offsets of a longer file: only their differences count.
    longer = [
        TensorInfo(name, entry["dtype"], tuple(entry["shape"]), *(1000 + end for end in entry["data_offsets"]))
        for name, entry in table.items()
    ]
    raw = build_header(longer, metadata)
    scratch.write_bytes(raw + b"\0" * nbytes)
    header = read_header(scratch)
    assert len(raw) % 8 == 0
    assert header.raw == raw and header.metadata == metadata
    assert library_reads(scratch) == {name: (dtype, shape) for name, dtype, shape in items}
    starts = {info.name: info.start - 1000 for info in longer}
    assert {name: info.start - len(raw) for name, info in header.tensors.items()} == starts
