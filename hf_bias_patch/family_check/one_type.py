"""Table against numbers for one model type, on a small random model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hf_bias_patch.architecture.condition import MISSING, lookup
from hf_bias_patch.errors import CheckpointError, FamilyError, VerifyError
from hf_bias_patch.family_check.variations import Change
from hf_bias_patch.probing.check import Checked, Difference, check

if TYPE_CHECKING:
    from hf_bias_patch.probing.findings import Probe

__all__ = ["NotBuiltError", "changes_of_type", "check_type", "config_of_type", "switched_on"]

_FLAGS = re.compile(r"(use_|add_)?(attention|attn|qkv|q|k|v|query|key|value)?_?(out_|proj_)?bias(_linear)?")
"""Config flags that decide whether attention has biases. Off by default, they would leave nothing to check."""

_DEFAULT: Mapping[str, Any] = {}


class NotBuiltError(VerifyError):
    """transformers builds or runs no small model of a config."""


def check_type(
    model_type: str, seeds: Sequence[int] = (0,), changes: Mapping[str, Any] = _DEFAULT, written: bool = False
) -> Checked:
    """Check one model type on a small random model, its attention biases switched on.

    Attention maps that have none even so are given one, where the table says that stock transformers would read it: a
    checkpoint derived from this type may have it.

    Where its files name tensors otherwise than the model in memory, both are checked: the table must know both. It must
    also hold for a config.json that leaves out what has its default.

    Args:
        model_type: of the installed transformers.
        seeds: of weights, inputs and moves; a verdict must hold on all.
        changes: config values other than the default ones, by dotted keys.
        written: whether they are what a config.json holds: the config's class may then read them otherwise, a string
            as a list.

    Raises:
        NotBuiltError: there is no such model, or no input for it, or its config does not keep a change.
        FamilyError, VerifyError: it cannot be probed.
    """
    from hf_bias_patch.family_check.added_biases import give_biases
    from hf_bias_patch.family_check.reasons.untouched import explain, unexplained, untouched
    from hf_bias_patch.models.names import names_in_files
    from hf_bias_patch.models.run import run_all
    from hf_bias_patch.patching.in_memory import ModelTensors
    from hf_bias_patch.probing.findings import combine, renamed
    from hf_bias_patch.probing.probe import probe

    config = config_of_type(model_type, changes, written)
    probes, given = [], set[str]()
    for seed in seeds:
        model, sets = _built(config, seed)
        given |= set(give_biases(model, lambda model=model, sets=sets: run_all(model, sets), seed))  # type: ignore[misc]
        probes.append(probe(model, lambda model=model, sets=sets: run_all(model, sets), seed))  # type: ignore[misc]
    found = _without_idle(combine(probes), given, config.to_dict(), ModelTensors(model).tensors)
    never = untouched(model, model_type, found.untouched)
    checked = check(config.to_dict(), ModelTensors(model).tensors, found)
    by_file = check(_as_written(config, changes), ModelTensors(model).tensors, found)
    known = {item.slot for item in checked.wrong}
    left_out = (replace(item, slot=f"{item.slot} by config.json") for item in by_file.wrong if item.slot not in known)
    more = (*left_out, *_executed(model, sets), *unexplained(never))
    checked = replace(checked, differences=(*checked.differences, *more), untouched=never)
    stored = names_in_files(model)
    same = all(stored.names.get(finding.parameter) == finding.parameter for finding in found.findings)
    if same or not stored.tensors:
        return explain(checked, config.to_dict(), type(model).__name__)
    in_files = check(config.to_dict(), stored.tensors, renamed(found, stored.names, stored.starts))
    filed = (replace(item, slot=f"{item.slot} in the files") for item in in_files.differences)
    least = {name: min(getattr(checked, name), getattr(in_files, name)) for name in ("agreed", "closable")}
    checked = replace(checked, differences=(*checked.differences, *filed), **least)
    return explain(checked, config.to_dict(), type(model).__name__)


def _without_idle(found: Probe, given: AbstractSet[str], config: Mapping[str, Any], tensors: Any) -> Probe:
    """A probe without findings about biases that were added to the model and that no stock model uses.

    Its file may hold them, but its map does without, or its class never makes them: there the table says `absent`.
    """
    from hf_bias_patch.architecture.unread_biases import unread_biases

    try:
        idle = given & unread_biases(config, tensors).keys()
    except (FamilyError, CheckpointError):
        idle = set()
    findings = tuple(finding for finding in found.findings if finding.parameter not in idle)
    return replace(found, findings=findings, untouched=tuple(name for name in found.untouched if name not in given))


def changes_of_type(model_type: str) -> tuple[Change, ...]:
    """The changes of a type's small config that are worth a check, its attention biases switched on.

    Raises:
        NotBuiltError: there is no such config.
    """
    from hf_bias_patch.family_check.small_models.config import small_config
    from hf_bias_patch.family_check.variations import changes_of

    try:
        plain = small_config(model_type)
    except Exception as error:
        raise _not_built(error) from error
    try:
        return changes_of(small_config(model_type, **switched_on(plain.to_dict())))
    except Exception:  # a flag that this type forbids
        return changes_of(plain)


def switched_on(config: Mapping[str, Any], path: str = "") -> dict[str, bool]:
    """The flags of a config, nested ones too, that give attention biases and are off: dotted key → True."""
    found: dict[str, bool] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= switched_on(value, f"{path}{key}.")
        elif value is False and _FLAGS.fullmatch(key):
            found[path + key] = True
    return found


def _executed(model: Any, sets: Sequence[Any]) -> Iterator[Difference]:
    """Folds that the table offers and that, executed, do not leave the outputs as they were."""
    from hf_bias_patch.family_check.executed_folds import trials
    from hf_bias_patch.models.run import run_all

    try:
        tried = trials(model, lambda: run_all(model, sets))
    except (FamilyError, CheckpointError):  # the table knows no such sites: `check` has told, slot by slot
        return
    for fold, problem in tried:
        if problem:
            yield Difference("wrong", fold, "offered at some sites", f"executed: {problem}")


def _as_written(config: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A config as a checkpoint's file may hold it: without what has its default, and with these values as they are."""
    from hf_bias_patch.family_check.small_models.config import put

    return put({**config.to_diff_dict(), "model_type": config.model_type}, changes)


