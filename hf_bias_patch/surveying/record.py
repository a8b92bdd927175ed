"""What a survey keeps of each model, one line of JSON a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_bias_patch.architecture.inspect import Inspection
from hf_bias_patch.errors import TargetError

__all__ = ["MODELS", "SurveyedModel", "dump_model", "of_inspection", "read_models"]

MODELS = "models.jsonl"


@dataclass(frozen=True)
class SurveyedModel:
    """The attention biases of one model, or why they could not be read.

    Attributes:
        model: its Hub id.
        commit: the commit that was read; empty if none could be.
        model_type, family: empty likewise.
        parameters, nbytes: of the checkpoint.
        received: bytes that came over the network.
        biases: a dict for each bias: site, projection, verdict, reason, dtype, parameters, norm.
        problem: why it could not be read; empty if it was.
        passes: whether the problem may pass (the Hub did not answer), so that the next survey reads the model again.
    """

    model: str
    commit: str = ""
    model_type: str = ""
    family: str = ""
    parameters: int = 0
    nbytes: int = 0
    received: int = 0
    biases: tuple[dict[str, Any], ...] = ()
    problem: str = ""
    passes: bool = False


def of_inspection(name: str, found: Inspection) -> SurveyedModel:
    """What is kept of an inspection."""
    about = (found.commit or "", found.model_type, found.family, found.parameters, found.nbytes, found.received)
    return SurveyedModel(name, *about, tuple(_biases(found)))


def _biases(found: Inspection) -> Iterator[dict[str, Any]]:
    for site in found.sites:
        for projection, slot in site.slots.items():
            if (values := found.values.get((site.name, projection))) is not None:
                yield {
                    "site": site.name,
                    "projection": projection,
                    "verdict": slot.verdict.state,
                    "reason": slot.verdict.reason,
                    "dtype": values.dtype,
                    "parameters": values.parameters,
                    "norm": values.norm if values.not_finite == 0 else None,
                }


def dump_model(model: SurveyedModel) -> str:
    """The line of a model."""
    return json.dumps(vars(model), ensure_ascii=False) + "\n"


def read_models(out: Path) -> tuple[SurveyedModel, ...]:
    """The models kept in a folder, of each the last line. A last line that a killed run cut short is removed.

    Raises:
        TargetError: the folder holds a file of that name that no survey wrote.
    """
    path = out / MODELS
    if not path.exists():
        return ()
    found: dict[str, SurveyedModel] = {}
    lines = path.read_text("utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            fields = json.loads(line)
            model = SurveyedModel(**{**fields, "biases": tuple(fields["biases"])})
        except (ValueError, TypeError, KeyError):
            if number == len(lines) and not line.endswith("\n"):
                break
            raise TargetError(
                f"{path} was not written by a survey",
                why=f"Line {number} is not a record of a survey",
                remedy="Give another folder",
            ) from None
        found[model.model] = model
    if lines and not lines[-1].endswith("\n"):
        path.write_text("".join(lines[:-1]), "utf-8")  # or the next line would be appended to it
    return tuple(found.values())
