"""What Python source does with named values: which constants a config value is compared with, where it may be None."""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

__all__ = ["Reads", "read"]

_PLAIN_CALLS = ("lower", "upper", "strip")
_ROUNDS = 3
"""How often a value is passed on under another name, at most."""


def _sets() -> defaultdict[str, set[Any]]:
    return defaultdict(set)


@dataclass
class Reads:
    """What source code does with values, by their names.

    Attributes:
        names: all names that are read: attributes, variables, and strings (of `getattr`).
        strings, numbers: name → constants that it is compared with, and keys of a table that it picks from; of a bound,
            the next number too.
        members: name → strings looked for in it.
        tested: names asked whether they are true, or compared with zero.
        kinds: name → names in its annotation.
        passed: name → names of values it was given.
        optional: key of a config → the constants that stand for it where the config has none.
    """

    names: set[str] = field(default_factory=set)
    strings: defaultdict[str, set[str]] = field(default_factory=_sets)
    numbers: defaultdict[str, set[int]] = field(default_factory=_sets)
    members: defaultdict[str, set[str]] = field(default_factory=_sets)
    tested: set[str] = field(default_factory=set)
    kinds: defaultdict[str, set[str]] = field(default_factory=_sets)
    passed: defaultdict[str, set[str]] = field(default_factory=_sets)
    optional: defaultdict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))


@lru_cache(maxsize=8)
def read(source: str) -> Reads:
    """What a module's source code does with values.

    Raises:
        SyntaxError: it is no Python.
    """
    reader = _Reader()
    tree = ast.parse(source)
    reader.tables = dict(_tables(tree))
    reader.visit(tree)
    for _ in range(_ROUNDS):
        _pass_on(reader.reads)
    return reader.reads


def _pass_on(reads: Reads) -> None:
    """Give a value the reads that its other names have: after `x = config.y`, a read of `x` is one of `y`."""
    for name, givers in list(reads.passed.items()):
        for giver in givers:
            reads.strings[giver] |= reads.strings[name]
            reads.numbers[giver] |= reads.numbers[name]
            reads.members[giver] |= reads.members[name]
            if name in reads.tested:
                reads.tested.add(giver)


def _tables(tree: ast.Module) -> Iterator[tuple[str, set[str]]]:
    """The module's own tables with strings as keys."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and isinstance(node.targets[0], ast.Name):
            keys = _constants(node.value.keys)
            if keys and all(isinstance(key, str) for key in keys):
                yield node.targets[0].id, set(keys)


def _constants(nodes: Any) -> list[Any]:
    return [node.value for node in nodes if isinstance(node, ast.Constant)]


class _Reader(ast.NodeVisitor):
    """Fills `reads` from a module."""

    def __init__(self) -> None:
        self.reads = Reads()
        self.tables: dict[str, set[str]] = {}

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Load):
            self.reads.names.add(node.attr)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.reads.names.add(node.id)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.reads.names.add(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        if _name(node.func) == "getattr" and len(node.args) == 3 and _name(node.args[0]).endswith("config"):
            defaults = [ast.literal_eval(node.args[2])] if _is_plain(node.args[2]) else []
            known = self.reads.optional[_called(node)]
            known += [default for default in defaults if json.dumps(default) not in map(json.dumps, known)]
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        name = _name(node.target)
        if name:
            words = ast.walk(node.annotation)
            self.reads.kinds[name] |= {
                str(getattr(word, "id", getattr(word, "value", "")))
                for word in words
                if isinstance(word, (ast.Name, ast.Constant))
            }
            self.reads.strings[name] |= _literals(node.annotation)
            if node.value is not None:
                self._given(name, node.value)
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._given(_name(target), node.value)
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        self._given(node.arg or "", node.value)
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self._given(_name(node.target), node.iter)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._given(_name(node.target), node.iter)
        for condition in node.ifs:
            self._asked(condition)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        sides = [node.left, *node.comparators]
        for left, how, right in zip(sides, node.ops, node.comparators, strict=False):
            self._compared(left, how, right)
            self._compared(right, how, left)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.reads.strings[_name(node.slice)] |= self.tables.get(_name(node.value), set())
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        self._asked(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._asked(node.test)
        self.generic_visit(node)

    def visit_Match(self, node: Any) -> None:  # ast.Match: Python 3.10 has it, its stubs not everywhere
        values = [
            word.value for case in node.cases for word in ast.walk(case.pattern) if isinstance(word, ast.Constant)
        ]
        self.reads.strings[_name(node.subject)] |= {value for value in values if isinstance(value, str)}
        self.generic_visit(node)

    def _asked(self, test: ast.expr) -> None:
        """A name that stands alone in a condition."""
        if isinstance(test, ast.BoolOp):
            for value in test.values:
                self._asked(value)
        elif isinstance(test, ast.UnaryOp):
            self._asked(test.operand)
        self.reads.tested.add(_name(test))

    def _compared(self, side: ast.expr, how: ast.cmpop, other: ast.expr) -> None:
        name = _name(side)
        if not name:
            return
        constants = _constants(getattr(other, "elts", [other]))
        if isinstance(how, (ast.In, ast.NotIn)) and isinstance(other, ast.Constant):
            self.reads.members[name] |= {value for value in constants if isinstance(value, str)}
            return
        self.reads.strings[name] |= {value for value in constants if isinstance(value, str)}
        if isinstance(how, (ast.Eq, ast.NotEq, ast.In, ast.NotIn)):
            self.reads.numbers[name] |= {value for value in constants if type(value) is int}
        elif isinstance(how, (ast.Gt, ast.GtE, ast.Lt, ast.LtE)):  # on both sides of the bound
            bounds = {value for value in constants if type(value) is int and value > 0}
            self.reads.numbers[name] |= bounds | {bound + 1 for bound in bounds}
        if any(type(value) is int and value == 0 for value in constants):
            self.reads.tested.add(name)

    def _given(self, name: str, value: ast.expr) -> None:
        for giver in _givers(value):
            if name and giver and giver != name:
                self.reads.passed[name].add(giver)


def _givers(value: ast.expr) -> Iterator[str]:
    """Names of what a value may be."""
    if isinstance(value, ast.BoolOp):
        for one in value.values:
            yield from _givers(one)
    elif isinstance(value, ast.IfExp):
        yield from _givers(value.body)
        yield from _givers(value.orelse)
    else:
        yield _name(value)


def _is_plain(node: ast.expr) -> bool:
    """Whether it is a constant, or the negative of one."""
    return isinstance(node.operand if isinstance(node, ast.UnaryOp) else node, ast.Constant)


def _literals(annotation: ast.expr) -> set[str]:
    """The strings of `Literal[...]` in an annotation."""
    found: set[str] = set()
    for node in ast.walk(annotation):
        if isinstance(node, ast.Subscript) and _name(node.value) == "Literal":
            found |= {str(value) for value in _constants(getattr(node.slice, "elts", [node.slice]))}
    return found


def _name(node: Any) -> str:
    """The last name of an expression that stands for one value, `getattr` and an index looked through; else empty."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Subscript):
        keys = _constants([node.slice])
        return keys[0] if keys and isinstance(keys[0], str) else _name(node.value)
    if isinstance(node, ast.Call):
        return _called(node)
    return ""


def _called(node: ast.Call) -> str:
    texts = [value for value in _constants(node.args) if isinstance(value, str)]
    called = _name(node.func)
    if called in ("getattr", "get", "pop") and texts:
        return texts[0]
    return _name(node.func.value) if called in _PLAIN_CALLS and isinstance(node.func, ast.Attribute) else ""
