"""Tiny transformers models on which an edit that should matter does.

Fresh transformers models have all-zero biases, on which every edit of a bias passes, and weights so small that
attention is uniform, so that no query matters. Here every bias is random, and every weight is of a real size.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import EncoderDecoderConfig, PreTrainedModel

__all__ = [
    "DTYPES",
    "FAMILIES",
    "NAMES",
    "WITH_NORMS",
    "config_of",
    "error",
    "fresh",
    "heads",
    "inputs_of",
    "outputs_of",
    "randomise",
    "run",
]

VOCABULARY = 60
WIDTH = 32
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
FAMILIES = ("bert", "roberta", "distilbert", "electra", "gpt2", "bart", "mbart")

_COMMON: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_BERT = _COMMON | {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
_GPT2 = _COMMON | {"n_embd": WIDTH, "n_layer": 3, "n_head": 4, "n_inner": 48, "n_positions": 40}
_BART = _COMMON | {
    "d_model": WIDTH,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 40,
    "decoder_start_token_id": 2,
}
_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", _BERT),
    "roberta": ("Roberta", _BERT),
    "distilbert": (
        "DistilBert",
        _COMMON | {"dim": WIDTH, "n_layers": 3, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 40},
    ),
    "electra": ("Electra", _BERT | {"embedding_size": WIDTH}),
    "electra-projected": ("Electra", _BERT | {"embedding_size": 24}),
    "gpt2": ("GPT2", _GPT2),
    "gpt2-cross": ("GPT2", _GPT2 | {"add_cross_attention": True}),
    "bert-cross": ("Bert", _BERT | {"is_decoder": True, "add_cross_attention": True}),
    "bart": ("Bart", _BART),
    "mbart": ("MBart", _BART),
}
_PAIRS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert+bert": ("bert", "bert", {}),
    "bert+gpt2": ("bert", "gpt2", {}),
    "bert+gpt2-bridged": ("bert", "gpt2", {"n_embd": 40}),
}
NAMES = (*_CONFIGS, *_PAIRS)
"""Every model there is here."""

WITH_NORMS: dict[str, dict[str, Any]] = {
    "electra-projected": {"layers": "1-2"},
    "gpt2-cross": {"attention": "self"},
    "bert-cross": {"attention": "self"},
    "bert+gpt2-bridged": {"attention": "self"},
}
"""Selectors that leave out, of models that have such, the sites where some projection reads no layer norm."""

_HEADS = {
    "bert": "BertForMaskedLM",
    "roberta": "RobertaForMaskedLM",
    "distilbert": "DistilBertForMaskedLM",
    "electra": "ElectraForMaskedLM",
    "electra-projected": "ElectraForMaskedLM",
    "gpt2": "GPT2LMHeadModel",
    "gpt2-cross": "GPT2LMHeadModel",
    "bert-cross": "BertLMHeadModel",
    "bart": "BartForConditionalGeneration",
    "mbart": "MBartForConditionalGeneration",
}


def config_of(name: str, **changes: Any) -> Any:
    """The config of one of `NAMES`, of three layers (encoders that have a decoder behind them: of two)."""
    if name in _PAIRS:
        encoder, decoder, other = _PAIRS[name]
        configs = config_of(encoder, num_hidden_layers=2), config_of(decoder, **other)
        pair = EncoderDecoderConfig.from_encoder_decoder_configs(*configs, **changes)
        pair.pad_token_id, pair.decoder_start_token_id = 0, 2
        return pair
    prefix, fields = _CONFIGS[name]
    return getattr(transformers, f"{prefix}Config")(**fields | changes)


def heads(family: str) -> list[type[PreTrainedModel]]:
    """Every model class that transformers has for a model type: the base model and each task head."""
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    found = [getattr(module, name) for name in module.__all__ if "pretrained" not in name.lower()]
    models = [item for item in found if issubclass(item, PreTrainedModel)]
    assert len(models) >= 5, "vacuous"
    return models


def randomise(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Give every parameter a random value of a real size, and check that no bias is zero anywhere.

    Much larger maps would make all tokens alike after two layers: then no query matters, and nothing is shown.
    """
    random = torch.Generator().manual_seed(seed)
    checked = 0
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                mean = 1.0 if name == "weight" and isinstance(module, nn.LayerNorm) else 0.0
                size = 1.0 if isinstance(module, nn.Embedding) else 0.15 if parameter.ndim > 1 else 0.3
                parameter.normal_(mean, size, generator=random)
                if name.endswith("bias"):
                    assert (parameter != 0).all(), f"{module} has zeros"
                    checked += 1
    assert checked > 10, "vacuous"
    return model


