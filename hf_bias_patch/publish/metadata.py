"""The front matter of a card, as the Hub reads it."""

from __future__ import annotations

from typing import Any

from huggingface_hub import ModelCardData

from hf_bias_patch.publish.facts import Facts

__all__ = ["metadata"]

_INHERITED = ("language", "license", "license_name", "license_link", "pipeline_tag", "datasets")


def metadata(facts: Facts) -> str:
    """The front matter as YAML.

    Library, licence, language, pipeline and data sets are the base's. `base_model_relation` is `finetune`: of the
    relations that the Hub knows, the one of a whole checkpoint in the base's precision.
    """
    known: dict[str, Any] = {name: facts.base_card[name] for name in _INHERITED if name in facts.base_card}
    if facts.base.on_hub:
        known |= {"base_model": facts.base.name, "base_model_relation": "finetune"}
    tags = [*dict.fromkeys(["hf-bias-patch", "attention-bias", str(facts.config["model_type"]), *_tags(facts)])]
    metrics = sorted({name for result in facts.results for name in result["metrics"] if name != "loss"})
    library = facts.base_card.get("library_name", "transformers")
    data = ModelCardData(library_name=library, tags=tags, metrics=metrics or None, **known)
    return data.to_yaml().strip() + "\n"


def _tags(facts: Facts) -> list[str]:
    found = facts.base_card.get("tags", ())
    return [found] if isinstance(found, str) else list(found)
