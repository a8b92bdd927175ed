"""A study from a model's name to a folder of results: measured in the order in which they tell most, and resumable."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hf_bias_patch.checkpoint.source import Source, resolve
from hf_bias_patch.errors import PlanError, SourceError
from hf_bias_patch.evidence.models import load_model, load_tokenizer
from hf_bias_patch.scoring.extra import need
from hf_bias_patch.scoring.forms import form_of_class
from hf_bias_patch.study.arms import Arm, Target, head_arms, layer_arms, removal_arms, whole_arms
from hf_bias_patch.study.fills import FILLS
from hf_bias_patch.study.found import Row, Study
from hf_bias_patch.study.inputs import make_inputs
from hf_bias_patch.study.perturb import Bench
from hf_bias_patch.study.settings import DTYPES, Settings
from hf_bias_patch.study.texts import embedded_texts
from hf_bias_patch.tuning.folder import RunFolder, environment, open_folder

__all__ = ["study"]

_AT_ONCE = 24
"""Arms that are measured in one pass over the texts: what is interrupted costs no more than these."""

Step = Callable[[int, int, str], None]


def study(
    settings: Settings, out: Path, *, resume: bool = False, overwrite: bool = False, step: Step = lambda *_: None
) -> Study:
    """Measure what each attention bias does.

    Args:
        settings: what is asked for.
        out: the folder; each arm is kept there as soon as it is measured (`arms.jsonl`).
        resume: go on with a study of the same settings.
        overwrite: begin anew where there is one.
        step: called with arms done, arms known of, and what is running.

    Raises:
        SourceError: the model leads nowhere, or has no tokenizer.
        FamilyError: no family knows it.
        PlanError: it has no query, key or value biases.
        TargetError: `out` holds something else, or a study of other settings.
    """
    need("torch")
    started = time.monotonic()
    source = resolve(settings.model)
    bench = _bench(source, settings)
    folder = open_folder(out, settings.identity(), resume=resume, overwrite=overwrite)
    folder.write("environment.json", environment(settings.device, 1, settings.dtype))
    kept = _Kept(folder)
    if kept.floor is None:
        kept.add_floor(bench.floor())
    left_out: list[str] = []
    for arms in _stages(bench, kept, settings):
        todo = [arm for arm in arms if arm.name not in kept.rows]
        for start in range(0, len(todo), _AT_ONCE):
            if settings.budget is not None and time.monotonic() - started > settings.budget:
                left_out += [arm.name for arm in todo[start:]]
                break
            some = todo[start : start + _AT_ONCE]
            step(len(kept.rows), len(kept.rows) + len(todo) - start, some[0].name)
            for arm, figures in zip(some, bench.measure(some), strict=True):
                kept.add(_row(bench, arm, figures))
    assert kept.floor is not None
    return Study(
        settings,
        str(bench.model.config.model_type),
        source.revision,
        kept.floor,
        tuple(kept.rows.values()),
        tuple(left_out),
        len(bench.inputs.rows),
        sum(map(len, bench.inputs.rows)),
        bench.inputs.truncated,
        tuple(bench.notes),
    )


class _Kept:
    """What was measured so far, in a file that grows by a line an arm."""

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.path / "arms.jsonl"
        self.rows: dict[str, Row] = {}
        self.floor: dict[str, float] | None = None
        lines = self._path.read_text("utf-8").splitlines(keepends=True) if self._path.exists() else []
        whole = [line for line in lines if line.endswith("}\n")]  # the last one may have been cut
        for line in whole:
            found = json.loads(line)
            if found["name"]:
                self.rows[found["name"]] = Row(**found)
            else:
                self.floor = found["figures"]
        if len(whole) < len(lines):
            self._path.write_text("".join(whole), "utf-8")

    def add(self, row: Row) -> None:
        self.rows[row.name] = row
        self._append(asdict(row))

    def add_floor(self, figures: dict[str, float]) -> None:
        self.floor = figures
        self._append({"name": "", "figures": figures})

    def _append(self, value: Any) -> None:
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(value) + "\n")


def _bench(source: Source, settings: Settings) -> Bench:
    loaded = load_model(source, DTYPES[settings.dtype], "sdpa")
    tokenizer = load_tokenizer(source)
    if tokenizer is None:
        raise SourceError(f"{source.name} has no tokenizer that can be loaded", why="A study runs on texts")
    model = loaded.model.to(settings.device)
    form = form_of_class(type(model).__name__)
    texts = settings.texts or embedded_texts(settings.count)
    inputs = make_inputs(texts, tokenizer, model, form if not loaded.report else None, settings.seed)
    bench = Bench(model, inputs, settings.seed, settings.batch_tokens)
    if loaded.report:
        bench.notes.append(f"States only, no loss: the checkpoint lacks parts of its head ({loaded.report[0]}).")
    if not any(whole_arms(list(bench.biases.sites.values()), ["zeros"])):
        raise PlanError(
            f"{source.name} has no query, key or value biases",
            why="There is nothing to take away",
            remedy="`hf-bias-patch inspect` shows what it has; a norm's or an output map's bias is not part of a study",
        )
    return bench


def _stages(bench: Bench, kept: _Kept, settings: Settings) -> Iterator[list[Arm]]:
    """All arms in groups, those that tell most first; an order that depends on results is made when they are there."""
    sites = list(bench.biases.sites.values())
    yield list(whole_arms(sites, FILLS))
    layers = list(layer_arms(sites))
    yield layers
    if all(arm.name in kept.rows for arm in layers):
        yield list(removal_arms(_by_effect(layers, kept)))
    if settings.heads:
        yield list(head_arms(sites, ("value", "query")))


def _by_effect(arms: Sequence[Arm], kept: _Kept) -> list[Target]:
    """What single removals changed, least first."""

    def effect(arm: Arm) -> float:
        figures = kept.rows[arm.name].figures
        return abs(figures["loss_change"]) if "loss_change" in figures else figures["relative"]

    return [arm.targets[0] for arm in sorted(arms, key=effect)]


def _row(bench: Bench, arm: Arm, figures: dict[str, float]) -> Row:
    slots = [bench.biases.sites[target.site].slots[target.projection] for target in arm.targets]
    verdicts = {slot.verdict.state for slot in slots}
    numbers = sum(bench.biases.numbers(target) for target in arm.targets)
    verdict = verdicts.pop() if len(verdicts) == 1 else ""
    return Row(arm.name, arm.stage, arm.place, arm.projection, arm.fill, arm.layer, arm.head, numbers, verdict, figures)
