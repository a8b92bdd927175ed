"""Finds, decides, rewrites and proves: the attention biases of Hugging Face checkpoints.

The words used here are those of docs/design.md; why the edits are exact is docs/theory.md.
Nothing heavy is imported before it is used: torch and transformers only by `apply`, `load`, `probe`, `tune`, `verify`
and `where_possible`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf_bias_patch.version import __version__

if TYPE_CHECKING:
    from hf_bias_patch.attention.inspect import Inspection, inspect
    from hf_bias_patch.evidence.certificate import Certificate
    from hf_bias_patch.evidence.run import verify
    from hf_bias_patch.evidence.where_possible import where_possible
    from hf_bias_patch.patching.disk import Patched, patch, plan
    from hf_bias_patch.patching.inplace import patch_in_place
    from hf_bias_patch.patching.loading import load
    from hf_bias_patch.patching.memory import Applied, apply
    from hf_bias_patch.patching.plan import Plan
    from hf_bias_patch.patching.pulling import pull
    from hf_bias_patch.patching.recipe import Recipe
    from hf_bias_patch.patching.revert import Reverted, revert
    from hf_bias_patch.probing.inspect import Probed, probe
    from hf_bias_patch.tuning.kinds import GenerationSettings, GlueSettings, LanguageSettings
    from hf_bias_patch.tuning.run import tune

__all__ = [
    "Applied",
    "Certificate",
    "GenerationSettings",
    "GlueSettings",
    "Inspection",
    "LanguageSettings",
    "Patched",
    "Plan",
    "Probed",
    "Recipe",
    "Reverted",
    "__version__",
    "apply",
    "inspect",
    "load",
    "patch",
    "patch_in_place",
    "plan",
    "probe",
    "pull",
    "revert",
    "tune",
    "verify",
    "where_possible",
]

_HOMES = {
    "Applied": "patching.memory",
    "Certificate": "evidence.certificate",
    "GenerationSettings": "tuning.kinds",
    "GlueSettings": "tuning.kinds",
    "Inspection": "attention.inspect",
    "LanguageSettings": "tuning.kinds",
    "Patched": "patching.disk",
    "Plan": "patching.plan",
    "Probed": "probing.inspect",
    "Recipe": "patching.recipe",
    "Reverted": "patching.revert",
    "apply": "patching.memory",
    "inspect": "attention.inspect",
    "load": "patching.loading",
    "patch": "patching.disk",
    "patch_in_place": "patching.inplace",
    "plan": "patching.disk",
    "probe": "probing.inspect",
    "pull": "patching.pulling",
    "revert": "patching.revert",
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
