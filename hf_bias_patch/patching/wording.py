"""What is wrong with a recipe, in sentences: pydantic's findings as a person would say them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from hf_bias_patch.architecture.sites import PROJECTIONS
from hf_bias_patch.architecture.verdict import DESTINATIONS
from hf_bias_patch.checkpoint.shorten import brief

__all__ = ["either", "not_offered", "problems", "told_apart"]

_LONGEST = 60  # characters of a wrong value that are shown
_MOST = 10  # things said to be wrong at once

_SAYS = {
    "finite_number": "{input} is not a finite number",
    "int_type": "{input} is not a whole number",
    "int_parsing": "{input} is not a whole number",
    "int_from_float": "{input} is not a whole number",
    "float_type": "{input} is not a number",
    "float_parsing": "{input} is not a number",
    "greater_than": "{input} is not above {gt:g}",
    "greater_than_equal": "{input} is below {ge}",
    "less_than_equal": "{input} is above {le:g}",
    "literal_error": "{input} is not {expected}",
    "dict_type": "{input} is not a mapping",
    "tuple_type": "{input} is not a list",
}
"""Kind of finding → sentence, from the wrong value and what pydantic tells beside it."""


def either(names: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def told_apart(*values: float) -> list[str]:
    """Numbers in two figures, or in as many as it takes to tell those apart that differ."""
    for digits in range(2, 17):
        shown = [f"{value:.{digits}g}" for value in values]
        if len(set(shown)) == len(set(values)):
            return shown
    return [repr(value) for value in values]


def not_offered(projection: str, destination: str) -> str:
    """That a projection's bias does not go to a destination, and where it does go."""
    offered = either(f"{projection}:{place}" for place in DESTINATIONS[projection])
    return f"{projection}:{destination} is unsupported; write {offered}"


def problems(error: ValidationError) -> Iterator[str]:
    """One sentence for each thing that is wrong, with the field it is wrong in."""
    for problem in error.errors(include_url=False)[:_MOST]:
        where = ".".join(str(part) for part in problem["loc"] if not isinstance(part, int) and part != "[key]")
        kind, given = problem["type"], problem["input"]
        if kind == "extra_forbidden":
            yield f"`{where}` is not a field"
        elif kind == "missing":
            field, _, name = where.rpartition(".")
            yield f"{field}: `{name}` is missing"
        elif kind == "literal_error" and (said := _projection(problem["loc"], given)):
            yield said
        else:
            said = _sentence(problem)
            yield f"{where}: {said}" if where else said


def _projection(place: tuple[int | str, ...], given: Any) -> str:
    """The error text for a bad projection or destination; empty if the field is neither."""
    field, *inner = place
    if field == "fold" and inner[-1:] != ["[key]"]:
        name = str(inner[0]) if inner else ""
        return f"fold: {not_offered(name, _shown(given).strip(chr(39)))}" if DESTINATIONS.get(name) else ""
    if field not in ("fold", "drop", "fill", "freeze", "train") or (field == "fill" and inner[-1:] != ["[key]"]):
        return ""
    names = [name for name in PROJECTIONS if field != "fold" or DESTINATIONS[name]]
    return f"{field}: {_shown(given)} is not a projection; write {either(names)}"


def _sentence(problem: Mapping[str, Any]) -> str:
    shown = _shown(problem["input"])
    context = dict(problem.get("ctx") or {})
    if problem["type"] in _SAYS:
        return _SAYS[problem["type"]].format(input=shown, **context)
    if problem["type"] == "value_error":
        return str(context["error"])
    return f"{shown} is not understood"


def _shown(value: Any) -> str:
    text = brief(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
