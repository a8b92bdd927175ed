"""Finds, decides, rewrites and proves: the attention biases of Hugging Face checkpoints.

The words used here are those of docs/design.md; why the edits are exact is docs/theory.md.
Nothing heavy is imported before it is used: torch and transformers only by `apply`, `compare`, `evaluate`, `load`,
`probe`, `study`, `tune`, `verify` and `where_possible`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf_bias_patch.version import __version__

if TYPE_CHECKING:
    from hf_bias_patch.architecture.inspect import Inspection, inspect
    from hf_bias_patch.evidence.certificate import Certificate
    from hf_bias_patch.evidence.run import verify
    from hf_bias_patch.evidence.where_possible import where_possible
    from hf_bias_patch.models.load import load
    from hf_bias_patch.patching.in_memory import Applied, apply
    from hf_bias_patch.patching.inplace import patch_in_place
    from hf_bias_patch.patching.on_disk import Patched, patch, plan
    from hf_bias_patch.patching.plan import Plan
    from hf_bias_patch.patching.pulling import pull
    from hf_bias_patch.patching.recipe import Recipe
    from hf_bias_patch.patching.revert import Reverted, revert
    from hf_bias_patch.probing.inspect import Probed, probe
    from hf_bias_patch.publish.card import Card, card
    from hf_bias_patch.publish.push import Pushed, push
    from hf_bias_patch.publish.push_plan import PushPlan, plan_push
    from hf_bias_patch.scoring.evaluate import EvaluateSettings, Evaluation, evaluate
    from hf_bias_patch.studies.comparison import StudyComparison, compare_studies
    from hf_bias_patch.studies.run import StudyResult, study
    from hf_bias_patch.studies.settings import StudySettings
    from hf_bias_patch.surveying.survey import Survey, survey
    from hf_bias_patch.tuning.compare import CompareSettings, compare
    from hf_bias_patch.tuning.run import tune
    from hf_bias_patch.tuning.task_settings import GenerationSettings, GlueSettings, LanguageSettings

__all__ = [
    "Applied",
    "Card",
    "Certificate",
    "CompareSettings",
    "EvaluateSettings",
    "Evaluation",
    "GenerationSettings",
    "GlueSettings",
    "Inspection",
    "LanguageSettings",
    "Patched",
    "Plan",
    "Probed",
    "PushPlan",
    "Pushed",
    "Recipe",
    "Reverted",
    "StudyComparison",
    "StudyResult",
    "StudySettings",
    "Survey",
    "__version__",
    "apply",
    "card",
    "compare",
    "compare_studies",
    "evaluate",
    "inspect",
    "load",
    "patch",
    "patch_in_place",
    "plan",
    "plan_push",
    "probe",
    "pull",
    "push",
    "revert",
    "study",
    "survey",
    "tune",
    "verify",
    "where_possible",
]

_HOMES = {
    "Applied": "patching.in_memory",
    "Card": "publish.card",
    "Certificate": "evidence.certificate",
    "CompareSettings": "tuning.compare",
    "EvaluateSettings": "scoring.evaluate",
    "Evaluation": "scoring.evaluate",
    "GenerationSettings": "tuning.task_settings",
    "GlueSettings": "tuning.task_settings",
    "Inspection": "architecture.inspect",
    "LanguageSettings": "tuning.task_settings",
    "Patched": "patching.on_disk",
    "Plan": "patching.plan",
    "Probed": "probing.inspect",
    "PushPlan": "publish.push_plan",
    "Pushed": "publish.push",
    "Recipe": "patching.recipe",
    "Reverted": "patching.revert",
    "StudyComparison": "studies.comparison",
    "StudyResult": "studies.run",
    "StudySettings": "studies.settings",
    "Survey": "surveying.survey",
    "apply": "patching.in_memory",
    "card": "publish.card",
    "compare": "tuning.compare",
    "compare_studies": "studies.comparison",
    "evaluate": "scoring.evaluate",
    "inspect": "architecture.inspect",
    "load": "models.load",
    "patch": "patching.on_disk",
    "patch_in_place": "patching.inplace",
    "plan": "patching.on_disk",
    "plan_push": "publish.push_plan",
    "probe": "probing.inspect",
    "pull": "patching.pulling",
    "push": "publish.push",
    "revert": "patching.revert",
    "study": "studies.run",
    "survey": "surveying.survey",
    "tune": "tuning.run",
    "verify": "evidence.run",
    "where_possible": "evidence.where_possible",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
