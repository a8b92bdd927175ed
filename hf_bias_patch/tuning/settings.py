"""Every setting of a training run, with its default: what the command line, YAML files and Python take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from hf_bias_patch.architecture.sites import Projection
from hf_bias_patch.errors import RecipeError
from hf_bias_patch.patching.recipe import DestinationOrDefault, as_folds, as_names
from hf_bias_patch.patching.strict_yaml import read_fields
from hf_bias_patch.patching.wording import problems
from hf_bias_patch.tuning.adapters import RANK
from hf_bias_patch.tuning.set_trainable import ADAPTERS, projections_of

__all__ = ["AT_THE_END", "TuneSettings", "as_files", "make_settings", "read_settings"]

AT_THE_END = 10**9
"""As `eval_steps`: evaluate once, after the last step. A best state chosen on the reported data would flatter."""

Positive = Annotated[int, Field(gt=0)]
_Projections = Annotated[tuple[Projection, ...], BeforeValidator(as_names)]


def _train_words(value: Any) -> str:
    words = ",".join(as_names(value)) if not isinstance(value, str) else value
    try:
        projections = projections_of(words)
    except RecipeError as error:
        raise ValueError(str(error).removeprefix("train: ")) from None
    return ",".join(projections) or words.strip()


def as_files(value: Any) -> Any:
    """`sst2:train=PATH,…` as {`sst2`: {`train`: PATH}}.

    Raises:
        ValueError: an item is not of that form.
    """
    if isinstance(value, Mapping):
        return value
    found: dict[str, dict[str, str]] = {}
    for item in as_names(value):
        name, _, path = item.partition("=")
        task, colon, split = name.rpartition(":")
        if not (path and colon):
            raise ValueError(f"{item!r} is not of the form TASK:SPLIT=PATH")
        found.setdefault(task, {})[split] = path
    return found


class TuneSettings(BaseModel):
    """What all training runs share. Each field's description is its help text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_name_or_path: str = Field(description="A folder, embedded:bert|gpt2|bart, or a Hub id.")
    output_dir: Path = Field(description="The run folder: results, metrics, the trained model.")

    train: Annotated[str, BeforeValidator(_train_words)] = Field(
        "value",
        description="What trains: value, query, key, output, or several (query,value); biases (every bias: BitFit); "
        "all (everything); none (the head alone); lora or beft. Redundant biases train with --train-redundant only.",
    )
    train_head: bool | None = Field(
        None, description="Whether the task head trains; by default only where it is new, as a classifier's often is."
    )
    train_redundant: bool = Field(
        False,
        description="For an experiment: train redundant biases too, although only rounding noise moves them. --train "
        "all trains everything either way.",
    )
    lora_rank: Positive = Field(RANK, description="With --train lora: the rank of its matrices.")
    lora_alpha: Positive | None = Field(
        None, description="With --train lora: its product is scaled by alpha / rank; by default twice the rank."
    )
    fold: Annotated[dict[Projection, DestinationOrDefault], BeforeValidator(as_folds)] = Field(
        default_factory=dict, description="Before training, remove these biases exactly, as `patch` does."
    )
    where_possible: bool = Field(
        False, description="With --fold: leave out, and list, the folds that cannot be made or proven."
    )
    drop: _Projections = Field((), description="Before training, set these biases to zero.")
    freeze: _Projections = Field((), description="Biases that do not train, whatever --train says.")

    train_file: Path | None = Field(None, description="Your own training data: jsonl, csv, tsv, parquet or txt.")
    validation_file: Path | None = Field(None, description="Your own validation data.")
    max_train_samples: Positive | None = Field(
        None,
        description="Train on N samples drawn by the seed; of generation, on N pairs of a source and a reference; of a "
        "running text, on its first N lines. A --validation-share is taken from them.",
    )
    max_eval_samples: Positive | None = Field(
        None, description="Evaluate on the first N samples; of generation, on N sources with all their references."
    )
    # Below 4, the tokenizer's special tokens would be all that is left of a pair of texts.
    max_length: Annotated[int, Field(ge=4)] | None = Field(
        None, description="Longest text, in tokens; by default the model's limit."
    )

    seed: Annotated[int, Field(ge=0)] = Field(
        42, description="Seed of new parameters, of the order of the data and of dropout."
    )
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Peak learning rate of AdamW; by default 5e-5 for all, 1e-4 for an adapter, 1e-3 for biases."
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Weight decay of AdamW; biases and norms have none."
    )
    num_train_epochs: Annotated[float, Field(gt=0)] = Field(3.0, description="Passes over the training data.")
    max_train_steps: Positive | None = Field(None, description="Optimiser steps, in place of epochs.")
    per_device_train_batch_size: Positive = Field(32, description="Samples that a process trains on at once.")
    per_device_eval_batch_size: Positive = Field(64, description="Samples that a process evaluates at once.")
    gradient_accumulation_steps: Positive = Field(1, description="Batches of each process in an optimiser step.")
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup", "polynomial"] = Field(
        "linear", description="How the learning rate changes after warm-up."
    )
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = Field(0.06, description="Share of the steps that warm up.")
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(1.0, description="Clip gradients to this norm.")
    group_by_length: bool = Field(True, description="Put samples of one length into a batch: less padding.")
    gradient_checkpointing: bool = Field(
        False, description="Compute activations twice instead of keeping them: less memory, more time."
    )
    mixed_precision: Literal["no", "bf16", "fp16"] | None = Field(
        None, description="Precision of the computation; by default as Accelerate is configured."
    )
    torch_compile: bool = Field(False, description="Compile the model with torch.compile.")
    dataloader_num_workers: Annotated[int, Field(ge=0)] = Field(0, description="Processes that prepare batches.")

    eval_steps: Positive | None = Field(None, description="Evaluate every N steps; by default after each epoch.")
    save_steps: Positive | None = Field(
        None, description="Save a state to resume from every N steps; by default after each epoch."
    )
    early_stopping_patience: Positive | None = Field(None, description="Stop after N evaluations without a better one.")
    logging_steps: Positive = Field(10, description="Write a line of metrics.jsonl every N steps.")
    report_to: Annotated[tuple[Literal["tensorboard", "trackio", "wandb"], ...], BeforeValidator(as_names)] = Field(
        (), description="Trackers: tensorboard, trackio, wandb."
    )
    resume: bool = Field(False, description="Resume a run of the same settings that was stopped.")
    overwrite: bool = Field(False, description="Replace an earlier run in the run folder.")

    @field_validator("train_file", "validation_file")
    @classmethod
    def _exists(cls, value: Path | None) -> Path | None:
        if value is not None and not value.exists():
            raise ValueError(f"{value} does not exist")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> TuneSettings:
        if both := sorted(set(projections_of(self.train)) & set(self.freeze)):
            raise ValueError(f"{both[0]} is in both train and freeze")
        if both := sorted(set(self.fold) & set(self.drop)):
            raise ValueError(f"{both[0]} is in both fold and drop")
        if self.where_possible and not self.fold:
            raise ValueError("where_possible needs a fold")
        if self.train in ADAPTERS and self.freeze:
            raise ValueError(f"freeze: with train {self.train} nothing but the adapter trains")
        if self.train != "lora" and (self.lora_rank != RANK or self.lora_alpha is not None):
            raise ValueError(f"lora_rank and lora_alpha are for train lora, and train is {self.train}")
        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite exclude each other")
        return self

    @property
    def rate(self) -> float:
        """The learning rate, the default of what trains filled in."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 5e-5 if self.train == "all" else 1e-4 if self.train in ADAPTERS else 1e-3

    def plain(self) -> dict[str, Any]:
        """As JSON values, without what does not change the result: resume, overwrite and output_dir."""
        return self.model_dump(mode="json", exclude={"resume", "overwrite", "output_dir"})


def make_settings(kind: type[Any], **fields: Any) -> Any:
    """Settings of a kind from keyword arguments.

    Raises:
        RecipeError: a field is unknown or its value is wrong; the message lists every such field.
    """
    try:
        return kind(**fields)
    except ValidationError as error:
        raise RecipeError(f"The settings are wrong: {'; '.join(problems(error))}") from None


def read_settings(path: Path) -> dict[str, Any]:
    """The fields in a YAML (or JSON) file.

    Raises:
        RecipeError: the file cannot be read, is not a mapping, or has a key twice.
    """
    return read_fields(path, "The settings file", RecipeError, "Write, for example, `train: value`")
