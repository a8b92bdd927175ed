"""Losses as sums over what they count, so that a mean is right however a step is cut into batches and processes."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy, mse_loss

from hf_bias_patch.scoring.collate import IGNORED

__all__ = ["label_loss", "score_loss", "token_loss"]


def label_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, in nats, summed over samples.

    Args:
        logits: (samples, classes).
        labels: (samples), int64.
    """
    return cross_entropy(logits.float(), labels, reduction="sum")


def score_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Squared error, summed over samples.

    Args:
        logits: (samples, 1).
        labels: (samples), floating.
    """
    return mse_loss(logits.float().squeeze(-1), labels.float(), reduction="sum")


def token_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, in nats, summed over the tokens that count.

    Args:
        logits: (samples, tokens, vocabulary); of each token that is to be told, not of the one before it.
        labels: (samples, tokens), int64; `IGNORED` where a token does not count.
    """
    return cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=IGNORED)
