"""`hf-bias-patch evaluate`: the scores of a model on a task, without training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hf_bias_patch.cli.options import AsJson, Model

if TYPE_CHECKING:
    from hf_bias_patch.scoring.data import Split
    from hf_bias_patch.scoring.score import Scores, ScoringOptions
    from hf_bias_patch.scoring.tasks import GenerationOptions, Task
    from hf_bias_patch.scoring.windows import Masked

__all__ = ["evaluate"]

Dtype = Literal["float32", "bfloat16", "float16"]


def _number(name: str, text: str, least: int | None = None) -> Any:
    """An option in both spellings, `--batch-tokens` and `--batch_tokens`."""
    return typer.Option(f"--{name}", f"--{name.replace('-', '_')}", help=text, min=least)


def evaluate(
    model: Model,
    task: Annotated[
        str, typer.Option("--task", "--task_name", help="A task's name (a wrong one lists all), or a YAML file of one.")
    ],
    split: Annotated[
        str | None,
        typer.Option(help="Of the task's splits.", show_default="what --file is called after, else validation"),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Read this file or folder instead of the Hub.", metavar="PATH")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Only the first so many rows; of generation, questions.", min=1)
    ] = None,
    skip_bad_rows: Annotated[
        bool,
        typer.Option("--skip-bad-rows", "--skip_bad_rows", help="Leave out and list rows that cannot be read."),
    ] = False,
    batch_tokens: Annotated[int, _number("batch-tokens", "Tokens in a batch, padding included.", 1)] = 4096,
    max_length: Annotated[int | None, _number("max-length", "Tokens that an input may have.", 4)] = None,
    stride: Annotated[int | None, _number("stride", "Language modelling: tokens that each window scores.", 1)] = None,
    masked: Annotated[
        str, typer.Option(help="Masked language models: share of tokens masked at once, or `each`, one at a time.")
    ] = "0.15",
    num_beams: Annotated[int | None, _number("num-beams", "Generation: beams.", 1)] = None,
    max_new_tokens: Annotated[int | None, _number("max-new-tokens", "Generation: longest answer.", 1)] = None,
    min_new_tokens: Annotated[int | None, _number("min-new-tokens", "Generation: shortest answer.", 0)] = None,
    length_penalty: Annotated[
        float | None, _number("length-penalty", "Generation: above 0 favours long beams.")
    ] = None,
    no_repeat_ngram_size: Annotated[
        int | None, _number("no-repeat-ngram-size", "Generation: no n-gram of this size twice.", 0)
    ] = None,
    early_stopping: Annotated[
        Literal["true", "false", "never"] | None,
        _number("early-stopping", "Generation: whether a beam search ends with the first answers that are whole."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Such as cpu or cuda.", show_default="a GPU if there is one")
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="To compute in.")] = "float32",
    predict: Annotated[
        Path | None,
        typer.Option(help="Write predictions into this folder; without --file and --split, the GLUE server's files."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on a task, without training it."""
    from hf_bias_patch.scoring.evaluate import Asked, read_asked
    from hf_bias_patch.scoring.score import ScoringOptions
    from hf_bias_patch.scoring.tasks import load_task

    asked = load_task(task)
    decode = _decode(
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        length_penalty=length_penalty,
        no_repeat_ngram_size=no_repeat_ngram_size,
        early_stopping=early_stopping,
    )
    options = ScoringOptions(batch_tokens, max_length, stride, _masked(masked), decode)
    # All data first: it costs seconds and may be refused, where a large model takes minutes to load.
    splits = read_asked(Asked(asked, split, file, limit, predict is not None, skip_bad_rows))
    found = _answer(model, asked, splits, options, predict, device, dtype)
    if as_json:
        from hf_bias_patch.scoring.loading import scored

        of = {"model": scored(model)}
        plain = [of | _plain(scores, name, splits[name], written) for name, (scores, written) in found.items()]
        typer.echo(json.dumps(plain[0] if len(plain) == 1 else plain, indent=2, ensure_ascii=False, allow_nan=False))
        return
    for name, (scores, written) in found.items():
        _print(model, asked, name, splits[name], scores, written)


