"""The front matter of a card, as the Hub reads it."""

from __future__ import annotations

from typing import Any

from huggingface_hub import ModelCardData

from hf_bias_patch.publish.auto_classes import pipeline_tag
from hf_bias_patch.publish.facts import Facts

__all__ = ["metadata"]

_PIPELINES = (
    "feature-extraction", "sentence-similarity", "fill-mask", "text-classification", "token-classification",
    "question-answering", "text-generation", "text2text-generation", "summarization", "translation",
    "zero-shot-classification",
)  # fmt: skip
"""What the Hub calls tasks, which cards of bases have among their tags."""
_OF_ITS_OWN = ("pipeline_tag", "datasets")
_INHERITED = ("language", "license", "license_name", "license_link", "pipeline_tag", "datasets")


def metadata(facts: Facts) -> str:
    """The front matter as YAML.

    Licence and language are the base's, and so are library, pipeline and data sets where the model was only patched.
    `base_model_relation` of a whole checkpoint is `finetune`: of the relations that the Hub knows, the one of a
    checkpoint in the base's precision.
    """
    known: dict[str, Any] = {name: facts.base_card[name] for name in _INHERITED if name in facts.base_card}
    library = facts.base_card.get("library_name", "transformers")
    if facts.training is not None:
        library = "transformers" if facts.adapter is None else "peft"
        known = {name: value for name, value in known.items() if name not in _OF_ITS_OWN} | _of_its_own(facts)
    if facts.base.on_hub:
        known |= {
            "base_model": facts.base.name,
            "base_model_relation": "finetune" if facts.adapter is None else "adapter",
        }
    kind = facts.config.get("model_type")
    own = [kind] if isinstance(kind, str) else []  # a config.json of 2019 names none
    tags = [*dict.fromkeys(["hf-bias-patch", "attention-bias", *own, *_tags(facts)])]
    metrics = sorted({name for result in facts.results for name in result["metrics"] if name != "loss"})
    data = ModelCardData(library_name=library, tags=tags, metrics=metrics or None, **known)
    return data.to_yaml().strip() + "\n"


def _of_its_own(facts: Facts) -> dict[str, Any]:
    """Pipeline and data sets of a fine-tuned model, where the Hub knows them."""
    assert facts.training is not None
    tag, data = pipeline_tag(facts.architecture), facts.training.train_data
    found = {"pipeline_tag": tag} if tag else {}
    return found | ({"datasets": [data["name"]]} if data.get("origin") == "hub" else {})


def _tags(facts: Facts) -> list[str]:
    """The base's, but for those that say how the base is loaded, where training changed that."""
    found = facts.base_card.get("tags", ())
    tags = [found] if isinstance(found, str) else list(found)
    if facts.training is None:
        return tags
    loaded = (facts.base_card.get("library_name"), facts.base_card.get("pipeline_tag"), *_PIPELINES)
    return [tag for tag in tags if tag not in loaded]
