"""One training run from settings to results: data, model, loop, the model as it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_bias_patch.checkpoint.source import absolute_name, resolve
from hf_bias_patch.errors import ExtraError, TuneError
from hf_bias_patch.scoring.encode import check_vocabulary
from hf_bias_patch.scoring.generation import ResolvedGeneration, end_tokens, resolve_generation
from hf_bias_patch.scoring.labels import label_order
from hf_bias_patch.scoring.padding import settle_padding
from hf_bias_patch.scoring.score import ScoringOptions, encode_for
from hf_bias_patch.tuning.folder import RunFolder, check_folder, environment, open_folder
from hf_bias_patch.tuning.loop import Outcome, TrainingLoop
from hf_bias_patch.tuning.memory import peak_bytes
from hf_bias_patch.tuning.prepare import PreparedModel, prepare_model
from hf_bias_patch.tuning.save_model import save_model
from hf_bias_patch.tuning.starting_checkpoint import StartingCheckpoint, starting_checkpoint
from hf_bias_patch.tuning.task_data import TaskData, task_data
from hf_bias_patch.tuning.task_job import TaskJob
from hf_bias_patch.tuning.task_settings import GenerationSettings, TaskSettings
from hf_bias_patch.tuning.training_record import write_adapter_record, write_record
from hf_bias_patch.tuning.watcher import Watcher

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["TuneResult", "tune"]


@dataclass(frozen=True)
class TuneResult:
    """What a run gave.

    Attributes:
        folder: the run folder.
        ended: `done`, `early` or `terminated`.
        metrics: of the best evaluation.
        main: the metric that chose it.
        plain: all of results.json.
        is_main: whether this is the process that speaks.
    """

    folder: Path
    ended: str
    metrics: Mapping[str, float]
    main: str
    plain: Mapping[str, Any]
    is_main: bool


def tune(settings: TaskSettings, watcher: Watcher | None = None) -> TuneResult:
    """Train a checkpoint on a task, on as many processes as Accelerate was started with.

    Args:
        settings: what to do; see `kinds` and `settings.TuneSettings`.
        watcher: is told what happens.

    Returns:
        The results, which are in `results.json` of the run folder too.

    Raises:
        TaskError, DataError: the task or its data cannot be had.
        TuneError: training cannot begin, or cannot go on.
        TargetError: the run folder is another run's.
        SourceError, CheckpointError, FamilyError, RecipeError, PlanError: of the checkpoint and what is asked of it.
    """
    watcher = watcher or Watcher()
    how = {"resume": settings.resume, "overwrite": settings.overwrite}
    check_folder(settings.output_dir, settings.plain(), **how)  # before minutes of loading
    accelerator = _accelerator(settings)
    source = resolve(settings.model_name_or_path)
    data = task_data(settings, source)
    for line in data.notes if accelerator.is_main_process else ():
        watcher.say(line)
    with starting_checkpoint(settings, source, accelerator, watcher) as start:
        return _tune(settings, data, start, accelerator, watcher)


def _tune(
    settings: TaskSettings, data: TaskData, start: StartingCheckpoint, accelerator: Accelerator, watcher: Watcher
) -> TuneResult:
    _seed(settings.seed)
    prepared = prepare_model(settings, start, data.auto_class, data.task)
    prepared = replace(prepared, notes=tuple(_settle(settings, data, prepared)))  # on every process
    for line in prepared.notes if accelerator.is_main_process else ():
        watcher.say(line)
    job = _job(settings, data, prepared.model, accelerator)
    if job.asked is not None and job.asked.truncated and accelerator.is_main_process:
        watcher.say(f"Validation data: {job.asked}")
    folder = _folder(accelerator, settings)  # only now: whatever is refused before loses nothing
    if accelerator.is_main_process:
        folder.write("trained.json", prepared.selection.plain())
        device, precision = accelerator.device.type, accelerator.mixed_precision
        made_by = environment(device, accelerator.num_processes, precision)
        folder.write("environment.json", {**made_by, "source": absolute_name(start.source)})
        if settings.task_name is None:
            folder.write_task(data.task)
        if start.before is not None:
            folder.write_patch(*start.before)
    _seed(settings.seed + 1 + accelerator.process_index)  # each process its own dropout
    loop = TrainingLoop(prepared.model, job, prepared.selection, settings, accelerator, folder, watcher)
    try:
        outcome = loop.run()
    finally:
        watcher.end()
    return _end(settings, data, start, prepared, loop, outcome, folder)


def _settle(settings: TaskSettings, data: TaskData, prepared: PreparedModel) -> list[str]:
    """Have the model's configs and the tokenizer say what is trained with; what a person should know of it."""
    notes = [*prepared.notes]
    if note := settle_padding(prepared.model, data.tokenizer).note:
        notes.append(note)
    if data.task.kind == "generation":
        prepared.model.generation_config.eos_token_id = end_tokens(prepared.model, data.tokenizer)
        notes += _decoding(settings, data, prepared).notes
    return notes


