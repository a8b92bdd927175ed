"""Running text in pieces that a model takes: blocks to train on, windows to score every token of exactly once.

A causal model reads the window's context too, and only the tokens that no window before has scored count:

    tokens    b 0 1 2 3 4 5 6 7 8       b: the start token, which is never scored
    window 1  b 0 1 2 3                 scores 0 1 2 3
    window 2      2 3 4 5 6  (stride 3) scores 4 5 6
    window 3            5 6 7 8         scores 7 8
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.collate import IGNORED
from hf_bias_patch.scoring.heads import HeadKind
from hf_bias_patch.scoring.tasks import Task

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["EACH", "Masked", "blocks", "spans", "windows"]

EACH: Literal["each"] = "each"
Masked = float | Literal["each"]
"""How a masked model is scored: a share of the tokens masked at once, or each token masked by itself."""

_LINES = 1000  # lines of a running text that are tokenised together to train on


def blocks(dataset: Dataset, tokenizer: Any, task: Task, max_length: int, head: HeadKind) -> Iterator[dict[str, Any]]:
    """Rows to train on: `input_ids` of at most `max_length`, `row`, `length`; `labels` for a causal model.

    A running text is cut into full blocks (the last is shorter); documents of their own are cut where they are longer.
    """
    numbers = count()
    room = max_length - (2 if head == "masked" else 0)
    for ids in _train_texts(dataset, tokenizer, task, head, room):
        for at in range(0, len(ids), room):
            piece = ids[at : at + room]
            if len(piece) > 1 or len(ids) == 1:
                yield _block(piece, tokenizer, head, next(numbers))


def _block(piece: list[int], tokenizer: Any, head: HeadKind, row: int) -> dict[str, Any]:
    if head == "masked":
        piece = _bracketed(tokenizer, piece)
        return {"input_ids": piece, "row": row, "length": len(piece)}
    return {"input_ids": piece, "labels": list(piece), "row": row, "length": len(piece)}


def windows(
    dataset: Dataset,
    tokenizer: Any,
    task: Task,
    max_length: int,
    head: HeadKind,
    stride: int | None = None,
    masked: Masked = 0.15,
) -> Iterator[dict[str, Any]]:
    """Rows to score: `input_ids`, `labels` (-100 where nothing is scored), `row`, `length`.

    Args:
        dataset: the column `text`.
        tokenizer: of the model.
        task: language modelling.
        max_length: tokens in a window.
        head: `causal` or `masked`.
        stride: tokens that each window after the first scores (causal); half of `max_length` if None.
        masked: of the tokens, the share to mask (masked); the choice is random, and always the same.

    Raises:
        TaskError: a stride or share that is not possible, or no mask token.
    """
    numbers = count()
    for number, ids in enumerate(_score_texts(dataset, tokenizer, task, head)):
        rows = (
            _causal(ids, max_length, max_length // 2 if stride is None else stride)
            if head == "causal"
            else _masked(ids, tokenizer, max_length, masked, number)
        )
        for inputs, labels in rows:
            yield {"input_ids": inputs, "labels": labels, "row": next(numbers), "length": len(inputs)}


def spans(tokens: int, length: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Windows as (begin, first scored, end): they score tokens 1 to `tokens` - 1, each once.

    Raises:
        TaskError: the stride is not from 1 to `length` - 1: without context, a window's first token has no score.
    """
    if not 1 <= stride < length:
        raise TaskError(
            f"A stride of {stride} is not possible with windows of {length} tokens",
            remedy=f"Give a stride from 1 to {length - 1}",
        )
    begin, scored = 0, 1
    while scored < tokens:
        end = min(length, tokens) if begin == scored - 1 == 0 else min(scored + stride, tokens)
        begin = max(0, end - length)
        yield begin, scored, end
        scored = end


def _causal(ids: list[int], length: int, stride: int) -> Iterator[tuple[list[int], list[int]]]:
    for begin, scored, end in spans(len(ids), length, stride):
        yield ids[begin:end], [IGNORED] * (scored - begin) + ids[scored:end]


def _masked(
    ids: list[int], tokenizer: Any, length: int, masked: Masked, number: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Windows that do not overlap; each token is masked in at most one row, and in one row exactly for `each`."""
    if tokenizer.mask_token_id is None:
        raise TaskError("The tokenizer has no mask token", why="A masked language model is scored on masked tokens")
    if masked != EACH and not 0 < masked <= 1:
        raise TaskError(
            f"A share of {masked} of the tokens cannot be masked", remedy="Give a number above 0 and up to 1, or `each`"
        )
    chance = random.Random(f"masked {number}")
    for at in range(0, len(ids), length - 2):
        piece = _bracketed(tokenizer, ids[at : at + length - 2])
        places = range(1, len(piece) - 1)
        chosen = [[i] for i in places] if masked == EACH else [[i for i in places if chance.random() < masked]]
        for group in filter(None, chosen):
            inputs, labels = list(piece), [IGNORED] * len(piece)
            for i in group:
                inputs[i], labels[i] = tokenizer.mask_token_id, piece[i]
            yield inputs, labels


def _bracketed(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise TaskError(
            "The tokenizer has no tokens that begin and end a text",
            why="A masked language model expects both around its text",
        )
    return [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]


def _score_texts(dataset: Dataset, tokenizer: Any, task: Task, head: HeadKind) -> Iterator[list[int]]:
    """Token ids of the running text, which is tokenised as a whole, or of each document; with start and end tokens."""
    texts = ["".join(dataset["text"])] if task.joined else dataset["text"]
    return _framed(_ids(tokenizer, texts), tokenizer, head, ends=not task.joined)


def _train_texts(dataset: Dataset, tokenizer: Any, task: Task, head: HeadKind, room: int) -> Iterator[list[int]]:
    if not task.joined:
        yield from _framed(_ids(tokenizer, dataset["text"]), tokenizer, head, ends=True)
        return
    lines = dataset["text"]
    parts = ("".join(lines[at : at + _LINES]) for at in range(0, len(dataset), _LINES))
    rest: list[int] = []
    for ids in _ids(tokenizer, parts):
        rest += ids
        full = len(rest) // room * room
        if full:
            yield rest[:full]
            rest = rest[full:]
    if rest:
        yield rest


def _ids(tokenizer: Any, texts: Iterable[str]) -> Iterator[list[int]]:
    for text in texts:
        yield tokenizer(text, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]


def _framed(texts: Iterable[list[int]], tokenizer: Any, head: HeadKind, ends: bool) -> Iterator[list[int]]:
    """A causal model's texts begin with its start token, if it has one, so that their first token has a score too."""
    for ids in texts:
        if head == "causal":
            start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
            end = [tokenizer.eos_token_id] if ends and tokenizer.eos_token_id is not None else []
            ids = [*start, *ids, *end]
        yield ids
