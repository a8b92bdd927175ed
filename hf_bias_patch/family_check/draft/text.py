"""A family's tables as the text of its TOML file."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["family_text", "types_text"]

_WIDTH = 120
_PHRASES = {
    "rotary": "rotary positions",
    "qk_norm": "a norm on query and key",
    "softcap": "scores soft-capped",
    "sink": "a sink logit for each head",
    "gate": "a gate before the output map",
    "norm_after": "a norm before the output map",
    "clip": "projections clipped",
}


def family_text(model_types: Sequence[str], body: Mapping[str, Any]) -> str:
    """The file: a comment that says what it is, the model types, and the tables.

    Args:
        model_types: who shares it.
        body: `handled`, `towers`, `stacks` and `attention`, as TOML has them; what is empty is left out.
    """
    lines = [*_comment(body), types_text(model_types)]
    if body.get("handled"):
        lines += ["", "[handled]", *(f"{_key(key)} = {_value(value)}" for key, value in body["handled"].items())]
    for kind in ("towers", "stacks"):
        for name, facts in body.get(kind, {}).items():
            lines += ["", f"[{kind}.{name}]", *(f"{key} = {_value(value)}" for key, value in facts.items())]
    for table in body.get("attention", ()):
        lines += ["", "[[attention]]", *_attention(table)]
    return "\n".join(lines) + "\n"


def types_text(model_types: Iterable[str]) -> str:
    """The line, or lines, of the model types."""
    names = [f'"{name}"' for name in sorted(model_types)]
    line = f"model_types = [{', '.join(names)}]"
    if len(line) <= _WIDTH:
        return line
    wrapped = textwrap.wrap(", ".join(names), _WIDTH - 12, break_on_hyphens=False, break_long_words=False)
    return "\n".join(["model_types = [", *(f"    {part}" for part in [*wrapped[:-1], f"{wrapped[-1]},"]), "]"])


def _attention(table: Mapping[str, Any]) -> list[str]:
    lines, nested = [], []
    for key, value in table.items():
        if key in ("traps", "layouts") and len(f"{key} = {_value(value)}") > _WIDTH:
            for one in value:
                nested += [f"[[attention.{key}]]", *(f"{name} = {_value(item)}" for name, item in one.items())]
        elif key in ("maps", "biases"):
            nested += [f"[attention.{key}]", *(f"{_key(name)} = {_value(made)}" for name, made in value.items())]
        else:
            lines.append(f"{key} = {_value(value)}")
    return lines + nested


def _key(key: str) -> str:
    return key if key.isidentifier() else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _comment(body: Mapping[str, Any]) -> list[str]:
    kinds: dict[str, None] = {}
    for table in body.get("attention", ()):
        maps = {projection: name for name, made in table["maps"].items() for projection in made}
        inputs = dict.fromkeys(_short(maps[name]) for name in ("query", "key", "value") if name in maps)
        text = f"{table['stack']} {table['kind']}-attention, {', '.join(inputs)}"
        text += f" to {_short(maps['output'])}" if "output" in maps else ""
        traps = dict.fromkeys(_phrase(trap) for trap in table.get("traps", ()) if trap["trap"] in _PHRASES)
        kinds["; ".join([text, *(", ".join(traps) for _ in traps if traps)][:2])] = None
    said = "; ".join(kinds)
    if body.get("towers"):
        said += ("; m" if said else "M") + f"odels inside a model: {', '.join(body['towers'])}"
    return textwrap.wrap(f"{said[:1].upper()}{said[1:]}.", _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _short(module: str) -> str:
    """The last parts of a module's name that say what it is."""
    name = module.split("|")[0].removesuffix("_")
    parts = [part for part in name.split(".") if not part.startswith("{")]
    return parts[-1] if len(parts[-1]) > 1 and parts[-1] not in ("linear", "dense") else ".".join(parts[-2:])


def _phrase(trap: Mapping[str, Any]) -> str:
    text = _PHRASES[trap["trap"]]
    if trap.keys() & {"layers", "but", "only"}:
        return f"{text} in some layers"
    return f"{text} where the config says so" if "when" in trap else text
