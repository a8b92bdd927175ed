"""Tokenised texts as batches of tensors, with the labels of their loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from hf_bias_patch.assets.stories import stories
from hf_bias_patch.assets.world import make_world
from hf_bias_patch.errors import DataError
from hf_bias_patch.models.inputs.token_ids import first_known
from hf_bias_patch.scoring.collate import IGNORED
from hf_bias_patch.scoring.heads import HeadKind, longest_input
from hf_bias_patch.scoring.padding import choose_padding
from hf_bias_patch.scoring.score import batches_by_length

if TYPE_CHECKING:
    import torch

__all__ = ["TextBatch", "TokenisedTexts", "embedded_texts", "make_inputs"]

_MASKED = 0.15
"""Share of the tokens that a masked language model predicts, as in BERT's training."""

_SEED = 20_100
"""Of a world and its documents that no embedded checkpoint was trained on."""


@dataclass(frozen=True)
class TextBatch:
    """Some texts of nearly equal length.

    Attributes:
        inputs: what the model is called with: `input_ids` and `attention_mask`, int64, shape (texts, tokens); for an
            encoder-decoder also `decoder_input_ids`.
        counted: bool, shape (texts, tokens): where the model's last hidden states are compared (not in padding).
        labels: int64, shape (texts, tokens): the right token at each place, -100 where none is predicted; None for a
            model without a language modelling head.
    """

    inputs: dict[str, torch.Tensor]
    counted: torch.Tensor
    labels: torch.Tensor | None

    @property
    def predicted(self) -> torch.Tensor:
        """bool, shape (texts, tokens): where a token is predicted."""
        assert self.labels is not None
        return self.labels != IGNORED


@dataclass(frozen=True)
class TokenisedTexts:
    """The texts of a study as token ids.

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
        """Whether the model predicts tokens, and so has a loss."""
        return self._form is not None

    @property
    def masked(self) -> bool:
        """Whether it predicts some tokens that are hidden from it."""
        return self._form == "masked"

    def batches(self, tokens: int, device: str) -> Iterator[TextBatch]:
        """Batches by length, the longest first; what is masked depends only on the text and the seed.

        Args:
            tokens: in a batch, padding included.
            device: of torch.
        """
        for members in batches_by_length([len(row) for row in self.rows], tokens):
            yield self.batch(members, device)

    def batch(self, members: Sequence[int], device: str) -> TextBatch:
        """A batch of some texts, by their indices, padded to the longest."""
        import torch

        width = max(len(self.rows[member]) for member in members)
        ids = torch.full((len(members), width), self._pad)
        there = torch.zeros(len(members), width, dtype=torch.bool)
        for line, member in enumerate(members):
            ids[line, : len(self.rows[member])] = torch.tensor(self.rows[member])
            there[line, : len(self.rows[member])] = True
        made = self._laid_out(ids, there, members)
        return TextBatch(
            {name: values.to(device) for name, values in made.inputs.items()},
            made.counted.to(device),
            None if made.labels is None else made.labels.to(device),
        )

    def _laid_out(self, ids: torch.Tensor, there: torch.Tensor, members: Sequence[int]) -> TextBatch:
        inputs = {"input_ids": ids, "attention_mask": there.long()}
        if self._form == "masked":
            hidden = self._predicted(there, members)
            labels = ids.masked_fill(~hidden, IGNORED)
            return TextBatch(inputs | {"input_ids": ids.masked_fill(hidden, int(self._mask or 0))}, there, labels)
        labels = ids.masked_fill(~there, IGNORED)
        if self._form == "seq2seq":  # it predicts its own input, as in the training of denoising models
            shifted = ids.roll(1, 1)
            shifted[:, 0] = int(self._start or 0)
            return TextBatch(inputs | {"decoder_input_ids": shifted}, there, labels)
        if self._form == "causal":
            import torch

            following = torch.full_like(labels, IGNORED)
            following[:, :-1] = labels[:, 1:]
            return TextBatch(inputs, there, following)
        return TextBatch(inputs, there, None)

    def _predicted(self, there: torch.Tensor, members: Sequence[int]) -> torch.Tensor:
        import torch

        hidden = torch.zeros_like(there)
        for line, member in enumerate(members):
            random = torch.Generator().manual_seed(self._seed * 1_000_003 + member)
            inner = torch.arange(1, max(2, int(there[line].sum()) - 1))  # not the tokens that frame a text
            count = max(1, round(_MASKED * len(inner)))
            hidden[line, inner[torch.randperm(len(inner), generator=random)[:count]]] = True
        return hidden & there


def make_inputs(texts: Sequence[str], tokenizer: Any, model: Any, form: HeadKind | None, seed: int) -> TokenisedTexts:
    """Tokenise texts for a model; those that are too long are cut, and counted.

    Args:
        texts: one or more.
        tokenizer, model: that belong together.
        form: of the model; None without a head that is known here.
        seed: of masking.

    Raises:
        DataError: no text has two tokens, or the tokenizer gives tokens that the model does not have.
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
    if form == "classifier":  # it predicts a label, and no token
        form = None
    if form == "masked" and first_known([tokenizer.mask_token_id], known) is None:
        form = None  # without a token to hide words behind, states and logits are compared, and no loss
    return TokenisedTexts(
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
            f"The tokenizer gives token id {largest}, and the model's vocabulary has {known:,} tokens",
            why="The tokenizer belongs to another model",
            remedy="Put the right one into the checkpoint's folder",
        )


def embedded_texts(count: int) -> list[str]:
    """The first `count` stories of a generated world that have 20 to 100 words; always the same."""
    drawn = (document.text for document in stories(make_world(_SEED), 100 * count, _SEED))
    return list(islice((text for text in drawn if 20 <= len(text.split()) <= 100), count))
