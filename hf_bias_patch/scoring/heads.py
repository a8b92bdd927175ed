"""The kind of a model's head, which says what tasks it can do and how texts are laid out for it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.metric_info import TaskKind

__all__ = [
    "AUTO_CLASSES",
    "HeadKind",
    "bare",
    "head_kind_of",
    "head_kind_of_class",
    "input_limit",
    "longest_input",
    "readable",
    "require_head",
    "text_config",
    "unwrapped",
    "vocabulary",
]

HeadKind = Literal["classifier", "masked", "causal", "seq2seq"]

AUTO_CLASSES: dict[HeadKind, str] = {
    "classifier": "AutoModelForSequenceClassification",
    "masked": "AutoModelForMaskedLM",
    "causal": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
}
_MAPPINGS: dict[HeadKind, str] = {
    "classifier": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "masked": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
}
_HEADS_OF: dict[TaskKind, tuple[HeadKind, ...]] = {
    "classification": ("classifier",),
    "regression": ("classifier",),
    "language_modelling": ("causal", "masked"),
    "generation": ("seq2seq", "causal"),
}
_ENDLESS = 1_000_000  # tokenizers without a limit have some astronomic number

# Their positions start after the number of the padding token.
_SHIFTED = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer", "mpnet", "roberta-prelayernorm"}


def head_kind_of_class(name: str) -> HeadKind | None:
    """The kind of head of a transformers class, such as `BertForMaskedLM`; None if it has another head or none."""
    from transformers.models.auto import modeling_auto

    # BART's class of generation is in the masked table too: the first table that knows a class decides.
    for head, mapping in _MAPPINGS.items():
        classes: list[Any] = list(getattr(modeling_auto, mapping).values())
        if any(name in (known if isinstance(known, tuple) else (known,)) for known in classes):
            return head
    return None


def unwrapped(model: Any) -> Any:
    """The model inside of DistributedDataParallel and torch.compile, which has `config` and `generate`."""
    for name in ("module", "_orig_mod", "module"):
        model = getattr(model, name, model)
    return model


def bare(model: Any) -> Any:
    """The transformers model inside of an adapter's wrapper too."""
    inner = unwrapped(model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def text_config(model: Any) -> Any:
    """The config that the model's layers read: the text config, where it has several."""
    config = bare(model).config
    return config if config.is_encoder_decoder else config.get_text_config()


def vocabulary(model: Any) -> int:
    """The size of a model's vocabulary: rows of its embedding, more or fewer than its tokenizer may have."""
    embedding = bare(model).get_input_embeddings()
    return int(getattr(embedding, "num_embeddings", None) or text_config(model).vocab_size)


def head_kind_of(model: Any) -> HeadKind:
    """The kind of head of a loaded model, also of one wrapped by peft, DistributedDataParallel or torch.compile.

    Raises:
        TaskError: it has no head that any task here could use.
    """
    inner = bare(model)
    for kind in type(inner).__mro__:
        if head := head_kind_of_class(kind.__name__):
            return head
    raise TaskError(
        f"{type(inner).__name__} has no head for any task here",
        remedy=f"Load it with one of {', '.join(AUTO_CLASSES.values())}",
    )


def require_head(kind: TaskKind, head: HeadKind | None, name: str) -> HeadKind:
    """The head, if it can do a task of this kind.

    Args:
        kind: of the task.
        head: of the model; None if it has none that is supported.
        name: of the model, for the error.

    Raises:
        TaskError: it cannot.
    """
    taken = _HEADS_OF[kind]
    if head is not None and head in taken:
        return head
    has = f"a head for {AUTO_CLASSES[head].removeprefix('AutoModelFor')}" if head else "no supported head"
    needs = " or ".join(AUTO_CLASSES[wanted].removeprefix("AutoModelFor") for wanted in taken)
    remedy = f"Use a model with a head for {needs}"
    if taken == ("classifier",):
        remedy = "Train one first: `hf-bias-patch tune glue`; or use a checkpoint that was tuned on the task"
    raise TaskError(f"{name} has {has}, and a {kind} task needs one for {needs}", remedy=remedy)


def readable(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a tokenizer that a model reads.

    BERT's tokenizer tells the two texts of a pair apart by `token_type_ids`, also where the model does not read them
    (DistilBERT), or has one type only (RoBERTa).
    """
    inner, left_out = bare(model), set()
    types = getattr(inner.config, "type_vocab_size", None)
    if "token_type_ids" not in inspect.signature(type(inner).forward).parameters or (types is not None and types < 2):
        left_out.add("token_type_ids")
    return {name: value for name, value in inputs.items() if name not in left_out}


def longest_input(tokenizer: Any, config: Any) -> int:
    """The most tokens that a model takes: what its positions and its tokenizer both allow; 1024 if neither says."""
    limits = [tokenizer.model_max_length]
    for name in ("max_position_embeddings", "n_positions", "max_source_positions", "n_ctx"):
        if isinstance(positions := getattr(config, name, None), int) and positions > 0:
            shifted = config.model_type in _SHIFTED and config.pad_token_id is not None
            limits.append(positions - (config.pad_token_id + 1 if shifted else 0))
            break
    return int(min((limit for limit in limits if limit < _ENDLESS), default=1024))


def input_limit(tokenizer: Any, config: Any, requested: int | None) -> int:
    """The most tokens of an input: `requested`, but no more than the model takes."""
    longest = longest_input(tokenizer, config)
    return longest if requested is None else min(requested, longest)
