"""Settings of the three kinds of run: what each has beyond those that all share."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from hf_bias_patch.scoring.measures import Kind
from hf_bias_patch.tune.settings import Positive, Settings

__all__ = ["KINDS", "GenerationSettings", "GlueSettings", "LanguageSettings", "TaskSettings"]


class TaskSettings(Settings):
    """A run on a task."""

    kinds: ClassVar[tuple[Kind, ...]]

    task_name: str = Field(description="A task, such as sst2, or the path of a task's YAML file.")
    validation_split: str = Field("validation", description="The split that chooses the best state.")


class GlueSettings(TaskSettings):
    """Classification and regression: GLUE, and tasks of that shape."""

    kinds = ("classification", "regression")


class LanguageSettings(TaskSettings):
    """Language modelling: causal or masked, as the model is."""

    kinds = ("language_modelling",)


class GenerationSettings(TaskSettings):
    """Texts from texts: summaries, records in words; by an encoder–decoder, or by a decoder from a prompt."""

    kinds = ("generation",)

    max_target_length: Positive = Field(128, description="Tokens of a target at most, while training.")
    num_beams: Positive | None = Field(None, description="Beams while evaluating; by default the task's.")
    max_new_tokens: Positive | None = Field(None, description="Tokens generated at most; by default the task's.")
    length_penalty: float | None = Field(None, description="Above 0 favours long beams; by default the task's.")

    @property
    def decoding(self) -> dict[str, Any]:
        """What replaces the task's own settings."""
        names = ("num_beams", "max_new_tokens", "length_penalty")
        return {name: getattr(self, name) for name in names}


KINDS: dict[str, type[TaskSettings]] = {
    "glue": GlueSettings,
    "lm": LanguageSettings,
    "generation": GenerationSettings,
}
