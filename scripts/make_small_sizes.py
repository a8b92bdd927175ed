"""Writes `small_models/forced.toml`: which sizes of each small model must not have values of their own, by its type.

Each type's small model is built and run with all own sizes. Where that fails, fields are freed one by one from the
sizes with which every model runs, and those that must stay are written down. Takes about ten minutes.

    python scripts/make_small_sizes.py [TYPE …]      (all types, if none is named; others keep their entries)
"""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hf_bias_patch.family_check.small_models import classes, sizes
from hf_bias_patch.family_check.small_models import config as config_module
from hf_bias_patch.family_check.small_models.config import model_types

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OUT = Path(sizes.__file__).parent / "forced.toml"
HEAD = """\
# Fields of small models' configs that keep the size all models run with, by model type; see sizes.py. A model, or the
# inputs that are made for it, want them equal to another. Made by scripts/make_small_sizes.py.
"""
SECONDS = 240
"""For one type."""


def looks_of(model_type: str, forced: Iterable[str] | None) -> tuple[Any, set[str]] | None:
    """What a type's small model is and takes, with some fields forced (None: all); and the freed fields.

    None if no model can be built or run so.
    """
    from hf_bias_patch.family_check.one_type import NotBuiltError, _built, config_of_type, switched_on

    kept = None if forced is None else frozenset(forced)
    freed: set[str] = set()

    def recorded(path: str, name: str, old: Any, small: Any) -> Any:
        value = original(path, name, old, small)
        if kept is None or value == small:
            return small
        inner = path.partition(".")[2]
        freed.add(f"{inner}.{name}" if inner else name)
        return value

    original, known = sizes.own_size, sizes.forced
    config_module.own_size, sizes.forced = recorded, lambda _: kept or frozenset()  # type: ignore[assignment]
    classes._chosen.clear()
    try:
        config = config_of_type(model_type)
        model, sets = _built(config)
        looks = (type(model).__name__, [sorted(inputs) for inputs in sets], sorted(switched_on(config.to_dict())))
        return looks, freed
    except NotBuiltError:
        return None
    finally:
        config_module.own_size, sizes.forced = original, known


def forced_of(model_type: str) -> list[str]:
    """The fields of a type that must keep their sizes."""
    all_own, plain = looks_of(model_type, ()), looks_of(model_type, None)
    if plain is None or (all_own is not None and all_own[0] == plain[0]):
        return []
    fields = _fields(model_type)
    kept = set(fields)
    for field in fields:
        tried = looks_of(model_type, kept - {field})
        if tried is not None and tried[0] == plain[0]:
            kept.discard(field)
    return sorted(kept)


def _fields(model_type: str) -> list[str]:
    """The fields that would be freed."""
    freed: set[str] = set()

    def recorded(path: str, name: str, old: Any, small: Any) -> Any:
        value = original(path, name, old, small)
        if value != small:
            inner = path.partition(".")[2]
            freed.add(f"{inner}.{name}" if inner else name)
        return small

    original, known = sizes.own_size, sizes.forced
    config_module.own_size, sizes.forced = recorded, lambda _: frozenset()  # type: ignore[assignment]
    try:
        config_module.small_config(model_type)
    finally:
        config_module.own_size, sizes.forced = original, known
    return sorted(freed)


def _work(model_type: str, pipe: Any) -> None:
    from transformers.utils import logging

    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    try:
        pipe.send(forced_of(model_type))
    except Exception as error:  # of any kind: the type keeps all its sizes
        print(f"{model_type}: {type(error).__name__}: {error}", file=sys.stderr)
        pipe.send(None)


def main(names: list[str]) -> None:
    from hf_bias_patch.family_check.sweep import _COMMON, _warm

    _warm(_COMMON)
    found = {} if not names else tomllib.loads(OUT.read_text("utf-8"))
    context = multiprocessing.get_context("fork")
    for name in names or model_types():
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(name, theirs), daemon=True)
        process.start()
        theirs.close()
        fields = ours.recv() if ours.poll(SECONDS) else None
        process.kill()
        process.join()
        print(name, fields, flush=True)
        found.pop(name, None)
        if fields:
            found[name] = fields
    lines = [f'"{name}" = [{", ".join(f"{field!r}" for field in fields)}]' for name, fields in sorted(found.items())]
    OUT.write_text(HEAD + "\n".join(lines).replace("'", '"') + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
