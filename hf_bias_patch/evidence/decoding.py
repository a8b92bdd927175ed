"""Greedy decoding of two models with the cache of keys and values, compared token for token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_bias_patch.evidence.certificate import DecodingComparison, Fork
from hf_bias_patch.models.inputs.text import NEW_TOKENS, TextFormat, TokenBatch
from hf_bias_patch.models.inputs.token_ids import first_known
from hf_bias_patch.models.load import quiet

if TYPE_CHECKING:
    import torch

__all__ = ["Decoded", "compare_decoded", "decode"]


@dataclass(frozen=True)
class Decoded:
    """What a model says to one batch of prompts.

    Attributes:
        tokens: ids, int64, shape (rows, steps).
        gaps: difference of the two largest logits, float64, shape (rows, steps).
    """

    tokens: torch.Tensor
    gaps: torch.Tensor


def decode(model: Any, form: TextFormat, prompts: Sequence[TokenBatch]) -> list[Decoded]:
    """Decode every prompt greedily, with a cache, not stopping at an end-of-sequence token.

    The checkpoint's own generation settings (beams, penalties, lengths) are set aside: each of them would make one
    wrong token harder to see.
    """
    if not prompts:
        return []
    kept = model.generation_config
    try:
        return [_decode(model, form, prompt) for prompt in prompts]
    finally:
        model.generation_config = kept


def _decode(model: Any, form: TextFormat, prompt: TokenBatch) -> Decoded:
    import torch
    from transformers import GenerationConfig

    used = 1 if form.encoder_decoder else prompt.mask.shape[1]
    model.generation_config = GenerationConfig(
        max_new_tokens=max(1, min(NEW_TOKENS, form.limit - used)),
        do_sample=False,
        num_beams=1,
        use_cache=True,
        pad_token_id=form.pad,
        bos_token_id=_start(model, form),
        decoder_start_token_id=_start(model, form) if form.encoder_decoder else None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    with torch.no_grad(), quiet():
        result = model.generate(**prompt.inputs)
    logits = torch.stack(result.logits, dim=1).double()
    best = logits.topk(2, dim=-1).values
    return Decoded(logits.argmax(-1), best[..., 0] - best[..., 1])


def _start(model: Any, form: TextFormat) -> int:
    config = model.config
    decoder = getattr(config, "decoder", None)
    named = [getattr(config, "decoder_start_token_id", None), getattr(config, "bos_token_id", None)]
    named += [getattr(decoder, "bos_token_id", None), form.pad]
    return first_known(named, form.size) or 0


def compare_decoded(
    prompts: Sequence[TokenBatch], source: Sequence[Decoded], variant: Sequence[Decoded], floor: float
) -> DecodingComparison:
    """Compare what two models say to the same prompts.

    At the first token that differs, the two best logits of the source decide: each of them is uncertain by the noise
    floor, so if they lie closer than twice that, the token is a tie, which rounding decides. The sequence is not
    compared further, since its two continuations answer different inputs.

    Args:
        floor: noise floor of a logit in the storage dtype, absolute.
    """
    tokens, forks = 0, []
    for prompt, ours, theirs in zip(prompts, source, variant, strict=True):
        for row, (old, new) in enumerate(zip(ours.tokens.tolist(), theirs.tokens.tolist(), strict=True)):
            step = next((i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b), len(old))
            tokens += step
            if step < len(old):
                gap = float(ours.gaps[row, step])
                forks.append(Fork(prompt=prompt.name, row=row, step=step, gap=gap, floor=floor, tie=gap <= 2 * floor))
    return DecodingComparison(sequences=sum(len(batch.tokens) for batch in source), tokens=tokens, forks=tuple(forks))
