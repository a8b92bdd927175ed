"""Writes hf_bias_patch/architecture/stock_parts.toml: what may stand first in a tensor name of each model type.

    python scripts/make_stock_parts.py [--check]

It reads the source of transformers' model classes, and builds no model. Run it whenever the version of transformers
changes. `--check` writes nothing and says what differs.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import transformers.models
from stock_tables import save, text_of
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

MODELS = "transformers.models"
ANCHORS = re.compile(r"^(?:\^|\(\?<!.*?\)|\(\^\|[^)]*\))*")
"""What says of a pattern where it may stand: `^`, `(?<!language_model\\.)`, `(^|model\\.)`."""
HEADER = """\
# Model type = the parts of its stock classes, of which one stands first in any tensor name that stock loaders take.
# `NAME.NAME` stands there where one part has another of its name.
# Made by scripts/make_stock_parts.py from the source of transformers.
"""


def main() -> int:
    """Write the file, or hold it against the installed transformers."""
    found: dict[str, set[str]] = {}
    for stock in stock_classes():
        found.setdefault(stock.config_class.model_type, set()).update(parts_of(stock))
    entries = {name: " ".join(sorted(parts)) for name, parts in found.items() if name and parts}
    return save("stock_parts", text_of(HEADER, entries))


def stock_classes() -> Iterator[Any]:
    """Every model class of transformers that has a config class."""
    for package in pkgutil.iter_modules(transformers.models.__path__, "transformers.models."):
        module = importlib.import_module(package.name)
        for entry in pkgutil.iter_modules(getattr(module, "__path__", [])):
            if not entry.name.startswith("modeling_"):
                continue
            try:
                modeling = importlib.import_module(f"{package.name}.{entry.name}")
            except ImportError as error:  # a library that this machine lacks
                print(f"left out: {entry.name}: {error}")
                continue
            for item in vars(modeling).values():
                own = isinstance(item, type) and issubclass(item, PreTrainedModel)
                if own and item.__module__ == modeling.__name__ and isinstance(item.config_class, type):
                    yield item


def parts_of(stock: Any) -> set[str]:
    """The modules and parameters that a class has itself, its base model's name, and older names of these."""
    assigned = [each for base in stock.__mro__ if base.__module__.startswith(MODELS) for each in made(base)]
    parts = {part for part, _ in assigned} | {f"{part}.{part}" for part, call in assigned if repeats(stock, part, call)}
    return parts | old_parts(stock) | ({stock.base_model_prefix.split(".")[0]} - {""})


def old_parts(stock: Any) -> set[str]:
    """What stands first in the names that transformers renames while it loads a class, and back while it saves it."""
    keys = (stock.config_class.model_type, stock.__name__)
    old = [entry for key in keys for entry in get_checkpoint_conversion_mapping(key) or ()]
    sources = [ANCHORS.sub("", source) for entry in old for source in getattr(entry, "source_patterns", ())]
    return {match[0] for source in sources if (match := re.match(r"[A-Za-z]\w*(?=\\?\.|$)", source))}


def made(base: type) -> Iterator[tuple[str, ast.expr]]:
    """What the `__init__` of one class makes, or is given, and keeps: `self.NAME = CALL(...)`, `self.NAME = NAME`."""
    init = vars(base).get("__init__")
    if init is None:
        return
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(init)))):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None and makes(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                    yield target.attr, node.value


def repeats(stock: Any, part: str, value: ast.expr) -> bool:
    """Whether what is made has a part of the same name itself, or may: what an Auto class makes is not known."""
    if not isinstance(value, ast.Call):
        return False
    name = ast.unparse(value.func).split(".")[0]
    inner = getattr(importlib.import_module(stock.__module__), name, None)
    bases = [base for base in getattr(inner, "__mro__", ()) if base.__module__.startswith(MODELS)]
    return name.startswith("Auto") or any(part == own for base in bases for own, _ in made(base))


def makes(value: ast.expr) -> bool:
    """Whether an expression gives something that may hold attention: not a single layer of torch."""
    if isinstance(value, ast.Name):
        return value.id != "config"
    leaves = re.compile(r"nn\.(Linear|Embedding|LayerNorm|Dropout|Conv\w+|Parameter|\w*Loss|Identity|\w*Norm\w*)")
    calls = [ast.unparse(node.func) for node in ast.walk(value) if isinstance(node, ast.Call)]
    return any(not leaves.fullmatch(call) and call not in ("int", "len", "getattr", "sum", "range") for call in calls)


if __name__ == "__main__":
    sys.exit(main())
