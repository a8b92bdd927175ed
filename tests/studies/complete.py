"""Hand-made studies: one with every experiment, and names that would be tags if they were not made safe."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

from hf_bias_patch.studies.biases.fills import FILLS
from hf_bias_patch.studies.records import (
    ArmRecord,
    DriftRecord,
    FoldRecord,
    ScoreRecord,
    SingleBiasRecord,
    StepRecord,
    Study,
)
from hf_bias_patch.studies.settings import StudySettings

HOSTILE = "</script><script>document.title='taken'</script><b>\"&'\u2028"
PLACES = ("encoder self", "decoder self", "decoder cross")
SIZES = {"query": 0.05, "key": 2e-7, "value": 0.09}
VERDICTS = {"query": "foldable", "key": "redundant", "value": "foldable"}
FLOOR = {
    "largest": 2e-6, "distance": 3e-6, "relative": 2e-7, "cosine": 1.0, "kl": 8e-10, "agreement": 1.0, "loss": 2.0,
    "loss_change": 1e-8, "perplexity": 7.39,
}  # fmt: skip


def figures(relative: float, loss: float = 2.0) -> dict[str, float]:
    """Of an arm."""
    return {
        "largest": 5 * relative, "distance": 12 * relative, "relative": relative, "cosine": 1 - relative**2 / 2,
        "kl": relative**2, "agreement": max(0.0, 1 - relative), "loss": loss, "loss_change": loss - 2.0,
        "perplexity": math.exp(loss),
    }  # fmt: skip


def rows(layers: int = 6, heads: int = 4, sizes: dict[str, float] = SIZES) -> Iterator[ArmRecord]:
    """Arms of every stage."""
    for number, fill in enumerate(FILLS):
        for place in PLACES:
            for name, size in sizes.items():
                change = size * (1 + number) ** (name != "key")
                found = figures(change, 2.0 + change / 10)
                verdict = VERDICTS[name]
                yield ArmRecord(f"{place}, {name}, {fill}", "whole", place, name, fill, None, None, 64, verdict, found)
    for layer in range(layers):
        for place in PLACES:
            for name, size in sizes.items():
                change = figures(size / (1 + layer), 2.0 + size / 50)
                told = f"{place}, {name}, layer {layer}, zeros"
                yield ArmRecord(told, "layer", place, name, "zeros", layer, None, 16, VERDICTS[name], change)
    for step in range(1, 11):
        cost = figures(0.02 * step, 2.0 + 0.0003 * step**2 - 0.001)
        yield ArmRecord(f"removal of {step}", "removal", "", "", "zeros", None, None, 80 * step, "", cost)
    for layer in range(layers):
        for head in range(heads):
            for name in ("value", "query"):
                change = figures(sizes[name] / (2 + layer + head))
                told = f"{PLACES[1]}, {name}, layer {layer}, head {head}, zeros"
                yield ArmRecord(told, "head", PLACES[1], name, "zeros", layer, head, 4, VERDICTS[name], change)


def _folds() -> Iterator[FoldRecord]:
    for place in PLACES:
        for name in SIZES:
            refused = "the map is also applied to other inputs than the norm's output" if place == PLACES[2] else ""
            yield FoldRecord(place, name, 64, refused, 0.0 if refused else 2.4e-7)


def _steps() -> Iterator[StepRecord]:
    sizes = {"gradient": 1e-2, "AdamW": 3.0, "random signs": 0.7}
    for place in PLACES:
        for name, size in SIZES.items():
            for direction, times in sizes.items():
                small = 1e-15 if name == "key" else 1.0
                gradient = 0.0 if direction == "random signs" else 0.02 * small
                yield StepRecord(place, name, 64, direction, gradient, size * times * small, -size * times * small / 7)


def _lessons() -> Iterator[SingleBiasRecord]:
    gains = {"query": 0.1, "key": 0.0, "value": 0.3}
    rate = 1e-2
    for name, gain in gains.items():
        for step in range(0, 101, 10):
            gained = gain * (1 - math.exp(-step * rate * 4))
            yield SingleBiasRecord(name, 192, rate, step, 1.9 - 1.2 * gained, 2.0 - gained, gained / 3)


def _drifts() -> Iterator[DriftRecord]:
    for precision, times in (("float32", 1.0), ("bfloat16 mixed", 1.1), ("bfloat16", 0.02)):
        for place in PLACES:
            for name, size in SIZES.items():
                moved = times * {"query": 0.2, "key": 0.3, "value": 0.1}[name]
                yield DriftRecord(
                    precision, place, name, 64, 1e-4, 0.01, 200, size, moved, 1.5, 0.003, 0.4, size * times / 3
                )


def _scores() -> Iterator[ScoreRecord]:
    lost = {"nothing": 0.0, "query": 0.01, "key": 0.0, "value": 0.04}
    for name, loss in lost.items():
        yield ScoreRecord("embedded:opinion", "accuracy", True, "as it is", name, None, 0.91 - 4 * loss)
        for seed in range(3):
            off = 0.004 * (seed - 1)
            yield ScoreRecord("embedded:opinion", "accuracy", True, "fine-tuned", name, seed, 0.93 - loss + off)
            yield ScoreRecord(
                "embedded:lm", "perplexity", False, "from scratch", name, seed, 12.0 + 20 * loss + off * 20
            )


def complete(model: str = "owner/a-model", **changed: object) -> Study:
    """A study with every experiment."""
    given = {
        "settings": StudySettings(model, heads=True),
        "model_type": "bart", "commit": "0123456789abcdef" * 2, "floor": FLOOR,
        "rows": tuple(rows()), "left_out": (), "texts": 64, "tokens": 3700, "truncated": 0,
        "notes": ("Layers before a change were not run again.",), "folds": tuple(_folds()), "steps": tuple(_steps()),
        "lessons": tuple(_lessons()), "drifts": tuple(_drifts()), "scores": tuple(_scores()),
    }  # fmt: skip
    return Study(**{**given, **changed})  # type: ignore[arg-type]


def environment_in(folder: Path) -> Path:
    """A folder with what a run leaves beside its results."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {"hf_bias_patch": "0.1.0", "python": "3.11.7", "packages": {"torch": "2.13.0", "transformers": "5.0.0"}}
    (folder / "environment.json").write_text(json.dumps(found), "utf-8")
    return folder
