"""A survey: the attention biases of many models on the Hub, read without downloading any.

OUT/models.jsonl    a line for each model as soon as it was read: its biases, or why it could not be read
OUT/survey.parquet  a row for each bias of each model
OUT/survey.png      how large the key biases are, by family; only where matplotlib is installed
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from hf_bias_patch.architecture.inspect import inspect
from hf_bias_patch.checkpoint.hub_errors import hub_words
from hf_bias_patch.checkpoint.source import place_name
from hf_bias_patch.errors import BiasPatchError, RecipeError, SourceError, TargetError, UnreachableError
from hf_bias_patch.surveying.record import MODELS, SurveyedModel, dump_model, of_inspection, read_models
from hf_bias_patch.surveying.summary import FamilyCount, by_family, draw, require_parquet, write_parquet

__all__ = ["Survey", "find_models", "read_ids", "survey"]


@dataclass(frozen=True)
class Survey:
    """What a survey found.

    Attributes:
        path: the folder with its files.
        models: those that were asked for.
        families: their biases counted by family, those with most removable parameters first.
        files: names of the files in the folder.
    """

    path: Path
    models: tuple[SurveyedModel, ...]
    families: tuple[FamilyCount, ...]
    files: tuple[str, ...]


def survey(
    out: str | os.PathLike[str],
    *,
    ids: str | os.PathLike[str] | Sequence[str] | None = None,
    author: str | None = None,
    search: str | None = None,
    limit: int = 100,
    jobs: int = 8,
    announce: Callable[[int], None] | None = None,
    progress: Callable[[SurveyedModel], None] | None = None,
) -> Survey:
    """Read the attention biases of many models on the Hub; downloads none, and needs no torch.

    Args:
        out: a folder, made if it is missing. A survey that was stopped there goes on: only models that are missing, and
            those for which the Hub did not answer, are read.
        ids: Hub ids (`owner/name` or `owner/name@REVISION`), or a text file with one a line.
        author: instead of `ids`: the models of a user or organisation.
        search: instead of `ids`: the models with this text in their name.
        limit: with `author` or `search`: how many at most, the most downloaded first.
        jobs: how many are read at once.
        announce: called with the number of models, before any is read.
        progress: called with each model once it was read.

    Raises:
        RecipeError: no models are asked for, or in both ways.
        SourceError: the file of ids cannot be read, or the search finds nothing or fails.
        TargetError: `out` cannot be written, or holds a file that no survey wrote.
        ExtraError: pyarrow is not installed.
    """
    folder = Path(place_name(out))
    require_parquet()  # before hundreds of models are read
    names = list(dict.fromkeys(_names(ids, author, search, limit)))
    if announce is not None:
        announce(len(names))
    models = []
    for model in _read(names, folder, jobs):
        models.append(model)
        if progress is not None:
            progress(model)
    write_parquet(models, folder / "survey.parquet")
    if find_spec("matplotlib"):
        draw(models, folder / "survey.png")
    files = tuple(name for name in (MODELS, "survey.parquet", "survey.png") if (folder / name).is_file())
    return Survey(folder, tuple(models), tuple(by_family(models)), files)


def _names(
    ids: str | os.PathLike[str] | Sequence[str] | None, author: str | None, search: str | None, limit: int
) -> Iterable[str]:
    if ids is not None and (author or search):
        raise RecipeError(
            "Hub ids cannot be combined with a search for models", remedy="Make two surveys into the same folder"
        )
    if ids is not None:
        return read_ids(Path(ids)) if isinstance(ids, str | os.PathLike) else ids
    if not author and not search:
        raise RecipeError(
            "No models are named, and no search is given", remedy="Give ids, an author or a text to search for"
        )
    return find_models(author, search, limit)


def read_ids(path: Path) -> list[str]:
    """The Hub ids in a text file, one a line. Empty lines, and what follows a `#`, are skipped.

    Raises:
        SourceError: the file cannot be read, or lists no id.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read", why=str(error)) from error
    ids = [name for line in lines if (name := line.partition("#")[0].strip())]
    if not ids:
        raise SourceError(f"{path} lists no models", remedy="Write one Hub id a line")
    return ids


def find_models(author: str | None, search: str | None, limit: int) -> list[str]:
    """The most downloaded models on the Hub that have safetensors files, by author or by a text in their name.

    Raises:
        SourceError: the Hub has no such models.
        UnreachableError: the Hub cannot be reached.
    """
    import huggingface_hub as hub

    try:
        found = hub.HfApi().list_models(
            author=author, search=search, filter="safetensors", sort="downloads", limit=limit
        )
        ids = [model.id for model in islice(found, limit)]
    except Exception as error:
        raise UnreachableError(
            f"The Hub cannot be asked for the models of {author or search!r}",
            hub_words(error),
            "Try again where there is a network",
        ) from error
    if not ids:
        raise SourceError("The Hub has no such models with safetensors files", remedy="Ask for others")
    return ids


def _read(names: Sequence[str], out: Path, jobs: int) -> Iterator[SurveyedModel]:
    """Each model: first those that are in `out` already, then the others as they come, each written there at once."""
    there = {model.model: model for model in read_models(out) if not model.passes}
    yield from (there[name] for name in names if name in there)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with (out / MODELS).open("a", encoding="utf-8") as file, ThreadPoolExecutor(jobs) as pool:
            for model in _as_done(pool, (name for name in names if name not in there), jobs):
                file.write(dump_model(model))
                file.flush()
                yield model
    except OSError as error:
        raise TargetError(f"{out} cannot be written", why=error.strerror or str(error)) from error


def _as_done(pool: ThreadPoolExecutor, names: Iterable[str], jobs: int) -> Iterator[SurveyedModel]:
    """Models as they come; never more under way than there are threads, so that an interrupt ends it soon."""
    left = iter(names)
    running: set[Future[SurveyedModel]] = {pool.submit(_one, name) for name in islice(left, jobs)}
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            running |= {pool.submit(_one, name) for name in islice(left, 1)}
            yield future.result()


def _one(name: str) -> SurveyedModel:
    try:
        return of_inspection(name, inspect(name))
    except BiasPatchError as error:
        return SurveyedModel(name, problem=" ".join(str(error).split()), passes=isinstance(error, UnreachableError))
    except Exception as error:  # one of many: what nobody foresaw must not end them all
        return SurveyedModel(name, problem=" ".join(f"{type(error).__name__}: {error}".split()))
