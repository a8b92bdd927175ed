"""What is put into a JSON value, a text or bytes to damage it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

__all__ = ["damaged_bytes", "damaged_json", "damaged_text"]


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


_STRANGE: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 3.5, 1e308, float("inf"), float("nan"), 2**31 - 1, 2**31, 2**53, 2**63, -(2**70),
    10**400, "", "x", "bert", "gpt2", "bart", "encoder-decoder", "../../etc/passwd", "/dev/zero", "a\x00b", "\ud800",
    "é" * 300, "a" * 5000, "1e999", "NaN", "\x1b[2J", [], [1], [None], [0], [2**62], [[]], {}, {"a": 1},
    {"model_type": "bert"}, "F32", "BF16", "F8_E4M3", "I64", "F4", "null", ["bert"], ["BertModel"], _nested(90),
    _nested(500), list(range(300)),
    {str(number): number for number in range(300)}, {"quant_method": "gptq"}, {"AutoModel": "code.Model"},
]  # fmt: skip

_ENDINGS = ["", "x", "\u202e", ".bias", "." + "9" * 5000, "0", ".lora_A.", "_packed", "\ud800"]


def damaged_json(content: Any, draw: random.Random) -> Any:
    """A copy with one to three places deleted, renamed, moved by a little or a lot, or replaced."""
    content = _copied(content)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        places = list(_places(content))
        if places:
            _damage(content, draw.choice(places), draw)
    return content


def _copied(value: Any) -> Any:
    """Deep values would be too deep for copy.deepcopy."""
    return json.loads(json.dumps(value))


def _places(content: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*at, key)
        if len(at) < 8:
            yield from _places(value, (*at, key))


def _damage(content: Any, at: tuple[Any, ...], draw: random.Random) -> None:
    *way, last = at
    for key in way:
        content = content[key]
    old, how = content[last], draw.random()
    if how < 0.15:
        del content[last]
    elif how < 0.25 and isinstance(content, dict):
        content[f"{last}{draw.choice(_ENDINGS)}"] = content.pop(last)
    elif how < 0.3 and isinstance(content, dict):
        content[draw.choice(list(content))] = old  # two that say the same
    elif how < 0.55 and isinstance(old, int) and not isinstance(old, bool):
        content[last] = old + draw.choice([-1, 1, -4, 4, 2**31, -(2**31), 2**62, 10**300])
    elif how < 0.6 and isinstance(old, list):
        content[last] = old * draw.choice([0, 2, 50])
    else:
        content[last] = _copied(draw.choice(_STRANGE))


def damaged_bytes(content: bytes, draw: random.Random, start: int = 0, stop: int | None = None) -> bytes:
    """Some bytes between two places changed, cut out, doubled, or all cut off behind one."""
    stop = len(content) if stop is None else min(stop, len(content))
    if start >= stop:
        return content + b"\0"
    raw, place = bytearray(content), draw.randrange(start, stop)
    how = draw.random()
    if how < 0.6:
        for _ in range(draw.choice([1, 1, 2, 8])):
            raw[draw.randrange(start, stop)] = draw.choice([0, 1, 255, draw.randrange(256)])
    elif how < 0.7:
        del raw[place : place + draw.choice([1, 4, 100])]
    elif how < 0.8:
        raw[place:place] = raw[place : place + draw.choice([1, 8, 1000])]
    elif how < 0.95:
        del raw[draw.choice([0, 1, 7, 8, 9, place, place, len(raw) - 1]) :]
    else:
        raw += draw.choice([b"\0", bytes(1000), content[:64]])
    return bytes(raw)


def damaged_text(content: str, draw: random.Random) -> str:
    """A line taken out, doubled, or with something strange in it."""
    lines = content.splitlines() or [""]
    place = draw.randrange(len(lines))
    strange = ["&a [*a, *a]", "<<: *a", "!!python/name:os.system", "1:2:3", "0x" + "f" * 9000, "\t", ": :", "- " * 2000,
               "[" * 3000, "0-999999999999", ".inf", "9" * 5000, "2026-99-99"]  # fmt: skip
    how = draw.random()
    if how < 0.2:
        del lines[place]
    elif how < 0.3:
        lines.insert(place, lines[place])
    elif how < 0.7:
        key = lines[place].partition(":")[0]
        lines[place] = f"{key}: {draw.choice(strange)}"
    else:
        lines[place] = damaged_bytes(lines[place].encode(), draw).decode("utf-8", "replace")
    return "\n".join(lines)
