"""`hf-bias-patch study`: the paper's experiments on the user's own checkpoint; and `study compare`, several of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from hf_bias_patch.cli.options import Model, read_texts
from hf_bias_patch.cli.words import ANY_WORD, ModelByName
from hf_bias_patch.errors import ArgumentError

if TYPE_CHECKING:
    from hf_bias_patch.studies.run import StudyResult

__all__ = ["compare", "studies", "study"]

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def _about(panel: str, text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


_WHAT = partial(_about, "What is measured")
_TASKS = partial(_about, "Scores on tasks")
_HOW = partial(_about, "How")


def study(
    model: Model,
    output: Annotated[Path, typer.Option(help="Folder for the results.", metavar="DIR")],
    texts: Annotated[
        Path | None,
        _WHAT("A file of texts to run on, one a line.", metavar="FILE", show_default="embedded texts"),
    ] = None,
    count: Annotated[int, _WHAT("Number of embedded texts, of 20 to 100 words each.", min=1)] = 64,
    heads: Annotated[bool, _WHAT("Also change one head at a time: many more measurements.", "--heads")] = False,
    loss_bound: Annotated[float, _WHAT("How much loss a removal may cost, in nats a token.", min=0.0)] = 0.01,
    train_steps: Annotated[
        int, _WHAT("Steps of AdamW in the experiments that train on the texts; 0 leaves them out.", min=0)
    ] = 40,
    task: Annotated[
        str,
        _TASKS("Also score on tasks with each bias removed, such as sst2,wikitext-2,FILE.yaml.", metavar="NAMES"),
    ] = "",
    files: Annotated[str, _TASKS("Local files of a task: TASK:SPLIT=PATH,…", metavar="FILES")] = "",
    fine_tune: Annotated[bool, _TASKS("Also fine-tune on each task with each bias removed.", "--fine-tune")] = False,
    from_scratch: Annotated[
        bool,
        _TASKS(
            "Train from random weights instead; of MODEL only config and tokenizer are used.",
            "--from-scratch",
        ),
    ] = False,
    seeds: Annotated[int, _TASKS("Training runs of each kind, with different seeds.", min=1)] = 3,
    max_train_samples: Annotated[int | None, _TASKS("Train on N samples, drawn by the seed.", min=1)] = None,
    max_eval_samples: Annotated[int | None, _TASKS("Score on the first N samples.", min=1)] = None,
    epochs: Annotated[float | None, _TASKS("Passes over the training data.", show_default="3")] = None,
    learning_rate: Annotated[
        float | None, _TASKS("Peak learning rate of AdamW.", show_default="5e-5; from scratch 1e-3")
    ] = None,
    budget: Annotated[str | None, _HOW("Start no measurement after this time: 90s, 10m, 2h.", metavar="TIME")] = None,
    resume: Annotated[bool, _HOW("Continue a study that was stopped, or add to one.", "--resume")] = False,
    overwrite: Annotated[bool, _HOW("Replace an existing study.", "--overwrite")] = False,
    dtype: Annotated[str, _HOW("Data type of the model: float32, bfloat16, float16 or float64.")] = "float32",
    device: Annotated[str | None, _HOW("Such as cpu or cuda:1.", show_default="a GPU if there is one")] = None,
    seed: Annotated[int, _HOW("Seed of random biases and of masking.", min=0)] = 0,
    batch_tokens: Annotated[int, _HOW("Tokens in a batch.", min=16)] = 1024,
) -> None:
    """Change each attention bias in several ways, and measure what that does to hidden states, predictions and loss."""
    from hf_bias_patch.cli.console import CountBar, stderr
    from hf_bias_patch.studies.run import study as make_study
    from hf_bias_patch.studies.settings import StudySettings

    settings = StudySettings(
        model=model,
        texts=tuple(read_texts(texts) or ()),
        count=count,
        heads=heads,
        dtype=dtype,
        seed=seed,
        batch_tokens=batch_tokens,
        train_steps=train_steps,
        loss_bound=loss_bound,
        budget=None if budget is None else _seconds(budget),
        tasks=tuple(name.strip() for name in task.split(",") if name.strip()),
        files=_files(files),
        fine_tune=fine_tune,
        from_scratch=from_scratch,
        seeds=seeds,
        task_options=_given(
            max_train_samples=max_train_samples,
            max_eval_samples=max_eval_samples,
            num_train_epochs=epochs,
            learning_rate=learning_rate,
        ),
        **_given(device=device),
    )
    try:
        with CountBar() as bar:
            made = make_study(settings, output, resume=resume, overwrite=overwrite, progress=bar.show)
    except KeyboardInterrupt:
        if (output / "measured.jsonl").exists():
            stderr().print("Stopped. What was measured is kept; continue with --resume.")
        raise
    if made is not None:  # else this is not the main process
        _print_study(made, output)


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Folders of studies, two or more.", metavar="DIR")],
    output: Annotated[
        Path | None, typer.Option(help="Folder for the table, a page and a figure.", metavar="DIR", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing comparison.")] = False,
) -> None:
    """Put studies of several models side by side: what each bias does, and how much can be removed."""
    from hf_bias_patch.cli.console import stdout
    from hf_bias_patch.cli.study_tables import comparison_table, scores_table
    from hf_bias_patch.studies.comparison import compare_studies

    found = compare_studies(folders, output, overwrite=overwrite)
    stdout().print(comparison_table(found.table))
    if found.scores:
        stdout().print(scores_table({name: study.scores for name, study in found.studies.items()}))
    _print_end(found.summary, output, found.files, found.missing)


def _print_study(made: StudyResult, out: Path) -> None:
    from hf_bias_patch.cli.console import stdout
    from hf_bias_patch.cli.study_tables import arms_table, scores_table
    from hf_bias_patch.studies.summaries.single_study import summary

    if made.study.rows:
        stdout().print(arms_table(made.study))
    if made.study.scores:
        stdout().print(scores_table({made.study.settings.model: made.study.scores}))
    _print_end(summary(made.study), out, made.files, made.missing)


def _print_end(sentences: Sequence[str], out: Path | None, files: Sequence[str], missing: Sequence[str]) -> None:
    from hf_bias_patch.cli.console import stderr, stdout, strong

    for line in sentences:
        stdout().print(line, markup=False)
    for line in missing:
        stderr().print(line, markup=False)
    if files:
        stdout().print(f"Written: {strong(out)} ({', '.join(files)})")


class _StudyGroup(TyperGroup):
    """Is `study` itself unless the first word is `compare`: so usage, help and errors are those of `study`."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """See `click.Command.make_context`."""
        if args and args[0] == "compare":
            return super().make_context(info_name, args, parent, **extra)
        return self.commands["MODEL"].make_context(info_name, args, parent, **extra)


studies = typer.Typer(cls=_StudyGroup, help=study.__doc__, add_completion=False)
studies.command(
    "MODEL",
    cls=ModelByName,
    context_settings=ANY_WORD,
    epilog="`hf-bias-patch study compare DIR1 DIR2 …` puts studies of several models side by side; its options: "
    "`hf-bias-patch study compare --help`. A model in a folder named compare is ./compare.",
)(study)
studies.command("compare", context_settings=ANY_WORD)(compare)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None:
        raise ArgumentError(f"--budget {text} is not a time", remedy="Write 90s, 10m or 2h")
    return float(match[1]) * _UNITS[match[2]]


def _files(text: str) -> dict[str, dict[str, str]]:
    from hf_bias_patch.tuning.settings import as_files

    try:
        return as_files(text)
    except ValueError as error:
        raise ArgumentError(f"--files: {error}", remedy="Write --files sst2:train=PATH,sst2:validation=PATH") from None


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
