"""Which single changes of a config could change what its attention does: read off the source that reads the config."""

from __future__ import annotations

import ast
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

__all__ = ["Change", "pairs", "variations"]

_SKIPPED = re.compile(
    r"_.*|(use_mems|tie|output|return|initializer|init|problem|torch|tf|gradient|keys_to|auto|apply_spec|summary"
    r"|mamba|ssm|moe|label|freeze|classifier|ctc|loss|mask_(time|feature)|experts_impl|auxiliary|codebook)_.*"
    r"|.*_?(dropout|dropout_prob|p?drop|layerdrop|token_ids?|token_index|idx|id|loss|loss_coef|init|eps|epsilon|act|router"
    r"|activation|initializer|(mim|mlm|itm|text|image|mask|dice|class|contrastive)_weight|vocab.*|multiplier|kernels)"
    r"|use_cache|architectures|id2label|label2id|pruned_heads|dtype|model_type|transformers_version|name_or_path|is_encoder_decoder"
    r"|chunk_size_feed_forward|num_labels|attn_implementation|distribution_output|num_denoising|eval_size|norm_topk_prob"
    r"|is_training|onnx_export|model_parallel_size|speaking_speed|num_return_sequences|num_beams"
)
"""Keys that no attention reads, or that leave what evaluation computes as it is."""
_SIZE = re.compile(
    r"(.*_)?(hidden_size|head_dim|dim_head|intermediate_size|mlp_dim|input_size|embed_dim|attention_heads|layers|d_model"
    r"|n_inner|ffn_.*|d_head|rank|output_size|projection_dim|codebook_dim|max_.*|n_group|topk_group|experts.*|patch_size)"
)
"""Numbers that say how large a thing is: without it, or with none of it, there is nothing to check."""
_KV_HEADS = re.compile(r"(num|n)_(key_value|kv)_(heads|attention_heads|groups)|n_head_kv|(.*_)?num_key_value_heads")
_PLAIN_CALLS = ("lower", "upper", "strip")
_ROUNDS = 3
"""How often a value is passed on under another name, at most."""
_COUNT, _FACTOR = 3, 2.0
"""What a count (a window, a kernel) and a factor (a cap) that are None are set to."""


@dataclass(frozen=True)
class Change:
    """One config value instead of another.

    Attributes:
        key: in the config, with dots into nested ones.
        value: a JSON value.
    """

    key: str
    value: Any

    def __str__(self) -> str:
        return f"{self.key} = {json.dumps(self.value, ensure_ascii=False)}"


def variations(config: Mapping[str, Any], source: str) -> tuple[Change, ...]:
    """The single changes of a config that its source code tells apart, in the order of the keys.

    A flag is flipped; a string becomes each other one that the source compares that key with, and a list of strings
    one with each other in front, or throughout; what is None becomes a number, a flag or a list, by its annotation; a
    number that is no size becomes None where it may be, 0 where the source asks for that, and what it is compared
    with; key-value heads become one.

    A key that the source asks a config for with `getattr`, and a value that it means if it is not there, is taken to
    have that value: checkpoints have such keys though the config's class has not.

    Args:
        config: as in config.json. Of nested tables only those without a `model_type` are read: the others have
            source code of their own.
        source: Python text of the config's class and of the model that reads it.

    Raises:
        SyntaxError: the source is no Python.
    """
    reads = _read(source)
    return (*_changes(config, reads, ""), *_additions(config, reads))


def pairs(changes: Sequence[Change]) -> Iterator[tuple[Change, Change]]:
    """Every two changes of different keys of one config: a value may only matter where a flag is on."""
    for one, other in itertools.combinations(changes, 2):
        if one.key != other.key and one.key.rpartition(".")[0] == other.key.rpartition(".")[0]:
            yield one, other


def _changes(config: Mapping[str, Any], reads: _Reads, path: str) -> Iterator[Change]:
    for key, value in config.items():
        if not isinstance(key, str) or _SKIPPED.fullmatch(key):
            continue
        if isinstance(value, Mapping):
            if "model_type" not in value:
                yield from _changes(value, reads, f"{path}{key}.")
        elif key in reads.names:
            yield from (Change(path + key, other) for other in _others(key, value, reads))


def _additions(config: Mapping[str, Any], reads: _Reads) -> Iterator[Change]:
    """Keys that the config has not, with other values than those that its source takes instead."""
    for key, defaults in reads.optional.items():
        if not key or key in config or _SKIPPED.fullmatch(key):
            continue
        found = [other for default in defaults for other in _others(key, default, reads)]
        found += defaults if len(defaults) > 1 else []
        yield from (Change(key, json.loads(text)) for text in dict.fromkeys(map(json.dumps, found)))


def _others(key: str, value: Any, reads: _Reads) -> list[Any]:
    """Other values of one key, each once."""
    if isinstance(value, bool):
        found: list[Any] = [not value]
    elif isinstance(value, str):
        found = sorted(reads.strings[key])
    elif value is None:
        found = _for_none(key, reads)
    elif isinstance(value, (list, tuple)):
        found = _lists(key, value, reads)
    else:
        found = _numbers(key, reads)
    distinct = {json.dumps(other): other for other in found}
    return [other for text, other in distinct.items() if text != json.dumps(value)]


def _numbers(key: str, reads: _Reads) -> list[Any]:
    if _KV_HEADS.fullmatch(key):
        return [1]
    if _SIZE.fullmatch(key):
        return []
    found: list[Any] = [None] if "None" in reads.kinds[key] else []
    found += [0] if key in reads.tested else []
    return found + sorted(reads.numbers[key])


def _for_none(key: str, reads: _Reads) -> list[Any]:
    """Values of a key that is None, by what its class says it may be; a factor, if that says nothing."""
    kinds = reads.kinds[key] or ({"int"} if key in reads.optional else {"float"})
    if _SIZE.fullmatch(key):
        return []
    found: list[Any] = [True] if "bool" in kinds else []
    if "float" in kinds:
        found.append(_FACTOR)
    elif "int" in kinds:
        found += sorted(reads.numbers[key]) or [_COUNT]
    if kinds & {"str", "Literal"}:
        found += sorted(reads.strings[key])
    return found + _memberships(key, reads)


def _memberships(key: str, reads: _Reads) -> list[Any]:
    """Lists of what the source looks for in a key: each alone, and all."""
    members = sorted(reads.members[key])
    return [[member] for member in members] + ([members] if len(members) > 1 else [])


def _lists(key: str, value: Any, reads: _Reads) -> list[Any]:
    """Lists of strings, such as the kinds of layers: as long as they are, with another kind in front or throughout."""
    if not all(isinstance(item, str) for item in value):
        return []
    found = _memberships(key, reads)
    if value:
        found += [[other, *value[1:]] for other in sorted(reads.strings[key] - set(value))]
        found += [[other] * len(value) for other in sorted(reads.strings[key])]
    return found


def _sets() -> defaultdict[str, set[Any]]:
    return defaultdict(set)


@dataclass
class _Reads:
    """What source code does with values, by their names.

    Attributes:
        names: all names that are read: attributes, variables, and strings (of `getattr`).
        strings, numbers: name → constants that it is compared with, and keys of a table that it picks from.
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
def _read(source: str) -> _Reads:
    reader = _Reader()
    tree = ast.parse(source)
    reader.tables = dict(_tables(tree))
    reader.visit(tree)
    for _ in range(_ROUNDS):
        _pass_on(reader.reads)
    return reader.reads


def _pass_on(reads: _Reads) -> None:
    """What is asked of a value under another name is asked of it."""
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
        self.reads = _Reads()
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
