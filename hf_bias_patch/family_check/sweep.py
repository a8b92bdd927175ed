"""Table against numbers for whole lists of model types: what a maintainer runs when transformers changes."""

from __future__ import annotations

import itertools
import multiprocessing
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from hf_bias_patch.family_check.cases import Case
from hf_bias_patch.family_check.one_type import NotBuiltError, check_type
from hf_bias_patch.family_check.reasons import reason_of
from hf_bias_patch.family_check.reasons.untouched import Untouched
from hf_bias_patch.family_check.saved_classes import check_saved
from hf_bias_patch.probing.check import Difference

__all__ = ["Swept", "sweep"]

TIMEOUT = 240.0
"""Seconds for one case."""

_COMMON = ("bert", "llava", "whisper")
"""Types that import most of what others do."""
_FEW = 6
"""So few cases are faster without that."""


@dataclass(frozen=True)
class Swept:
    """What the sweep found of one case.

    Attributes:
        case: which.
        agreed: biases of which table and numbers say the same.
        differences: the others.
        closable, slots, unknown, untouched: as in `Checked`.
        classes: the stock classes of the type whose files were held against their memory; at a type's default only.
        no_family, not_built: as in `Saved`.
        explained: as in `Checked` and in `Saved`.
        problem: why it could not be checked, or not to the end; empty if it was.
        reason: why that is so, as `unchecked.toml` has it; empty if nobody has said, or there is no problem.
        built: whether transformers could build and run a model of it; if not, `problem` is what it says.
        seconds: it took.
    """

    case: Case
    agreed: int = 0
    differences: tuple[Difference, ...] = ()
    problem: str = ""
    reason: str = ""
    built: bool = True
    seconds: float = 0.0
    closable: int = 0
    slots: int = 0
    unknown: int = 0
    untouched: tuple[Untouched, ...] = ()
    classes: tuple[str, ...] = ()
    no_family: tuple[str, ...] = ()
    not_built: dict[str, str] = field(default_factory=dict)
    explained: dict[str, str] = field(default_factory=dict)

    @property
    def wrong(self) -> tuple[Difference, ...]:
        """Where the table promises what the numbers refute."""
        return tuple(difference for difference in self.differences if difference.kind == "wrong")

    @property
    def open(self) -> bool:
        """Whether something is left that a person must look at.

        That is what is wrong; and at a default or published config what was not seen, or not checked, for no known
        reason. A made-up change of the config may well prove nothing.
        """
        if self.wrong or (self.case.changes and not self.case.checkpoint):
            return bool(self.wrong)
        unseen = any(difference.kind == "unseen" for difference in self.differences)
        return unseen or bool(self.problem and not self.reason)

    def plain(self) -> dict[str, Any]:
        """As JSON values; `changes` is empty at the default config."""
        rest = {key: value for key, value in asdict(self).items() if key != "case"}
        return {**asdict(self.case), **rest}


def sweep(
    cases: Iterable[Case], jobs: int = 1, timeout: float = TIMEOUT, seeds: Sequence[int] = (0,)
) -> Iterator[Swept]:
    """Check cases, each in a process of its own, so that none stops the others; in the order they end.

    Args:
        cases: of model types of the installed transformers; taken one by one, as processes come free.
        jobs: processes at a time.
        timeout: seconds for one case.
        seeds: of weights, inputs and moves; a verdict must hold on all.
    """
    waiting = iter(cases)
    first = list(itertools.islice(waiting, _FEW + 1))
    waiting = itertools.chain(first, waiting)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _warm(_COMMON if len(first) > _FEW else ())
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    running: dict[Any, tuple[Case, Any, float]] = {}
    while True:
        for case in itertools.islice(waiting, max(1, jobs) - len(running)):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(case, tuple(seeds), theirs), daemon=True)
            process.start()
            theirs.close()
            running[ours] = (case, process, time.monotonic())
        if not running:
            return
        ready = wait(list(running), timeout=1.0)
        for pipe in list(running):
            case, process, start = running[pipe]
            spent = time.monotonic() - start
            if pipe not in ready and spent < timeout:
                continue
            yield _result(pipe, pipe in ready, case, spent, process)
            pipe.close()
            del running[pipe]


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


def _work(case: Case, seeds: tuple[int, ...], pipe: Connection) -> None:
    from transformers.utils import logging

    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    start = time.monotonic()
    changes = {change.key: change.value for change in case.changes}
    try:
        found = check_type(case.model_type, seeds, changes, bool(case.checkpoint))
        swept = Swept(case, **vars(found))
    except NotBuiltError as error:
        swept = Swept(case, problem=_line(error.what), built=False)
    except Exception as error:  # whatever goes wrong inside a model is told, and the sweep goes on
        swept = Swept(case, problem=_line(f"{type(error).__name__}: {error}"))
    if not case.changes:
        swept = _with_classes(swept)
    swept = replace(swept, reason=reason_of("unchecked", {"model_type": case.model_type}, "", swept.problem))
    pipe.send({**vars(swept), "seconds": time.monotonic() - start})
    pipe.close()


def _with_classes(swept: Swept) -> Swept:
    """The same with what becomes of the type's other classes."""
    try:
        saved = check_saved(swept.case.model_type)
    except NotBuiltError:  # the check of the type has said it
        return swept
    except Exception as error:  # as above
        return replace(swept, problem=_line(f"{type(error).__name__}: {error}"))
    return replace(
        swept,
        differences=(*swept.differences, *saved.differences),
        classes=tuple(sorted(saved.compared)),
        no_family=tuple(sorted(saved.no_family)),
        not_built={name: _line(problem) for name, problem in saved.not_built.items()},
        explained={**swept.explained, **saved.explained},
    )


def _line(text: str) -> str:
    return " ".join(text.split())[:300]


def _result(pipe: Connection, ready: bool, case: Case, spent: float, process: Any) -> Swept:
    """The result that a process sent, or why none came. Waits until the process has ended."""
    try:
        swept = (
            Swept(**pipe.recv()) if ready else Swept(case, problem=f"not finished after {spent:.0f} s", seconds=spent)
        )
    except EOFError:
        process.join()
        swept = Swept(case, problem=f"its process died (exit code {process.exitcode})", seconds=spent)
    if not ready:
        process.kill()
    process.join()
    return swept
