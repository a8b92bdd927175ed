"""One training run from settings to results: data, model, loop, the model as it ended."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from hf_bias_patch.tuning.loop import LoopOutcome, TrainingLoop
from hf_bias_patch.tuning.prepare import PreparedModel, prepare_model
from hf_bias_patch.tuning.save_model import save_model
from hf_bias_patch.tuning.starting_checkpoint import StartingCheckpoint, starting_checkpoint
from hf_bias_patch.tuning.task_data import TaskData, task_data
from hf_bias_patch.tuning.task_job import TaskJob
from hf_bias_patch.tuning.task_settings import GenerationSettings, TaskSettings
from hf_bias_patch.tuning.trainable import Trainable
from hf_bias_patch.tuning.training_record import write_adapter_record, write_record
from hf_bias_patch.tuning.watcher import Watcher

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["TuneResult", "peak_bytes", "tune"]


@dataclass(frozen=True)
class TuneResult:
    """What a run gave.

    Attributes:
        folder: the run folder.
        ended: `done`, `early` or `terminated`.
        metrics: of the best evaluation.
        main: name of the metric that the best evaluation was chosen by.
        plain: all of results.json.
        is_main: whether this is the main process, the one that prints.
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
        settings: `GlueSettings`, `LanguageSettings` or `GenerationSettings`.
        watcher: is told what happens, by the main process.

    Returns:
        The results, which are also in `results.json` of the run folder.

    Raises:
        TaskError, DataError: the task or its data cannot be loaded.
        TuneError: training cannot start, or cannot continue.
        TargetError: the output folder holds something else.
        SourceError, CheckpointError, FamilyError, RecipeError, PlanError: of the checkpoint and what is asked of it.
    """
    how = {"resume": settings.resume, "overwrite": settings.overwrite}
    check_folder(settings.output_dir, settings.plain(), **how)  # before minutes of loading
    accelerator = _accelerator(settings)
    if watcher is None or not accelerator.is_main_process:
        watcher = Watcher()
    source = resolve(settings.model_name_or_path)
    data = task_data(settings, source)
    for line in data.notes:
        watcher.say(line)
    with starting_checkpoint(settings, source, accelerator, watcher) as start:
        return _tune(settings, data, start, accelerator, watcher)


def _tune(
    settings: TaskSettings, data: TaskData, start: StartingCheckpoint, accelerator: Accelerator, watcher: Watcher
) -> TuneResult:
    from transformers import set_seed

    set_seed(settings.seed)
    prepared = prepare_model(settings, start, data.auto_class, data.task)
    options = _scoring_options(settings, data)
    padding, generation = settle_padding(prepared.model, data.tokenizer), _settle_generation(prepared, data, options)
    notes = [*prepared.notes, *([padding.note] if padding.note else []), *(generation.notes if generation else ())]
    for line in notes:
        watcher.say(line)
    job = _job(data, prepared.model, options, accelerator)
    if job.encoded is not None and job.encoded.truncated:
        watcher.say(f"Validation data: {job.encoded}")
    folder = _folder(accelerator, settings)  # only now: whatever is refused before loses nothing
    made_by = environment(accelerator.device.type, accelerator.num_processes, accelerator.mixed_precision)
    if accelerator.is_main_process:
        folder.write("trained.json", prepared.selection.plain())
        folder.write("environment.json", {**made_by, "source": absolute_name(start.source)})
        if settings.task_name is None:
            folder.write_task(data.task)
        if start.before is not None:
            folder.write_patch(*start.before)
    set_seed(settings.seed + 1 + accelerator.process_index)  # each process its own dropout
    loop = TrainingLoop(prepared.model, job, prepared.selection, settings, accelerator, folder, watcher)
    try:
        outcome = loop.run()
    finally:
        watcher.end()
    results = _results(settings, data, prepared.selection, loop, outcome)
    results |= {"notes": [*data.notes, *notes], **({"decode": generation.plain()} if generation else {})}
    if outcome.ended != "terminated":
        if accelerator.is_main_process:
            folder.forget_results()
        results |= save_model(loop, data.tokenizer, folder, prepared)
        if accelerator.is_main_process:
            record = write_record(folder.model, settings, start, data, prepared.selection, results, made_by)
            if prepared.adapter is not None:
                write_adapter_record(folder.adapter, record)
            folder.write("results.json", results)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return TuneResult(folder.path, outcome.ended, outcome.metrics, job.main, results, accelerator.is_main_process)


def _settle_generation(prepared: PreparedModel, data: TaskData, options: ScoringOptions) -> ResolvedGeneration | None:
    """Have the model's generation config name the end tokens that it is trained with; None of other tasks."""
    if data.task.kind != "generation":
        return None
    prepared.model.generation_config.eos_token_id = end_tokens(prepared.model, data.tokenizer)
    return resolve_generation(prepared.model, data.task, options.decode, data.head)


def _job(data: TaskData, model: Any, options: ScoringOptions, accelerator: Accelerator) -> TaskJob:
    check_vocabulary(data.train, model)
    encoded = None
    if data.validation is not None:
        encoded = encode_for(model, data.tokenizer, data.task, data.validation, options)
    order, _ = label_order(model.config, data.task)
    return TaskJob(data, encoded, options, accelerator, order)


def _results(
    settings: TaskSettings, data: TaskData, selection: Trainable, loop: TrainingLoop, outcome: LoopOutcome
) -> dict[str, Any]:
    return {
        "task": data.task.name,
        "task_version": data.task.version,
        "model": settings.model_name_or_path,
        "train": settings.train,
        "train_data": data.train_identity.plain(),
        "validation_data": data.validation_identity.plain() if data.validation_identity else None,
        **outcome.plain(),
        "main_metric": loop.job.main,
        "trained": selection.elements,
        "trained_without_head": selection.without_head,
        "total": selection.total,
        "peak_bytes": peak_bytes(loop.accelerator.device),
    }


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
    except ValueError as error:  # such as a precision that the device lacks, or that differs from an earlier run's
        raise TuneError("Accelerate cannot start with these settings", why=str(error)) from error
    if settings.mixed_precision == "fp16" and made.device.type == "cpu":
        raise TuneError("fp16 needs a GPU", remedy="Use --mixed-precision bf16 or no")
    plugin = made.state.deepspeed_plugin
    if plugin is not None:
        # DeepSpeed reads it off a data loader that Accelerate prepares; this loop deals out its own batches.
        plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = settings.per_device_train_batch_size
    return made


def _need_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that is not installed: accelerate would skip it silently, and nothing would be tracked."""
    from accelerate.tracking import get_available_trackers

    there = {str(getattr(tracker, "value", tracker)) for tracker in get_available_trackers()}
    if missing := [name for name in names if name not in there]:
        raise ExtraError(
            f"The tracker {missing[0]} is not installed",
            why="Nothing would be tracked",
            remedy=f"pip install {missing[0]}, or leave it out of --report-to",
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


def _scoring_options(settings: TaskSettings, data: TaskData) -> ScoringOptions:
    length = settings.max_length
    longest = max(data.train.dataset["length"][:], default=1)
    tokens = settings.per_device_eval_batch_size * (length or longest)
    decode = settings.decode if isinstance(settings, GenerationSettings) else None
    return ScoringOptions(batch_tokens=tokens, max_length=length, decode=decode)


def peak_bytes(device: Any) -> int | None:
    """The most memory held so far: of a GPU what torch allocated, else of the whole process; None where unknown."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
