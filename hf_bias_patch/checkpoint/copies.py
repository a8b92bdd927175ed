"""Whether a file holds another copy of the model's weights: its tensors decide, whatever the file is called."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hf_bias_patch.checkpoint.checkpoint import Checkpoint
from hf_bias_patch.checkpoint.dtypes import BITS, FLOATS, dtype_name
from hf_bias_patch.checkpoint.header import TensorInfo, read_header
from hf_bias_patch.checkpoint.paths import open_regular
from hf_bias_patch.checkpoint.pickled import PickledCheckpoint
from hf_bias_patch.checkpoint.pickled_file import read_pickled
from hf_bias_patch.checkpoint.pickled_parts import pickled_parts
from hf_bias_patch.errors import CheckpointError

__all__ = ["FileTensor", "OwnWeights", "parts_of"]

_FEWEST_BITS = 1.5
"""Bits that a weight takes at least, however it is quantised."""

_COMPONENTS = 3
"""Names in a path, a layer's number among them, that two models do not have in common by accident."""

_HEADER = 20_000
"""Bytes that hold any header of a numpy array."""

_DAMAGED = (
    OSError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile, CheckpointError,
)  # fmt: skip
"""What an archive may raise; a RuntimeError where it is encrypted, or compressed in some way that is not offered."""

_PICKLE = b"\x80"
"""How a pickle begins that is not text."""

_COMPARED, _ROWS = 7, 8
"""Matrices whose values are compared, and rows of each."""

_RENAMED = 0.9
"""Share of two models' matrices that have the same shapes, where they are one model under two sets of names."""


