"""Token ids to run text models on: random ones of several lengths, padded batches, and the user's texts."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.errors import VerifyError
from hf_bias_patch.models.inputs.token_ids import first_known, pad_of, special_ids, vocabulary_size
from hf_bias_patch.models.source_files import load_tokenizer

if TYPE_CHECKING:
    import torch

__all__ = ["NEW_TOKENS", "TextFormat", "TokenBatch", "padded", "prompt_batches", "read_texts", "text_batches"]

LONG = 128  # tokens; beyond that only time is added
MEDIUM = 16
PADDED = 33
MEMORY = 7  # encoder states, where they are inputs
TEXTS_A_BATCH = 8
NEW_TOKENS = 24


@dataclass(frozen=True)
class TokenBatch:
    """One batch.

    Attributes:
        name: what it is, for the certificate.
        inputs: keyword arguments of the model's forward (or generate); floating ones are float32, to be cast.
        mask: which positions of the (encoder's) input are no padding; bool, shape (rows, length).
        decoder_mask: the same for the decoder of an encoder-decoder model; None for other models.
        inner: whether hidden states and attention weights are worth comparing on it (it is short).
    """

    name: str
    inputs: dict[str, torch.Tensor]
    mask: torch.Tensor
    decoder_mask: torch.Tensor | None = None
    inner: bool = False


@dataclass(frozen=True)
class TextFormat:
    """What a model class takes as input.

    Attributes:
        size: ids are below it.
        vocabulary, decoder_vocabulary: ids that random inputs are drawn from, int64, 1-D; special ids are not in them.
        limit: longest input, in tokens.
        pad: id that fills padded positions.
        eos: id that must end each row; None where none must.
        encoder_decoder: whether the output comes from a decoder that reads an encoder.
        decoder_inputs: whether decoder ids are given (else the model derives them).
        memory: width of the encoder states to give; 0 where none are (a decoder with cross-attention, but no encoder).
        choices: whether inputs have one more axis, (1, rows, length), for multiple choice.
        generates: whether the model decodes step by step.
    """

    size: int
    vocabulary: torch.Tensor
    decoder_vocabulary: torch.Tensor
    limit: int
    pad: int
    eos: int | None
    encoder_decoder: bool
    decoder_inputs: bool
    memory: int
    choices: bool
    generates: bool

    @classmethod
    def of(cls, model: Any, special: Sequence[int] = ()) -> TextFormat:
        """The format of a loaded model's inputs.

        Args:
            model: a transformers model.
            special: more ids that random inputs must not hold, such as the tokenizer's special ones.
        """
        config = model.config
        parts = [part for part in (getattr(config, "encoder", None), getattr(config, "decoder", None)) if part]
        encoder, decoder = parts if len(parts) == 2 else (config, config)
        size = vocabulary_size(config)
        classifies = type(model).__name__.endswith("ForSequenceClassification")
        takes = inspect.signature(model.forward).parameters
        reads_states = getattr(config, "add_cross_attention", False) and not config.is_encoder_decoder
        return cls(
            size=size or encoder.vocab_size,
            vocabulary=_vocabulary(encoder, [*special, pad_of(config)]),
            decoder_vocabulary=_vocabulary(decoder, [*special, pad_of(config)]),
            limit=min(_positions(encoder), _positions(decoder)),
            pad=pad_of(config),
            # BART's classifier reads the state at the end-of-sequence token and wants as many in each row.
            eos=first_known([config.eos_token_id], size) if classifies and config.is_encoder_decoder else None,
            encoder_decoder=bool(config.is_encoder_decoder),
            decoder_inputs=bool(config.is_encoder_decoder) and "decoder_input_ids" in takes and not classifies,
            memory=config.hidden_size if reads_states else 0,
            choices=type(model).__name__.endswith("ForMultipleChoice"),
            generates=model.can_generate(),
        )


def _vocabulary(config: Any, special: Sequence[int]) -> torch.Tensor:
    import torch

    avoid = {*special, *(token for _, token in special_ids(config.to_dict()))}
    allowed = [token for token in range(config.vocab_size) if token not in avoid]
    return torch.tensor(allowed or range(config.vocab_size))


def _positions(config: Any) -> int:
    found = getattr(config, "max_position_embeddings", None)
    # RoBERTa's table has two rows more than there are positions.
    return max(1, found - 2) if isinstance(found, int) and found > 0 else LONG


def text_batches(form: TextFormat, rows_of_texts: Sequence[Sequence[int]], seed: int) -> list[TokenBatch]:
    """Random batches of 1, 2, a medium and a long number of tokens, padded ones, and the texts.

    Args:
        form: of the models' inputs.
        rows_of_texts: token ids of the user's texts; may be empty.
        seed: of the random ids.
    """
    import torch

    random = torch.Generator().manual_seed(seed)
    batches = []
    for length in sorted({min(length, form.limit) for length in (1, 2, MEDIUM, LONG)}):
        ids = [_draw(form.vocabulary, length, random) for _ in range(2 if length > MEDIUM else 4)]
        name = f"random ids, {len(ids)} rows of {length}"
        batches.append(_batch(form, name, ids, random, inner=length == min(MEDIUM, form.limit)))
    lengths = _ragged(min(PADDED, form.limit))
    for side in ("right", "left") if form.generates and not form.encoder_decoder else ("right",):
        ids = [_draw(form.vocabulary, length, random) for length in lengths]
        name = f"random ids, rows of {', '.join(map(str, lengths))}, padded on the {side}"
        batches.append(_batch(form, name, ids, random, left=side == "left", inner=True))
    for start in range(0, len(rows_of_texts), TEXTS_A_BATCH):
        rows = [torch.tensor(row) for row in rows_of_texts[start : start + TEXTS_A_BATCH]]
        batches.append(_batch(form, f"texts {start + 1} to {start + len(rows)}", rows, random))
    return batches


def prompt_batches(form: TextFormat, rows_of_texts: Sequence[Sequence[int]], seed: int) -> list[TokenBatch]:
    """Inputs for greedy decoding: a single one, a padded batch, and the first texts; empty unless the model generates.

    Decoders alone are padded on the left, as their users do; encoders on the right.
    """
    import torch

    if not form.generates:
        return []
    random = torch.Generator().manual_seed(seed + 1)
    longest = form.limit if form.encoder_decoder else max(1, form.limit - NEW_TOKENS)
    batches = [("one random prompt", [min(8, longest)]), ("padded random prompts", _ragged(min(PADDED, longest)))]
    drawn = [(name, [_draw(form.vocabulary, length, random) for length in lengths]) for name, lengths in batches]
    if rows_of_texts:
        texts = [torch.tensor(row[:longest]) for row in rows_of_texts[:TEXTS_A_BATCH]]
        drawn.append(("texts as prompts", texts))
    prompts = []
    for name, rows in drawn:
        ids, mask = padded(rows, form.pad, left=not form.encoder_decoder)
        prompts.append(TokenBatch(name, {"input_ids": ids, "attention_mask": mask.long()}, mask))
    return prompts


def padded(rows: Sequence[torch.Tensor], pad: int, *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of different lengths as one batch.

    Returns:
        Ids, int64, and a mask of what is no padding, bool; both of shape (rows, longest row).
    """
    import torch

    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        part = slice(width - len(row), width) if left else slice(0, len(row))
        ids[index, part], mask[index, part] = row, True
    if not mask.any(1).all():
        raise VerifyError("A text has no tokens", remedy="Remove empty texts")
    return ids, mask


def _draw(vocabulary: torch.Tensor, length: int, random: torch.Generator) -> torch.Tensor:
    import torch

    return vocabulary[torch.randint(len(vocabulary), (length,), generator=random)]


def _ragged(longest: int) -> list[int]:
    return [longest, -(-longest * 2 // 3), -(-longest // 4), min(2, longest)]


def _batch(
    form: TextFormat,
    name: str,
    rows: Sequence[torch.Tensor],
    random: torch.Generator,
    *,
    left: bool = False,
    inner: bool = False,
) -> TokenBatch:
    import torch

    if form.eos is not None:
        rows = [torch.cat([row[:-1], torch.tensor([form.eos])]) for row in rows]
    ids, mask = padded(rows, form.pad, left=left)
    inputs = {"input_ids": ids, "attention_mask": mask.long()}
    decoder_mask = torch.ones_like(mask) if form.encoder_decoder else None
    if form.decoder_inputs:
        # Another length than the encoder's, so that the two cannot be mistaken for each other.
        length = max(1, min(form.limit, ids.shape[1] - ids.shape[1] // 3))
        decoder_ids = torch.stack([_draw(form.decoder_vocabulary, length, random) for _ in rows])
        inputs["decoder_input_ids"], decoder_mask = decoder_ids, torch.ones_like(decoder_ids, dtype=torch.bool)
    if form.memory:
        inputs["encoder_hidden_states"] = torch.randn(len(rows), MEMORY, form.memory, generator=random)
    if form.choices:
        inputs = {key: value[None] for key, value in inputs.items()}
    return TokenBatch(name, inputs, mask, decoder_mask, inner)


def read_texts(source: Source, texts: Sequence[str] | None, limit: int) -> tuple[list[list[int]], tuple[int, ...], str]:
    """Tokenise texts with the source's tokenizer.

    Args:
        source: the checkpoint.
        texts: any number; None for none.
        limit: tokens beyond it are cut off.

    Returns:
        Rows of token ids, the tokenizer's special ids, and a note for the certificate (empty if all is well).

    Raises:
        VerifyError: a text has no tokens.
    """
    tokenizer = load_tokenizer(source)
    if tokenizer is None:
        left_out = f" The {len(texts)} texts were left out." if texts else ""
        return [], (), f"The checkpoint has no tokenizer, so all inputs are random ids.{left_out}"
    special = tuple(tokenizer.all_special_ids)
    if not texts:
        return [], special, "No texts were given, so all inputs are random ids."
    rows = [list(tokenizer(text, truncation=True, max_length=limit)["input_ids"]) for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if not row:
            raise VerifyError(f"The text {text!r} has no tokens", remedy="Remove empty texts")
    return rows, special, ""