def config_of_type(model_type: str, changes: Mapping[str, Any] = _DEFAULT, written: bool = False) -> Any:
    """A small config with its bias flags on; without, where no model can be built or run so."""
    from hf_bias_patch.family_check.small_models.config import small_config

    try:
        plain = small_config(model_type, **changes)
    except Exception as error:
        raise _not_built(error) from error
    kept = {} if written else changes
    _require_kept(plain, kept)
    flags = {key: on for key, on in switched_on(plain.to_dict()).items() if key not in changes}
    if not flags:
        return plain
    try:
        config = small_config(model_type, **flags, **changes)
        _require_kept(config, kept)
        _built(config)
        return config
    except Exception:  # a flag that this type forbids: what it says does not matter
        return plain


def _built(config: Any, seed: int = 0) -> tuple[Any, list[dict[str, Any]]]:
    """A small model and sets of inputs that it accepts."""
    from hf_bias_patch.family_check.small_models.model import small_model
    from hf_bias_patch.models.inputs.random_inputs import sets_of

    try:
        model = small_model(config, seed)
        return model, sets_of(model, seed)
    except Exception as error:  # of any kind: transformers says no in many ways
        raise _not_built(error) from error


def _not_built(error: Exception) -> NotBuiltError:
    return NotBuiltError(f"{type(error).__name__}: {str(error).strip()}")


def _require_kept(config: Any, changes: Mapping[str, Any]) -> None:
    values = config.to_dict()
    for key, value in changes.items():
        kept = lookup(values, key)
        if json.dumps(kept, default=str) != json.dumps(value):
            said = f"drops {key}" if kept is MISSING else f"makes {key} = {kept!r} of it"
            raise NotBuiltError(f"The config {said}")