@dataclass(frozen=True)
class FileTensor:
    """One tensor of a file: its name, dtype and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def bits(self) -> int:
        return self.size * BITS[self.dtype]


def parts_of(path: Path) -> list[FileTensor]:
    """The tensors in a safetensors file, a pickle or an archive of numpy; none where it has none, or cannot be read."""
    try:
        with open_regular(path) as file:
            start = file.read(9)
    except (OSError, CheckpointError):
        return []
    if start[8:] == b"{":
        return [FileTensor(info.name, info.dtype, info.shape) for info in _infos(path)]
    if start[:2] == b"PK" and (arrays := list(_arrays(path))):
        return arrays
    if start[:2] != b"PK" and start[:1] != _PICKLE:
        return []
    return [FileTensor(name, view.dtype, view.shape) for name, view in pickled_parts(path).items()]


def _infos(path: Path) -> list[TensorInfo]:
    try:
        return list(read_header(path).tensors.values())
    except CheckpointError:
        return []


def _arrays(path: Path) -> Iterator[FileTensor]:
    """The arrays in an archive of numpy: each a file that begins with its own header."""
    with suppress(*_DAMAGED), zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as file:
                    header = io.BytesIO(file.read(_HEADER))
                old = np.lib.format.read_magic(header) == (1, 0)
                read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(header)
                yield FileTensor(name.removesuffix(".npy"), dtype_name(dtype), shape)


@dataclass(frozen=True)
class OwnWeights:
    """What files are compared with.

    Attributes:
        checkpoint: the model's own.
    """

    checkpoint: Checkpoint

    @cached_property
    def _modules(self) -> dict[str, dict[str, TensorInfo]]:
        """Modules by their path and by each ending of it that identifies one; each as leaf name → tensor."""
        found: dict[str, dict[str, TensorInfo]] = defaultdict(dict)
        for name, info in self.checkpoint.tensors.items():
            path, _, leaf = name.rpartition(".")
            for end in _ends(path):
                found[end].setdefault(leaf, info)
        return dict(found)

    @cached_property
    def _others(self) -> set[tuple[tuple[str, ...], tuple[int, ...]]]:
        """The tensors outside of layers: last two names, and shape."""
        return {
            (_last_two(name), info.shape)
            for name, info in self.checkpoint.tensors.items()
            if not any(_ends(name.rpartition(".")[0]))
        }

    def fits(self, nbytes: int) -> bool:
        """Whether a file of this size could hold all values of the model, at the strongest quantisation."""
        return nbytes * 8 >= _FEWEST_BITS * self.checkpoint.parameters

    def named_alike(self, parts: Iterable[FileTensor]) -> dict[str, str]:
        """The parts that are of this model's layers by their names and shapes: name of the part → of the tensor.

        A quantised one may have any shape, and a name that stands for no tensor of the model (then ""). Names may have
        more or fewer modules in front. Empty unless these parts, and what lies outside of layers, are most of the file
        or of the model.
        """
        found: dict[str, str] = {}
        bits = alike = values = 0
        for leaves, own in self._by_module(parts):
            bits += sum(part.bits for part in leaves.values())
            if own and _is_same_module(leaves, own):
                same = list(leaves.values())
                found |= {part.name: own[leaf].name if leaf in own else "" for leaf, part in leaves.items()}
            else:
                same = [part for part in leaves.values() if (_last_two(part.name), part.shape) in self._others]
            alike += sum(part.bits for part in same)
            values += sum(part.size for part in same)
        return found if 2 * alike > bits or 2 * values > self.checkpoint.parameters else {}

    def _by_module(self, parts: Iterable[FileTensor]) -> Iterator[tuple[dict[str, FileTensor], dict[str, TensorInfo]]]:
        """Each module of a file, and the model's module of that name, if there is one: leaf name → tensor."""
        modules: dict[str, dict[str, FileTensor]] = defaultdict(dict)
        for part in parts:
            path, _, leaf = part.name.rpartition(".")
            modules[path][leaf] = part
        for path, leaves in modules.items():
            yield leaves, next((self._modules[end] for end in _ends(path) if end in self._modules), {})

    def shaped_alike(self, parts: Iterable[FileTensor]) -> bool:
        """Whether the file holds the same matrices as the model under other names, some of them fused or not.

        Or whether its values are there in a row, as DeepSpeed and FSDP keep them.
        """
        parts = list(parts)
        flat = sum(part.size for part in parts if len(part.shape) == 1)
        own = _blocks(info.shape for info in self.checkpoint.tensors.values())
        theirs = _blocks(part.shape for part in parts)
        least = _RENAMED * max(_values(own), _values(theirs))
        return 2 * flat >= self.checkpoint.parameters > 0 or _values(own & theirs) >= least > 0

    def same_values(self, path: Path, named: Mapping[str, str]) -> bool:
        """Whether a file with the model's tensor names also holds its values, up to rounding to 16 bits.

        The first rows of some matrices are compared, and most must be the same: a patch may have changed a few, and a
        model that was trained on may have kept a few.

        Args:
            path: the file.
            named: of `named_alike`. Without a matrix of plain numbers they count as the same.
        """
        other = _opened(path)
        if other is None:
            return True
        pairs = [
            (there, here)
            for there, here in sorted(named.items())
            if here and there in other.tensors and len(other.info(there).shape) > 1
            if other.info(there).shape == self.checkpoint.info(here).shape
            if {other.info(there).dtype, self.checkpoint.info(here).dtype} <= set(FLOATS)
        ]
        chosen = pairs[:: max(1, len(pairs) // _COMPARED)]
        same = sum(_same_rows(other, there, self.checkpoint, here) for there, here in chosen)
        return 2 * same > len(chosen) or not chosen


def _same_rows(one: Checkpoint, there: str, two: Checkpoint, here: str) -> bool:
    count = min(_ROWS, one.info(there).shape[0])
    new, old = (np.asarray(file.rows(name, 0, count), np.float64) for file, name in ((one, there), (two, here)))
    # bfloat16 keeps eight bits; another model's values are not within a hundredth of these.
    return bool(np.linalg.norm(new - old) <= 0.01 * np.linalg.norm(old))


def _opened(path: Path) -> Checkpoint | None:
    """A file to read values from; None where that cannot be done."""
    for kind, read in ((Checkpoint, read_header), (PickledCheckpoint, read_pickled)):
        with suppress(CheckpointError):
            return kind(path.parent, {}, b"", {path.name: read(path)}, None, {})
    return None


def _ends(path: str) -> Iterator[str]:
    """A module's path and its ends, longest first, as far as they still name one layer's part."""
    names = path.split(".")
    for start in range(len(names) - _COMPONENTS + 1):
        if any(name.isdecimal() for name in names[start:-1]):
            yield ".".join(names[start:])


def _last_two(name: str) -> tuple[str, ...]:
    return tuple(name.split(".")[-2:])


def _blocks(shapes: Iterable[tuple[int, ...]]) -> Counter[tuple[int, ...]]:
    """Matrices by shape, whichever way round; a row of squares as these, so that fused is unfused."""
    found: Counter[tuple[int, ...]] = Counter()
    for shape in shapes:
        if len(shape) < 2 or 0 in shape:
            continue
        small, *rest = sorted(shape)
        square = not rest[1:] and rest[0] % small == 0
        found[(small, small) if square else (small, *rest)] += rest[0] // small if square else 1
    return found


def _values(blocks: Counter[tuple[int, ...]]) -> int:
    return sum(math.prod(shape) * count for shape, count in blocks.items())


def _is_same_module(leaves: Mapping[str, FileTensor], own: Mapping[str, TensorInfo]) -> bool:
    plain = [leaf for leaf, part in leaves.items() if leaf in own and part.dtype in FLOATS]
    if plain:
        return all(leaves[leaf].shape == own[leaf].shape for leaf in plain)
    return sum(part.bits for part in leaves.values()) >= _FEWEST_BITS * sum(math.prod(i.shape) for i in own.values())
