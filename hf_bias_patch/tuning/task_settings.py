"""Settings of the three kinds of run: what each has beyond those that all share."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from hf_bias_patch.patching.recipe import as_names
from hf_bias_patch.scoring.metric_info import TaskKind
from hf_bias_patch.scoring.tasks import GenerationOptions, early_stopping
from hf_bias_patch.tuning.settings import Positive, TuneSettings

__all__ = ["KINDS", "GenerationSettings", "GlueSettings", "LanguageSettings", "TaskSettings", "settings_for"]


def _word(value: Any) -> Any:
    """What YAML and Python have as a truth value, as the word that the command line has."""
    return str(value).lower() if isinstance(value, bool) else value


class TaskSettings(TuneSettings):
    """A run on a task."""

    kinds: ClassVar[tuple[TaskKind, ...]]
    own_kind: ClassVar[TaskKind | None] = None

    task_name: str | None = Field(
        None, description="A task, such as sst2, or a YAML file of one; none is needed with --train_file."
    )
    text_column: Annotated[tuple[str, ...], BeforeValidator(as_names)] = Field(
        (), description="Of your own data: the column of the text, or two of a pair; by default what holds text."
    )
    label_column: str | None = Field(None, description="Of your own data: the column of the label or the target.")
    skip_bad_rows: bool = Field(False, description="Leave out and list rows that cannot be read.")
    validation_share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="Validate on this share of the training data, which is then not trained on; of a running text, "
        "its end.",
    )
    validation_split: str = Field("validation", description="The split that chooses the best state.")

    @model_validator(mode="after")
    def _has_data(self) -> TaskSettings:
        if self.validation_share is not None and self.validation_file is not None:
            raise ValueError("validation_share takes from the training data, and a validation_file is given beside it")
        if self.task_name is None and self.train_file is None:
            raise ValueError("neither task_name nor train_file is given: there is nothing to train on")
        if self.early_stopping_patience is not None and self.validates_on_nothing:
            raise ValueError(
                "early_stopping_patience counts evaluations, and nothing is given to validate on: "
                "give validation_file or validation_share"
            )
        if self.task_name is not None and (self.text_column or self.label_column):
            raise ValueError(f"text_column and label_column are for your own data, and {self.task_name} names its own")
        return self

    @property
    def validates_on_nothing(self) -> bool:
        """Whether only training data is given: the user's own file, without a second one and without a share."""
        return self.train_file is not None and self.validation_file is None and self.validation_share is None


class GlueSettings(TaskSettings):
    """Classification and regression: GLUE, and tasks of that shape."""

    kinds = ("classification", "regression")

    new_head: bool = Field(
        False,
        description="Begin with a new head, whatever the checkpoint holds; by default its own is kept, and labels are "
        "mapped to it by their names.",
    )
    regression: bool = Field(
        False, description="Of your own data: labels are numbers to predict, whole ones too, and no classes."
    )

    @model_validator(mode="after")
    def _own_regression(self) -> GlueSettings:
        if self.regression and self.task_name is not None:
            raise ValueError(f"regression is for your own data, and {self.task_name} says itself what its labels are")
        return self


class LanguageSettings(TaskSettings):
    """Language modelling: causal or masked, as the model is."""

    kinds = ("language_modelling",)
    own_kind = "language_modelling"


class GenerationSettings(TaskSettings):
    """Texts from texts: summaries, records in words; by an encoder–decoder, or by a decoder from a prompt."""

    kinds = ("generation",)
    own_kind = "generation"

    max_target_length: Positive | None = Field(
        None, description="Tokens of a target at most, while training; by default 128, or half of what the model takes."
    )
    num_beams: Positive | None = Field(
        None, description="Beams while evaluating; this and what follows by default the task's, or the model's own."
    )
    max_new_tokens: Positive | None = Field(None, description="Tokens of an answer at most.")
    min_new_tokens: Annotated[int, Field(ge=0)] | None = Field(None, description="Tokens of an answer at least.")
    length_penalty: float | None = Field(None, description="Above 0 favours long beams.")
    no_repeat_ngram_size: Annotated[int, Field(ge=0)] | None = Field(None, description="No n-gram of this size twice.")
    early_stopping: Annotated[Literal["true", "false", "never"], BeforeValidator(_word)] | None = Field(
        None, description="Whether a beam search ends with the first answers that are whole."
    )

    @model_validator(mode="after")
    def _possible(self) -> GenerationSettings:
        _ = self.decode
        return self

    @property
    def decode(self) -> GenerationOptions:
        """What replaces the task's settings and the model's own."""
        given = {name: getattr(self, name) for name in GenerationOptions.model_fields}
        return GenerationOptions(**given | {"early_stopping": early_stopping(self.early_stopping)})


KINDS: dict[str, type[TaskSettings]] = {
    "glue": GlueSettings,
    "lm": LanguageSettings,
    "generation": GenerationSettings,
}


def settings_for(kind: TaskKind) -> type[TaskSettings]:
    """The settings that runs on tasks of a kind have."""
    return next(settings for settings in KINDS.values() if kind in settings.kinds)
