"""Texts as batches of tensors, each with what its loss is taken of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_bias_patch.errors import DataError
from hf_bias_patch.models.inputs.token_ids import first_known
from hf_bias_patch.scoring.collate import IGNORED
from hf_bias_patch.scoring.heads import HeadKind, longest_input
from hf_bias_patch.scoring.padding import choose_padding
from hf_bias_patch.scoring.score import batches_by_length

if TYPE_CHECKING:
    import torch

__all__ = ["Batch", "Inputs", "make_inputs"]

_MASKED = 0.15
"""Share of the tokens that a masked language model is asked for, as in BERT's training."""


@dataclass(frozen=True)
class Batch:
    """Some texts of nearly equal length.

    Attributes:
        inputs: what the model is called with: `input_ids` and `attention_mask`, int64, shape (texts, tokens); for an
            encoder-decoder also `decoder_input_ids`.
        counted: bool, shape (texts, tokens): where the model's last states are compared (not in padding).
        labels: int64, shape (texts, tokens): the right token at each place, -100 where none is asked for; None for a
            model without a language modelling head.
    """

    inputs: dict[str, torch.Tensor]
    counted: torch.Tensor
    labels: torch.Tensor | None

    @property
    def asked(self) -> torch.Tensor:
        """bool, shape (texts, tokens): where a token is asked for."""
        assert self.labels is not None
        return self.labels != IGNORED


@dataclass(frozen=True)
class Inputs:
    """All of them.

    Attributes:
        rows: token ids of each text.
        truncated: texts that were longer than the model takes, and were cut.
        longest: tokens that it takes.
    """

    rows: tuple[tuple[int, ...], ...]
    truncated: int
    longest: int
    _form: HeadKind | None
    _pad: int
    _mask: int | None
    _start: int | None
    _seed: int

    @property
    def has_labels(self) -> bool:
        """Whether the model is asked for tokens."""
        return self._form is not None

    @property
    def masked(self) -> bool:
        """Whether it is asked for some tokens, which it does not see."""
        return self._form == "masked"

    def batches(self, tokens: int, device: str) -> Iterator[Batch]:
        """In batches by length, the longest first; what is masked depends on the text and the seed alone.

        Args:
            tokens: in a batch, padding included.
            device: of torch.
        """
        for members in batches_by_length([len(row) for row in self.rows], tokens):
            yield self.batch(members, device)

    def batch(self, members: Sequence[int], device: str) -> Batch:
        """Some texts, by their numbers, padded to the longest."""
        import torch

        width = max(len(self.rows[member]) for member in members)
        ids = torch.full((len(members), width), self._pad)
        there = torch.zeros(len(members), width, dtype=torch.bool)
        for line, member in enumerate(members):
            ids[line, : len(self.rows[member])] = torch.tensor(self.rows[member])
            there[line, : len(self.rows[member])] = True
        made = self._laid_out(ids, there, members)
        return Batch(
            {name: values.to(device) for name, values in made.inputs.items()},
            made.counted.to(device),
            None if made.labels is None else made.labels.to(device),
        )

    def _laid_out(self, ids: torch.Tensor, there: torch.Tensor, members: Sequence[int]) -> Batch:
        inputs = {"input_ids": ids, "attention_mask": there.long()}
        if self._form == "masked":
            asked = self._asked(there, members)
            labels = ids.masked_fill(~asked, IGNORED)
            return Batch(inputs | {"input_ids": ids.masked_fill(asked, int(self._mask or 0))}, there, labels)
        labels = ids.masked_fill(~there, IGNORED)
        if self._form == "seq2seq":  # it is asked to say what it read, as a denoising model was trained to
            shifted = ids.roll(1, 1)
            shifted[:, 0] = int(self._start or 0)
            return Batch(inputs | {"decoder_input_ids": shifted}, there, labels)
        if self._form == "causal":
            import torch

            following = torch.full_like(labels, IGNORED)
            following[:, :-1] = labels[:, 1:]
            return Batch(inputs, there, following)
        return Batch(inputs, there, None)

    def _asked(self, there: torch.Tensor, members: Sequence[int]) -> torch.Tensor:
        import torch

        asked = torch.zeros_like(there)
        for line, member in enumerate(members):
            random = torch.Generator().manual_seed(self._seed * 1_000_003 + member)
            inner = torch.arange(1, max(2, int(there[line].sum()) - 1))  # not the tokens that frame a text
            count = max(1, round(_MASKED * len(inner)))
            asked[line, inner[torch.randperm(len(inner), generator=random)[:count]]] = True
        return asked & there


def make_inputs(texts: Sequence[str], tokenizer: Any, model: Any, form: HeadKind | None, seed: int) -> Inputs:
    """Tokenise texts for a model; those that it cannot take whole are cut, and counted.

    Args:
        texts: one or more.
        tokenizer, model: that belong together.
        form: of the model; None without a head that is known here.
        seed: of what is masked.

    Raises:
        DataError: there is no text, or none with two tokens; or the tokenizer gives tokens that the model has not.
        TaskError: the tokenizer has no token to pad with.
    """
    longest = longest_input(tokenizer, model.config)
    whole = [tokenizer(text, verbose=False)["input_ids"] for text in texts]
    rows = tuple(tuple(row[:longest]) for row in whole if len(row) > 1)
    if not rows:
        raise DataError(
            "There is no text to study the model on",
            why=f"Of {len(texts)} texts the tokenizer makes fewer than two tokens each",
            remedy="Give texts of two words or more, one a line, or the tokenizer that belongs to the model",
        )
    known = len(model.get_input_embeddings().weight)
    _check_vocabulary(rows, known)
    if form == "classifier":  # it is asked for a label, and for no token
        form = None
    if form == "masked" and first_known([tokenizer.mask_token_id], known) is None:
        form = None  # without a token to hide words behind, states and logits are compared, and no loss
    return Inputs(
        rows,
        sum(len(row) > longest for row in whole),
        longest,
        form,
        choose_padding(model, tokenizer).id,
        tokenizer.mask_token_id,
        first_known([getattr(model.config, "decoder_start_token_id", None)], known),
        seed,
    )


def _check_vocabulary(rows: Sequence[Sequence[int]], known: int) -> None:
    largest = max(map(max, rows))
    if largest >= known:
        raise DataError(
            f"The tokenizer makes the token {largest} of these texts, and the model knows {known:,}, from 0",
            why="So it is another model's tokenizer",
            remedy="Put the right one into the checkpoint's folder",
        )