def _answer(
    model: str,
    task: Task,
    splits: dict[str, Split],
    options: ScoringOptions,
    predict: Path | None,
    device: str | None,
    dtype: str,
) -> dict[str, tuple[Scores | None, Path | None]]:
    """Split → scores, where its labels are known, and the file of predictions, where one was asked for."""
    from hf_bias_patch.cli.console import stderr
    from hf_bias_patch.scoring.labels import decide
    from hf_bias_patch.scoring.loading import load_scorable
    from hf_bias_patch.scoring.score import answers, score
    from hf_bias_patch.scoring.submission import write_predictions

    found: dict[str, tuple[Scores | None, Path | None]] = {}
    with stderr().status(f"loading {model}") as status:
        loaded, tokenizer = load_scorable(model, task.kind, device=device, dtype=dtype)
        for split, read in splits.items():
            dataset = read.dataset
            status.update(f"{task.name}, {split}: {len(dataset):,} rows")
            given = answers(loaded, tokenizer, task, dataset, options)
            if given.encoded.truncated:
                stderr().print(f"{task.name}, {split}: {given.encoded}", markup=False)
            known = task.kind == "language_modelling" or {"label", "references"} & set(dataset.column_names)
            scores = score(task, given, dataset, options) if known else None
            written = None
            if predict is not None:
                decided = scores.predictions if scores else decide(task, list(given.predictions.values()))
                written = write_predictions(task, split, decided, predict)
            found[split] = (scores, written)
    return found


def _decode(**given: Any) -> GenerationOptions:
    """The settings of generation that are given; the others are the task's, or the model's own."""
    from pydantic import ValidationError

    from hf_bias_patch.errors import TaskError
    from hf_bias_patch.patching.wording import problems
    from hf_bias_patch.scoring.tasks import GenerationOptions
    from hf_bias_patch.scoring.tasks import early_stopping as stopping

    try:
        return GenerationOptions(**given | {"early_stopping": stopping(given["early_stopping"])})
    except ValidationError as error:
        raise TaskError("; ".join(problems(error))) from None


def _masked(text: str) -> Masked:
    from hf_bias_patch.errors import TaskError
    from hf_bias_patch.scoring.windows import EACH

    if text == EACH:
        return EACH
    try:
        return float(text)
    except ValueError:
        raise TaskError(f"--masked {text} is no share of the tokens", remedy="Write 0.15 or each") from None


def _plain(scores: Scores | None, name: str, split: Split, written: Path | None) -> dict[str, Any]:
    """JSON values; JSON has no infinity, which a perplexity can be."""
    plain: dict[str, Any] = {"split": name, **(scores.plain() if scores else {}), "data": split.identity.plain()}
    plain["notes"] = [*(scores.notes if scores else ()), *split.notes]
    if scores:
        plain["metrics"] = {n: v if math.isfinite(v) else str(v) for n, v in scores.metrics.items()}
    return plain | ({"predictions": str(written)} if written else {})


def _print(model: str, task: Task, name: str, split: Split, scores: Scores | None, written: Path | None) -> None:
    from hf_bias_patch.cli.console import stdout, table

    rows = len(split.dataset)
    if scores is None:
        stdout().print(f"{model} on {task.name}, {name}: {rows:,} rows predicted.", markup=False)
    else:
        stdout().print(f"{model} on {task.name} (version {task.version}), {name}: {rows:,} rows\n", markup=False)
        shown = table("metric", "value", "what", numbers=("value",))
        for metric, value in scores.metrics.items():
            what = _what(metric, task)
            shown.add_row(f"[bold]{metric}[/]" if metric == scores.main_metric else metric, f"{value:.4g}", what)
        stdout().print(shown)
    stdout().print(f"Data: {split.identity}", markup=False, soft_wrap=True)
    for note in (*(scores.notes if scores else ()), *split.notes):
        stdout().print(note if note.startswith(" ") else f"Note: {note}", markup=False, soft_wrap=True)
    if written is not None:
        stdout().print(f"Predictions written: {written}", markup=False, soft_wrap=True)


def _what(metric: str, task: Task) -> str:
    """A score in words."""
    from hf_bias_patch.scoring.metric_info import MEAN, METRICS

    if metric == MEAN:
        return "mean of the metrics"
    if task.kind == "classification" and metric == "loss":
        return "mean negative log-likelihood of the right label, in nats"
    return METRICS[metric].what
