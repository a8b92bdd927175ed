"""How a model is loaded by others, told by the class that it was saved from."""

from __future__ import annotations

__all__ = ["auto_class", "auto_peft_class", "pipeline_tag"]

_ENDINGS = {
    "ForMaskedLM": ("AutoModelForMaskedLM", "fill-mask"),
    "LMHeadModel": ("AutoModelForCausalLM", "text-generation"),
    "ForCausalLM": ("AutoModelForCausalLM", "text-generation"),
    "ForConditionalGeneration": ("AutoModelForSeq2SeqLM", None),  # summaries or translations: no telling
    "ForSequenceClassification": ("AutoModelForSequenceClassification", "text-classification"),
}


def auto_class(architecture: str) -> str:
    """The Auto class of transformers that loads a class; `AutoModel` where no head is known."""
    return next((auto for ending, (auto, _) in _ENDINGS.items() if architecture.endswith(ending)), "AutoModel")


def auto_peft_class(architecture: str) -> str:
    """The Auto class of peft that loads an adapter of a class; `AutoPeftModel` where peft has none for its head."""
    auto = auto_class(architecture)
    heads = ("CausalLM", "Seq2SeqLM", "SequenceClassification")
    return auto.replace("AutoModel", "AutoPeftModel") if auto.endswith(heads) else "AutoPeftModel"


def pipeline_tag(architecture: str) -> str | None:
    """What the Hub calls the task of a class; None where the class does not tell."""
    return next((tag for ending, (_, tag) in _ENDINGS.items() if architecture.endswith(ending)), None)
