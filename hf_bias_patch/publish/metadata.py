"""The front matter of a card, as the Hub reads it."""

from __future__ import annotations

import re
from typing import Any

from huggingface_hub import ModelCardData

from hf_bias_patch.publish.facts import Facts

__all__ = ["metadata"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_INHERITED = ("language", "license", "license_name", "license_link", "pipeline_tag", "datasets")


def metadata(facts: Facts, base_model: str | None = None) -> str:
    """The front matter as YAML.

    Licence, language, pipeline and data sets are the base's. `base_model_relation` is `finetune`: of the relations that
    the Hub knows, the one of a whole checkpoint in the base's precision.
    """
    base = base_model or str(facts.source.get("name", ""))
    known: dict[str, Any] = {name: facts.base_card[name] for name in _INHERITED if name in facts.base_card}
    if _HUB_ID.fullmatch(base):
        known |= {"base_model": base, "base_model_relation": "finetune"}
    tags = [*dict.fromkeys(["hf-bias-patch", "attention-bias", str(facts.config["model_type"]), *_tags(facts)])]
    metrics = sorted({name for result in facts.results for name in result["metrics"] if name != "loss"})
    data = ModelCardData(library_name="transformers", tags=tags, metrics=metrics or None, **known)
    return data.to_yaml().strip() + "\n"


def _tags(facts: Facts) -> list[str]:
    found = facts.base_card.get("tags") or []
    return [tag for tag in found if isinstance(tag, str)] if isinstance(found, list) else []