def _decoding(settings: TaskSettings, data: TaskData, prepared: PreparedModel) -> ResolvedGeneration:
    return resolve_generation(prepared.model, data.task, _options(settings, data).decode, data.form)


def _job(settings: TaskSettings, data: TaskData, model: Any, accelerator: Accelerator) -> TaskJob:
    check_vocabulary(data.train, model)
    options = _options(settings, data)
    validation = data.validation
    asked = None if validation is None else encode_for(model, data.tokenizer, data.task, validation, options)
    order, _ = label_order(model.config, data.task)
    return TaskJob(data.task, data.form, data.tokenizer, data.train, validation, asked, options, accelerator, order)


def _end(
    settings: TaskSettings,
    data: TaskData,
    start: StartingCheckpoint,
    prepared: PreparedModel,
    loop: TrainingLoop,
    outcome: Outcome,
    folder: RunFolder,
) -> TuneResult:
    accelerator = loop.accelerator
    results = {
        "task": data.task.name,
        "task_version": data.task.version,
        "model": settings.model_name_or_path,
        "train": settings.train,
        "train_data": data.train_identity.plain(),
        "validation_data": data.validation_identity.plain() if data.validation_identity else None,
        **outcome.plain(),
        "main_metric": loop.job.main,
        "trained": prepared.selection.elements,
        "trained_without_head": prepared.selection.without_head,
        "total": prepared.selection.total,
        "peak_bytes": peak_bytes(accelerator.device),
        "notes": [*data.notes, *prepared.notes],
    }
    if data.task.kind == "generation":
        results["decode"] = _decoding(settings, data, prepared).plain()
    if outcome.ended != "terminated":
        if accelerator.is_main_process:
            folder.forget_results()
        results |= save_model(loop, data.tokenizer, folder, prepared)
        if accelerator.is_main_process:
            made_by = environment(accelerator.device.type, accelerator.num_processes, accelerator.mixed_precision)
            record = write_record(folder.model, settings, start, data, prepared.selection, results, made_by)
            if prepared.adapter is not None:
                write_adapter_record(folder.adapter, record)
            folder.write("results.json", results)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return TuneResult(folder.path, outcome.ended, outcome.metrics, loop.job.main, results, accelerator.is_main_process)


def _accelerator(settings: TaskSettings) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration

    _need_trackers(settings.report_to)
    try:
        made = Accelerator(
            mixed_precision=settings.mixed_precision,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            dynamo_backend="inductor" if settings.torch_compile else None,
            log_with=list(settings.report_to) or None,
            project_config=ProjectConfiguration(project_dir=str(settings.output_dir)),
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
    except ValueError as error:  # such as a precision that this device, or the run before in this process, has not
        raise TuneError("Accelerate cannot start so", why=str(error)) from error
    if settings.mixed_precision == "fp16" and made.device.type == "cpu":
        raise TuneError("fp16 needs a GPU", remedy="Use --mixed_precision bf16, or no")
    plugin = made.state.deepspeed_plugin
    if plugin is not None:
        # DeepSpeed reads it off a data loader that Accelerate prepares; this loop deals out its own batches.
        plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = settings.per_device_train_batch_size
    return made


def _need_trackers(names: Sequence[str]) -> None:
    """Accelerate drops a tracker that is not installed without a word, and what it should have kept with it."""
    from accelerate.tracking import get_available_trackers

    there = {str(getattr(tracker, "value", tracker)) for tracker in get_available_trackers()}
    if missing := [name for name in names if name not in there]:
        raise ExtraError(
            f"The tracker {missing[0]} is not installed",
            why="Nothing would be tracked",
            remedy=f"pip install {missing[0]}, or leave it out of --report_to",
        )


def _folder(accelerator: Accelerator, settings: TaskSettings) -> RunFolder:
    """The run folder, made by the main process; the others wait until it is there."""
    if accelerator.is_main_process:
        folder = open_folder(
            settings.output_dir, settings.plain(), resume=settings.resume, overwrite=settings.overwrite
        )
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        folder = RunFolder(settings.output_dir)
    if settings.report_to:
        flat = {name: value if isinstance(value, (int, float, str, bool)) else str(value)
                for name, value in settings.plain().items()}  # fmt: skip
        accelerator.init_trackers("hf_bias_patch", config=flat)
    return folder


def _seed(seed: int) -> None:
    from transformers import set_seed

    set_seed(seed)


def _options(settings: TaskSettings, data: TaskData) -> ScoringOptions:
    length = settings.max_length
    longest = max(data.train.dataset["length"][:], default=1)
    tokens = settings.per_device_eval_batch_size * (length or longest)
    decode = settings.decode if isinstance(settings, GenerationSettings) else None
    return ScoringOptions(batch_tokens=tokens, max_length=length, decode=decode)