def fresh(
    name: str,
    head: type[PreTrainedModel] | None = None,
    dtype: torch.dtype = torch.float64,
    attention: str = "eager",
) -> PreTrainedModel:
    """A random model of its own, in evaluation mode: one of `NAMES`, with its language-model head or another."""
    model: PreTrainedModel = copy.deepcopy(_made(name, head)).to(dtype)
    model.set_attn_implementation(attention)
    return model


@cache
def _made(name: str, head: type[PreTrainedModel] | None) -> PreTrainedModel:
    stock: Callable[..., PreTrainedModel]
    stock = head or getattr(transformers, _HEADS.get(name, "EncoderDecoderModel"))
    return randomise(stock(config_of(name)).double()).eval()


def inputs_of(model: PreTrainedModel, seed: int = 0, length: int = 9, padded: bool = True) -> dict[str, Tensor]:
    """Random token ids for a model, of two sequences, the second of them padded; whatever else it must be given."""
    random = torch.Generator().manual_seed(seed)
    several = (3,) if "MultipleChoice" in type(model).__name__ or "DoubleHeads" in type(model).__name__ else ()
    ids = torch.randint(3, VOCABULARY, (2, *several, length), generator=random)
    mask = torch.ones_like(ids)
    if padded:
        mask[1, ..., -3:] = 0
    ids[mask == 0] = model.config.pad_token_id
    ends = mask.sum(-1, keepdim=True) - 1
    ids.scatter_(-1, ends, 2)  # BART's classifier reads the last end-of-text token
    given = {"input_ids": ids, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        own = torch.randint(3, VOCABULARY, (2, length - 1), generator=random)
        given["decoder_input_ids"] = ids if _reads_own_end(model) else own
    elif getattr(model.config, "add_cross_attention", False):
        memory = torch.randn(2, 5, WIDTH, generator=random, dtype=torch.float64)
        given["encoder_hidden_states"] = memory.to(model.dtype)
    return given


def _reads_own_end(model: PreTrainedModel) -> bool:
    return "SequenceClassification" in type(model).__name__


def run(model: PreTrainedModel, **given: Any) -> Any:
    """The outputs of a model, of both its stacks, as transformers names them."""
    # Without a cache: transformers sizes that of BartForCausalLM by the encoder's layers.
    more = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    with torch.no_grad():
        return model(**given, **more, output_hidden_states=True)


def outputs_of(model: PreTrainedModel, given: dict[str, Tensor] | None = None, **more: Any) -> dict[str, Tensor]:
    """What a model computes: every floating-point output by name, and the last hidden state of each stack."""
    out = run(model, **(inputs_of(model) if given is None else given), **more)
    return dict(_named(out))


def _named(out: Any) -> Iterator[tuple[str, Tensor]]:
    found = 0
    for name, value in out.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            found += 1
            yield name, value
        elif name.endswith("hidden_states"):
            yield f"last of {name}", value[-1]
    assert found, "vacuous"


def error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest difference of any output, relative to that output's largest value."""
    assert found.keys() == expected.keys() and expected
    return max(
        ((found[name].double() - value.double()).abs().max() / value.double().abs().max()).item()
        for name, value in expected.items()
    )
