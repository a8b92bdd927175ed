"""Reads a pickle as data: its calls are recorded and never executed.

A pickle is a program for a small machine with a stack. This one knows only the operations that tables of tensors are
made of, and no function at all: a call becomes a `PickledCall`, a name a `PickledName`, a storage a `PickledStorage`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Protocol, cast

__all__ = ["ForbiddenError", "PickledCall", "PickledName", "PickledStorage", "Readable", "unpickle"]

_MOST = 2_000_000
"""Operations of a pickle: some forty make a tensor, and more than this are no table of any model."""

_LARGEST = _MOST
"""Entries of all tables made of lists: one list may be asked for many times, and a table is made of it each time."""

_ORDERED = "collections.OrderedDict"


class ForbiddenError(Exception):
    """A pickle asks for something that no table of tensors needs; the text says for what."""


class Readable(Protocol):
    """The methods of a binary file that `unpickle` uses."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self) -> bytes: ...
    def tell(self) -> int: ...


@dataclass(frozen=True, slots=True)
class PickledName:
    """A class, function or constant, by its name `module.name`."""

    name: str


@dataclass(frozen=True, slots=True)
class PickledCall:
    """What would be called, and with what."""

    what: str
    args: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class PickledStorage:
    """What a persistent id says of values that lie elsewhere."""

    said: tuple[Any, ...]


def unpickle(file: Readable, known: Callable[[str], bool]) -> Any:
    """What a pickle holds: plain Python values, `PickledName`, `PickledCall` and `PickledStorage`.

    Plain are None, bool, int, float, str, tuple, list and dict. Ordered dicts come as dicts. What is set on an object
    after it was made is left out.

    Args:
        file: at the start of the pickle; afterwards at its end.
        known: tells which names may stand in it.

    Raises:
        ForbiddenError: it names something else, or has operations that tables of tensors do not.
        ValueError: it is damaged.
    """
    machine = _Machine(known)
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(cast("IO[bytes]", file))):
            if count == _MOST:
                raise ForbiddenError(f"more than {_MOST:,} operations")
            machine.step(operation.name, argument)
        return machine.stack.pop()
    except (IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"damaged pickle ({type(error).__name__}: {error})") from error


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip


class _Machine:
    def __init__(self, known: Callable[[str], bool]) -> None:
        self.known = known
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.entries = 0

    def step(self, name: str, argument: Any) -> None:
        """One operation."""
        if name in _VALUES:
            self.stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self.memo[argument])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name not in ("PROTO", "FRAME", "STOP"):
            self._make(name, argument)

    def _make(self, name: str, argument: Any) -> None:
        """The operations that make something of what is on the stack."""
        if name in _TUPLES:
            self.stack.append(tuple(self._last(_TUPLES[name])))
        elif name == "TUPLE":
            self.stack.append(tuple(self._marked()))
        elif name == "LIST":
            self.stack.append(self._marked())
        elif name == "DICT":
            self.stack.append(_table(self._marked()))
        elif name in ("APPEND", "APPENDS"):
            items = self._last(1) if name == "APPEND" else self._marked()
            _of(list, self.stack[-1]).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._last(2) if name == "SETITEM" else self._marked()
            _of(dict, self.stack[-1]).update(_table(items))
        elif name == "GLOBAL":
            self._name(argument.replace(" ", ".", 1))
        elif name == "STACK_GLOBAL":
            self._name(".".join(_of(str, part) for part in self._last(2)))
        elif name == "REDUCE":
            self._call(*self._last(2))
        elif name == "BINPERSID":
            self.stack.append(PickledStorage(_of(tuple, self.stack.pop())))
        elif name == "BUILD":
            self._last(1)
        else:
            raise ForbiddenError(f"the operation {name}")

    def _name(self, name: str) -> None:
        if not self.known(name):
            raise ForbiddenError(name)
        self.stack.append(PickledName(name))

    def _call(self, what: Any, args: Any) -> None:
        call = PickledCall(_of(PickledName, what).name, _of(tuple, args))
        self.stack.append(self._ordered(call.args) if call.what == _ORDERED else call)

    def _ordered(self, args: tuple[Any, ...]) -> dict[Any, Any]:
        """An OrderedDict as Python 3 makes it, from nothing, or as Python 2 did, from a list of pairs."""
        pairs = _of(list, args[0]) if args else []
        self.entries += len(pairs)
        if self.entries > _LARGEST:
            raise ForbiddenError(f"tables of more than {_LARGEST:,} entries")
        return _table([part for pair in pairs for part in _pair(pair)])

    def _last(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise IndexError("the stack is empty")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _marked(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _pair(value: Any) -> Any:
    if type(value) not in (list, tuple) or len(value) != 2:
        raise TypeError("an ordered table whose entries are not pairs")
    return value


def _table(items: list[Any]) -> dict[Any, Any]:
    """Keys and values in turn, as a dict. Keys are text or numbers: the hash of deep tuples takes for ever."""
    keys = items[::2]
    if len(items) % 2 or not all(type(key) in (str, int) for key in keys):
        raise TypeError("a table whose keys are neither text nor numbers")
    return dict(zip(keys, items[1::2], strict=True))
