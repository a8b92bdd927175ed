"""A census of attention biases: many models on the Hub inspected, without downloading any.

OUT/models.jsonl    a line for each model as soon as it is done: its biases, or why it has none to tell
OUT/census.parquet  a row for each bias of each model
OUT/census.png      how large the key biases are, by family
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hf_bias_patch.attention.inspect import Inspection, inspect
from hf_bias_patch.checkpoint.hub_errors import hub_error
from hf_bias_patch.errors import BiasPatchError, SourceError, TargetError, UnreachableError

__all__ = ["Entry", "census", "find_models", "read_entries", "read_ids"]

_DONE = "models.jsonl"


@dataclass(frozen=True)
class Entry:
    """What became of one model.

    Attributes:
        model: its Hub id.
        commit: that was looked at; empty where none could be.
        model_type, family: empty likewise.
        parameters, nbytes: of the checkpoint.
        received: bytes that came over the network.
        biases: a dict for each: site, projection, verdict, reason, dtype, parameters, norm.
        problem: why there is nothing to tell; empty if there is no problem.
        passes: whether the problem may pass (a Hub that could not be reached), so that the next census asks again.
    """

    model: str
    commit: str = ""
    model_type: str = ""
    family: str = ""
    parameters: int = 0
    nbytes: int = 0
    received: int = 0
    biases: tuple[dict[str, Any], ...] = ()
    problem: str = ""
    passes: bool = False


def census(ids: Iterable[str], out: Path, *, jobs: int = 8) -> Iterator[Entry]:
    """Inspect models, several at once, each kept in `out` when it is done; those that are there are not asked again.

    Args:
        ids: Hub ids, `owner/name` or `owner/name@REVISION`; what stands twice is asked for once.
        out: a folder, made if need be.
        jobs: models under way together.

    Yields:
        Every model's entry: first those that were there, then the others as they come.

    Raises:
        TargetError: `out` cannot be written, or holds something else.
    """
    wanted = list(dict.fromkeys(ids))
    there = {entry.model: entry for entry in read_entries(out) if not entry.passes}
    yield from (there[name] for name in wanted if name in there)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with (out / _DONE).open("a", encoding="utf-8") as file, ThreadPoolExecutor(jobs) as pool:
            for entry in _as_done(pool, (name for name in wanted if name not in there), jobs):
                file.write(json.dumps(vars(entry), ensure_ascii=False) + "\n")
                file.flush()
                yield entry
    except OSError as error:
        raise TargetError(f"{out} cannot be written", why=error.strerror or str(error)) from error


def read_entries(out: Path) -> tuple[Entry, ...]:
    """The entries in a folder, the last of each model; a last line that a killed run cut short is left out.

    Raises:
        TargetError: the folder holds a file of that name which is none of ours.
    """
    path = out / _DONE
    if not path.exists():
        return ()
    found: dict[str, Entry] = {}
    lines = path.read_text("utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            fields = json.loads(line)
            entry = Entry(**{**fields, "biases": tuple(fields["biases"])})
        except (ValueError, TypeError, KeyError):
            if number == len(lines) and not line.endswith("\n"):
                break
            raise TargetError(f"Line {number} of {path} is none of a census", remedy="Give another folder") from None
        found[entry.model] = entry
    _mend(path, lines)
    return tuple(found.values())


def read_ids(path: Path) -> list[str]:
    """The ids in a text file, one a line; empty lines and what stands behind `#` do not count.

    Raises:
        SourceError: it cannot be read, or names none.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read", why=str(error)) from error
    ids = [name for line in lines if (name := line.partition("#")[0].strip())]
    if not ids:
        raise SourceError(f"{path} names no models", remedy="Write one Hub id a line")
    return ids


def find_models(author: str | None, search: str | None, limit: int) -> list[str]:
    """The most downloaded models with safetensors files, of an author, or with a text in their name.

    Raises:
        SourceError: the Hub cannot be reached, or there are none.
    """
    import huggingface_hub as hub

    try:
        found = hub.HfApi().list_models(
            author=author, search=search, filter="safetensors", sort="downloads", limit=limit
        )
        ids = [model.id for model in islice(found, limit)]
    except Exception as error:
        raise hub_error(author or search or "", None, error) from error
    if not ids:
        raise SourceError("The Hub has no such models with safetensors files", remedy="Ask for others")
    return ids


def _as_done(pool: ThreadPoolExecutor, names: Iterable[str], jobs: int) -> Iterator[Entry]:
    """Entries as they come; never more models under way than there are threads, so that an end comes soon."""
    left = iter(names)
    running: set[Future[Entry]] = {pool.submit(_entry, name) for name in islice(left, jobs)}
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            running |= {pool.submit(_entry, name) for name in islice(left, 1)}
            yield future.result()


def _entry(name: str) -> Entry:
    try:
        found = inspect(name)
    except BiasPatchError as error:
        return Entry(name, problem=" ".join(str(error).split()), passes=isinstance(error, UnreachableError))
    except Exception as error:  # one of many: what nobody foresaw must not end them all
        return Entry(name, problem=" ".join(f"{type(error).__name__}: {error}".split()))
    return Entry(
        name,
        found.commit or "",
        found.model_type,
        found.family,
        found.parameters,
        found.nbytes,
        found.received,
        tuple(_biases(found)),
    )


def _biases(found: Inspection) -> Iterator[dict[str, Any]]:
    for site in found.sites:
        for projection, slot in site.slots.items():
            if (values := found.values.get((site.name, projection))) is not None:
                yield {
                    "site": site.name,
                    "projection": projection,
                    "verdict": slot.verdict.state,
                    "reason": slot.verdict.reason,
                    "dtype": values.dtype,
                    "parameters": values.parameters,
                    "norm": values.norm if values.not_finite == 0 else None,
                }


def _mend(path: Path, lines: Sequence[str]) -> None:
    """Take off a last line that was cut short, so that the next one does not stand behind it."""
    if lines and not lines[-1].endswith("\n"):
        path.write_text("".join(lines[:-1]), "utf-8")
