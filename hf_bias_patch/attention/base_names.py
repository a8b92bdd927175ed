"""The names of a base model saved by itself, which lack what its heads call it."""

from __future__ import annotations

from typing import Any

__all__ = ["with_base"]


def with_base(facts: dict[str, Any]) -> dict[str, Any]:
    """A family's facts without the entry `base`, and every name that begins so once more without.

    Where a class with a head has modules beside its base model (the decoder of ViTMAE), one prefix does not fit all
    names, so that theirs begin with the base model's (`vit.layers.{layer}`). `base = "vit"` says that the base model
    may be saved by itself. Names that begin with it are looked for first.

    Args:
        facts: as a family file has them; not changed.
    """
    base = facts.get("base")
    rest = {key: value for key, value in facts.items() if key != "base"}
    if not base:
        return rest
    return rest | {key: _both(rest[key], f"{base}.") for key in ("stacks", "attention") if key in rest}


def _both(facts: Any, start: str) -> Any:
    if isinstance(facts, dict):
        return {_both(key, start): _both(value, start) for key, value in facts.items()}
    if isinstance(facts, list):
        return [_both(value, start) for value in facts]
    if not isinstance(facts, str):
        return facts
    names = facts.split("|")
    return "|".join([*names, *(name.removeprefix(start) for name in names if name.startswith(start))])
