"""`hf-bias-patch evaluate`: the scores of a model on a task, without training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from hf_bias_patch.cli.options import AsJson, Model
from hf_bias_patch.cli.settings import command_of, options_of
from hf_bias_patch.cli.words import ModelByName

if TYPE_CHECKING:
    from hf_bias_patch.scoring.evaluate import Evaluation
    from hf_bias_patch.scoring.tasks import Task

__all__ = ["command"]


def command() -> Any:
    """The command `hf-bias-patch evaluate`."""
    from hf_bias_patch.scoring.evaluate import EvaluateSettings

    options = options_of(EvaluateSettings, _evaluate, without=("model_name_or_path",))
    return command_of("evaluate", options, ModelByName)


def _evaluate(fields: Mapping[str, Any], model: Model, as_json: AsJson = False) -> None:
    """Score a model on a task, without training it."""
    from hf_bias_patch.cli.console import stderr
    from hf_bias_patch.scoring.evaluate import EvaluateSettings, evaluate, evaluations_as_json
    from hf_bias_patch.tuning.settings import make_settings

    settings = make_settings(EvaluateSettings, **{**fields, "model_name_or_path": model})
    with stderr().status("starting") as status:
        found = evaluate(settings, status.update)
    for each in found:
        if each.truncated:
            stderr().print(f"{each.task.name}, {each.split}: {each.truncated}", markup=False)
    if as_json:
        plain = evaluations_as_json(settings, found)
        typer.echo(json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False))
        return
    for each in found:
        _print(model, each)


def _print(model: str, found: Evaluation) -> None:
    from hf_bias_patch.cli.console import stdout, table

    task, scores, rows = found.task, found.scores, len(found.data.dataset)
    if scores is None:
        stdout().print(f"{model} on {task.name}, {found.split}: {rows:,} rows predicted.", markup=False)
    else:
        stdout().print(f"{model} on {task.name} (version {task.version}), {found.split}: {rows:,} rows\n", markup=False)
        shown = table("metric", "value", "what", numbers=("value",))
        for metric, value in scores.metrics.items():
            what = _what(metric, task)
            shown.add_row(f"[bold]{metric}[/]" if metric == scores.main_metric else metric, f"{value:.4g}", what)
        stdout().print(shown)
    stdout().print(f"Data: {found.data.identity}", markup=False, soft_wrap=True)
    for note in found.notes:
        stdout().print(note if note.startswith(" ") else f"Note: {note}", markup=False, soft_wrap=True)
    if found.predictions is not None:
        stdout().print(f"Predictions written: {found.predictions}", markup=False, soft_wrap=True)


def _what(metric: str, task: Task) -> str:
    """A score in words."""
    from hf_bias_patch.scoring.metric_info import MEAN, METRICS

    if metric == MEAN:
        return "mean of the metrics"
    if task.kind == "classification" and metric == "loss":
        return "mean negative log-likelihood of the right label, in nats"
    return METRICS[metric].what
