"""From encoded rows to padded batches of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

__all__ = ["IGNORED", "KEPT_ASIDE", "Collator", "mask_tokens"]

IGNORED = -100
"""The label of a position that no loss counts."""

KEPT_ASIDE = ("row", "length", "document")
"""Columns of a batch that are not inputs of a model; take them off before calling it."""


@dataclass(frozen=True)
class Collator:
    """Pads rows to the longest of a batch.

    Attributes:
        pad: number of the padding token.
        side: where padding is put; `left` for decoder-only models that generate.
        multiple_of: lengths are rounded up to it; 8 suits the tensor cores of GPUs.
    """

    pad: int
    side: Literal["left", "right"] = "right"
    multiple_of: int = 1

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch: `input_ids`, `attention_mask` (B × T, int64), the other columns, and `row` (B).

        Numbers become vectors (`labels` of classification int64, of regression float32), lists are padded: labels with
        -100, all else with 0.
        """
        import torch

        batch = {"attention_mask": self._padded([[1] * len(row["input_ids"]) for row in rows], 0)}
        for name in rows[0]:
            values = [row[name] for row in rows]
            if isinstance(values[0], list):
                fill = {"input_ids": self.pad, "labels": IGNORED}.get(name, 0)
                batch[name] = self._padded(values, fill)
            else:
                kind = torch.float32 if isinstance(values[0], float) else torch.int64
                batch[name] = torch.tensor(values, dtype=kind)
        return batch

    def _padded(self, lists: Sequence[list[int]], fill: int) -> torch.Tensor:
        import torch

        longest = -(-max(map(len, lists)) // self.multiple_of) * self.multiple_of
        padded = torch.full((len(lists), longest), fill, dtype=torch.int64)
        for i, values in enumerate(lists):
            if values:
                place = slice(longest - len(values), None) if self.side == "left" else slice(len(values))
                padded[i, place] = torch.tensor(values, dtype=torch.int64)
        return padded


def mask_tokens(
    ids: torch.Tensor, tokenizer: Any, generator: torch.Generator | None = None, share: float = 0.15
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask tokens as BERT's training did: of a share of them 80 % are masked, 10 % replaced, 10 % left as they are.

    Args:
        ids: (B × T), int64.
        tokenizer: of the model; its special tokens, padding among them, are never masked.
        generator: of random numbers; torch's own if None.
        share: of the other tokens, the part to predict.

    Returns:
        The inputs and the labels, which are -100 wherever nothing is to be predicted.
    """
    import torch

    special = torch.isin(ids, torch.tensor(sorted(set(tokenizer.all_special_ids)), dtype=torch.int64))
    chosen = (torch.rand(ids.shape, generator=generator) < share) & ~special
    fate = torch.rand(ids.shape, generator=generator)
    noise = torch.randint(len(tokenizer), ids.shape, generator=generator)
    inputs = torch.where(chosen & (fate < 0.9), noise, ids)
    return inputs.masked_fill(chosen & (fate < 0.8), tokenizer.mask_token_id), ids.masked_fill(~chosen, IGNORED)
