"""Table against numbers for whole lists of model types: what a maintainer runs when transformers changes."""

from __future__ import annotations

import multiprocessing
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from hf_bias_patch.errors import CheckpointError, FamilyError
from hf_bias_patch.probing.check import Checked, Difference, check

__all__ = ["Swept", "check_type", "sweep", "switched_on"]

TIMEOUT = 240.0
"""Seconds for one model type."""

_COMMON = ("bert", "llava", "whisper")
"""Types that import most of what others do."""
_FEW = 6
"""So few types are faster without that."""

_FLAGS = re.compile(r"(use_|add_)?(attention|attn|qkv|q|k|v|query|key|value)?_?(out_|proj_)?bias(_linear)?")
"""Config flags that decide whether attention has biases. Off by default, they would leave nothing to check."""


@dataclass(frozen=True)
class Swept:
    """What the sweep found of one model type.

    Attributes:
        model_type: its name.
        agreed: biases of which table and numbers say the same.
        differences: the others.
        closable, slots, unknown: as in `Checked`.
        problem: why it could not be checked, or not to the end; empty if it was.
        seconds: it took.
    """

    model_type: str
    agreed: int = 0
    differences: tuple[Difference, ...] = ()
    problem: str = ""
    seconds: float = 0.0
    closable: int = 0
    slots: int = 0
    unknown: int = 0

    @property
    def wrong(self) -> tuple[Difference, ...]:
        """Where the table promises what the numbers refute."""
        return tuple(difference for difference in self.differences if difference.kind == "wrong")

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {**vars(self), "differences": [vars(difference) for difference in self.differences]}


def sweep(
    names: Sequence[str], jobs: int = 1, timeout: float = TIMEOUT, seeds: Sequence[int] = (0,)
) -> Iterator[Swept]:
    """Check model types, each in a process of its own, so that none stops the others; in the order they end.

    Args:
        names: model types of the installed transformers.
        jobs: processes at a time.
        timeout: seconds for one type.
        seeds: of weights, inputs and moves; a verdict must hold on all.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _warm(_COMMON if len(names) > _FEW else ())
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    waiting = list(reversed(names))
    running: dict[Any, tuple[str, Any, float]] = {}
    while waiting or running:
        while waiting and len(running) < max(1, jobs):
            name = waiting.pop()
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(name, tuple(seeds), theirs), daemon=True)
            process.start()
            theirs.close()
            running[ours] = (name, process, time.monotonic())
        ready = wait(list(running), timeout=1.0)
        for pipe in list(running):
            name, process, start = running[pipe]
            spent = time.monotonic() - start
            if pipe not in ready and spent < timeout:
                continue
            yield _result(pipe, pipe in ready, name, spent, process)
            pipe.close()
            del running[pipe]


def check_type(model_type: str, seeds: Sequence[int] = (0,)) -> Checked:
    """Check one model type on a small random model, its attention biases switched on.

    Where its files name tensors otherwise than the model in memory, both are checked: the table must know both.

    Raises:
        FamilyError, VerifyError: there is no such model, or no input for it.
    """
    from hf_bias_patch.patching.memory import ModelTensors
    from hf_bias_patch.probing.combine import combine
    from hf_bias_patch.probing.probe import probe
    from hf_bias_patch.probing.renames import renamed
    from hf_bias_patch.probing.small import inputs_of, run, small_model
    from hf_bias_patch.probing.stored import stored_names

    config = _config(model_type)
    probes = []
    for seed in seeds:
        model = small_model(config, seed)
        inputs = inputs_of(model, seed)
        probes.append(probe(model, lambda model=model, inputs=inputs: run(model, inputs), seed))  # type: ignore[misc]
    found = combine(probes)
    checked = check(config.to_dict(), ModelTensors(model).tensors, found)
    checked = replace(checked, differences=(*checked.differences, *_executed(model, inputs)))
    stored = stored_names(model)
    same = all(stored.names.get(finding.parameter) == finding.parameter for finding in found.findings)
    if same or not stored.tensors:
        return checked
    in_files = check(config.to_dict(), stored.tensors, renamed(found, stored.names, stored.starts))
    more = (replace(item, slot=f"{item.slot} in the files") for item in in_files.differences)
    least = {name: min(getattr(checked, name), getattr(in_files, name)) for name in ("agreed", "closable")}
    return replace(checked, differences=(*checked.differences, *more), **least)


def _executed(model: Any, inputs: Any) -> Iterator[Difference]:
    """Folds that the table offers and that, executed, do not leave the outputs as they were."""
    from hf_bias_patch.probing.small import run
    from hf_bias_patch.probing.trial import trials

    try:
        tried = trials(model, lambda: run(model, inputs))
    except (FamilyError, CheckpointError):  # the table knows no such sites: `check` has told, slot by slot
        return
    for fold, problem in tried:
        if problem:
            yield Difference("wrong", fold, "offered at some sites", f"executed: {problem}")


def _config(model_type: str) -> Any:
    """A small config with its bias flags on; without, where no model can be built or run so."""
    from hf_bias_patch.probing.small import inputs_of, small_config, small_model

    plain = small_config(model_type)
    flags = switched_on(plain.to_dict())
    if not flags:
        return plain
    try:
        config = small_config(model_type, **flags)
        inputs_of(small_model(config))
        return config
    except Exception:  # a flag that this type forbids: what it says does not matter
        return plain


def switched_on(config: Mapping[str, Any], path: str = "") -> dict[str, bool]:
    """The flags of a config, nested ones too, that give attention biases and are off: dotted key → True."""
    found: dict[str, bool] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= switched_on(value, f"{path}{key}.")
        elif value is False and _FLAGS.fullmatch(key):
            found[path + key] = True
    return found


def _warm(model_types: Sequence[str]) -> None:
    """Import what every forked process needs, once: most is imported by transformers only when a model is run."""
    import torch
    import transformers.models.auto.modeling_auto  # noqa: F401
    from transformers.utils import logging

    torch.set_num_threads(1)  # of the sweep's processes, each gets one
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    for model_type in model_types:
        with suppress(Exception):
            check_type(model_type)
    logging.set_verbosity(level)


def _work(model_type: str, seeds: tuple[int, ...], pipe: Connection) -> None:
    from transformers.utils import logging

    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    start = time.monotonic()
    try:
        found = check_type(model_type, seeds)
        swept = Swept(model_type, **vars(found))
    except Exception as error:  # whatever goes wrong inside a model is told, and the sweep goes on
        swept = Swept(model_type, problem=f"{type(error).__name__}: {str(error).strip()[:300]}")
    pipe.send({**vars(swept), "seconds": time.monotonic() - start})
    pipe.close()


def _result(pipe: Connection, ready: bool, name: str, spent: float, process: Any) -> Swept:
    """What a process sent; or why it sent nothing. The process has ended when this returns."""
    try:
        swept = Swept(**pipe.recv()) if ready else Swept(name, problem=f"no end in {spent:.0f} s", seconds=spent)
    except EOFError:
        process.join()
        swept = Swept(name, problem=f"its process died (exit code {process.exitcode})", seconds=spent)
    if not ready:
        process.kill()
    process.join()
    return swept
