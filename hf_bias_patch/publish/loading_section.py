"""What a card says of loading a model, told by the class that it was saved from, and of checking it again."""

from __future__ import annotations

from collections.abc import Iterable

from hf_bias_patch.publish.base import BaseRef
from hf_bias_patch.publish.facts import Facts

__all__ = ["loading", "pipeline_tag"]

_ENDINGS = {
    "ForMaskedLM": ("AutoModelForMaskedLM", "fill-mask"),
    "LMHeadModel": ("AutoModelForCausalLM", "text-generation"),
    "ForCausalLM": ("AutoModelForCausalLM", "text-generation"),
    "ForConditionalGeneration": ("AutoModelForSeq2SeqLM", None),  # summaries or translations: no telling
    "ForSequenceClassification": ("AutoModelForSequenceClassification", "text-classification"),
}


def _auto_class(architecture: str) -> str:
    """The Auto class of transformers that loads a class; `AutoModel` where no head is known."""
    return next((auto for ending, (auto, _) in _ENDINGS.items() if architecture.endswith(ending)), "AutoModel")


def _auto_peft_class(architecture: str) -> str:
    """The Auto class of peft that loads an adapter of a class; `AutoPeftModel` where peft has none for its head."""
    auto = _auto_class(architecture)
    heads = ("CausalLM", "Seq2SeqLM", "SequenceClassification")
    return auto.replace("AutoModel", "AutoPeftModel") if auto.endswith(heads) else "AutoPeftModel"


def pipeline_tag(architecture: str) -> str | None:
    """What the Hub calls the task of a class; None where the class does not tell."""
    return next((tag for ending, (_, tag) in _ENDINGS.items() if architecture.endswith(ending)), None)


def _use_adapter(facts: Facts) -> Iterable[str]:
    auto = _auto_peft_class(facts.architecture)
    classes = len(facts.config.get("id2label") or ()) if auto.endswith("SequenceClassification") else 0
    more = f", num_labels={classes}" if classes else ""
    more += ", trust_remote_code=True" if facts.absent else ""
    yield f'```python\nfrom peft import {auto}\n\nmodel = {auto}.from_pretrained("{facts.name}"{more})\n```'
    head = ", and brings the trained head; `bias_patch/config.json` names the labels" if classes else ""
    yield f"It is loaded on its base{head}. `hf-bias-patch verify {facts.name}` compares both with the training record."


def loading(facts: Facts) -> Iterable[str]:
    """Paragraphs of Markdown: how it is loaded, and how it is checked again."""
    yield "## How to load it"
    if facts.adapter is not None:
        yield from _use_adapter(facts)
        return
    auto = _auto_class(facts.architecture)
    if facts.patch_only:
        yield "On the Hub it has no weights, but what makes them of the base's, which is fetched and checked by sha256:"
        yield (
            f"```python\nimport hf_bias_patch\nfrom transformers import {auto}\n\n"
            f'model = hf_bias_patch.load("{facts.name}", {auto})\n```'
        )
        yield f"`hf-bias-patch pull {facts.name} OUT` makes a folder of it, which loads without this package."
        return
    trust = ", trust_remote_code=True" if facts.absent else ""
    if facts.absent:
        yield "The biases are not in the file, so it brings a small loader (`modeling_bias_patch.py`):"
    yield f'```python\nfrom transformers import {auto}\n\nmodel = {auto}.from_pretrained("{facts.name}"{trust})\n```'
    if facts.plan is None:
        command = f"hf-bias-patch verify {facts.name} --against {_compared_with(facts)}"
        yield f"`{command}` compares it with its source again."
        return
    against = "" if facts.training else f" --against {facts.base.name}"
    theirs = "the fine-tuned weights" if facts.training else "the base's weights"
    yield (
        f"`hf-bias-patch verify {facts.name}{against}` measures it again, and "
        f"`hf-bias-patch revert {facts.name} OUT` gives back {theirs}, bit for bit{_again(facts.base)}."
    )


def _compared_with(facts: Facts) -> str:
    """What `verify` takes for a fine-tuned model: its source, or the base where only one patch lies between."""
    assert facts.training is not None, "a model without a plan was fine-tuned"
    near = facts.training.earlier is None and (facts.before is not None or facts.training.source == facts.training.base)
    return facts.base.name if near else facts.training.source.name


def _again(base: BaseRef) -> str:
    """A revert takes one patch back."""
    return (
        f", once `hf-bias-patch revert OUT` took the {base.patches - 1} before it back too" if base.patches > 1 else ""
    )
