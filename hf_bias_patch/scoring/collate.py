"""From encoded rows to padded batches of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

__all__ = ["IGNORED", "KEPT_ASIDE", "Collator", "MaskingCollator"]

IGNORED = -100
"""The label of a position that no loss looks at."""

KEPT_ASIDE = ("row", "length", "document")
"""Columns of a batch that are no input of a model; take them off before calling it."""


@dataclass(frozen=True)
class Collator:
    """Pads rows to the longest of a batch.

    Attributes:
        pad: number of the padding token.
        side: where padding goes; `left` for decoder-only models that generate.
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


@dataclass(frozen=True)
class MaskingCollator:
    """Pads, and masks as BERT's training did: of a share of the tokens 80 % masked, 10 % replaced, 10 % left.

    Attributes:
        plain: pads.
        mask: number of the mask token.
        vocabulary: numbers below it may replace a token.
        special: numbers of the tokens that are never masked.
        share: of the other tokens, the part to predict.
        generator: of random numbers; torch's own if None.
    """

    plain: Collator
    mask: int
    vocabulary: int
    special: frozenset[int] = field(default_factory=frozenset)
    share: float = 0.15
    generator: Any = None

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch as of `Collator`, with `labels` -100 wherever nothing is to be predicted."""
        import torch

        batch = self.plain(rows)
        ids = batch["input_ids"]
        fixed = torch.isin(ids, torch.tensor(sorted(self.special), dtype=torch.int64)) | (batch["attention_mask"] == 0)
        chosen = (torch.rand(ids.shape, generator=self.generator) < self.share) & ~fixed
        batch["labels"] = ids.masked_fill(~chosen, IGNORED)
        fate = torch.rand(ids.shape, generator=self.generator)
        noise = torch.randint(self.vocabulary, ids.shape, generator=self.generator)
        ids = torch.where(chosen & (fate < 0.9), noise, ids)
        batch["input_ids"] = ids.masked_fill(chosen & (fate < 0.8), self.mask)
        return batch
