"""Settings of the three kinds of run: what each has beyond those that all share."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field, model_validator

from hf_bias_patch.patching.recipe import as_names
from hf_bias_patch.scoring.generation import GenerationFields
from hf_bias_patch.scoring.metric_info import TaskKind
from hf_bias_patch.tuning.settings import Positive, TuneSettings

__all__ = ["KINDS", "GenerationSettings", "GlueSettings", "LanguageSettings", "TaskSettings", "settings_for"]


class TaskSettings(TuneSettings):
    """A run on a task."""

    kinds: ClassVar[tuple[TaskKind, ...]]
    own_kind: ClassVar[TaskKind | None] = None

    task_name: str | None = Field(
        None,
        description="A task, such as sst2 (a wrong name lists all), or a YAML file of one; with --train-file none is "
        "needed.",
    )
    text_column: Annotated[tuple[str, ...], BeforeValidator(as_names)] = Field(
        (),
        description="With your own data: the text column, or two for pairs; by default the columns that hold text.",
    )
    label_column: str | None = Field(None, description="With your own data: the column of the label or the target.")
    skip_bad_rows: bool = Field(False, description="Leave out and list rows that cannot be read.")
    validation_share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="Hold out this share of the training data to validate on; of a running text, its end.",
    )
    validation_split: str = Field("validation", description="The split that chooses the best state.")

    @model_validator(mode="after")
    def _has_data(self) -> TaskSettings:
        if self.validation_share is not None and self.validation_file is not None:
            raise ValueError(
                "validation_share and validation_file exclude each other: both are the data to validate on"
            )
        if self.task_name is None and self.train_file is None:
            raise ValueError("there is nothing to train on: give a task or a training file")
        if self.early_stopping_patience is not None and self.validates_on_nothing:
            raise ValueError(
                "early_stopping_patience needs data to validate on: give validation_file or validation_share"
            )
        if self.task_name is not None and (self.text_column or self.label_column):
            raise ValueError(
                f"text_column and label_column are for your own data, and {self.task_name} names its columns"
            )
        return self

    @property
    def validates_on_nothing(self) -> bool:
        """Whether the user's own training file is all the data that is given."""
        return self.train_file is not None and self.validation_file is None and self.validation_share is None


class GlueSettings(TaskSettings):
    """Classification and regression: GLUE, and tasks of that shape."""

    kinds = ("classification", "regression")

    new_head: bool = Field(
        False,
        description="Start with a new head. By default the checkpoint's own is kept, and labels are matched by name.",
    )
    regression: bool = Field(
        False, description="With your own data: labels are numbers to predict, not classes, even if all are whole."
    )

    @model_validator(mode="after")
    def _own_regression(self) -> GlueSettings:
        if self.regression and self.task_name is not None:
            raise ValueError(f"regression is for your own data, and {self.task_name} says what its labels are")
        return self


class LanguageSettings(TaskSettings):
    """Language modelling: causal or masked, as the model is."""

    kinds = ("language_modelling",)
    own_kind = "language_modelling"


class _TargetSettings(TaskSettings):
    max_target_length: Positive | None = Field(
        None, description="Longest target, in tokens; by default 128, or half of the model's limit."
    )


class GenerationSettings(GenerationFields, _TargetSettings):
    """Texts from texts: summaries, records in words; by an encoder-decoder, or by a decoder from a prompt."""

    kinds = ("generation",)
    own_kind = "generation"


KINDS: dict[str, type[TaskSettings]] = {
    "glue": GlueSettings,
    "lm": LanguageSettings,
    "generation": GenerationSettings,
}


def settings_for(kind: TaskKind) -> type[TaskSettings]:
    """The settings that runs on tasks of a kind have."""
    return next(settings for settings in KINDS.values() if kind in settings.kinds)
