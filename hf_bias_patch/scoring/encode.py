"""From canonical columns to token ids, laid out for the kind of head of a model, with a count of what had to be cut.

Every encoded row keeps `row`, the number of the canonical row it comes from, and `length`, its tokens. So a prediction
is known by its row, in whatever order, batch or process it was made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_bias_patch.errors import DataError, TaskError
from hf_bias_patch.scoring.collate import IGNORED
from hf_bias_patch.scoring.extra import need
from hf_bias_patch.scoring.heads import HeadKind, vocabulary
from hf_bias_patch.scoring.tasks import Task
from hf_bias_patch.scoring.windows import Masked, blocks, windows

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Encoded", "check_vocabulary", "encode"]

Columns = dict[str, list[Any]]
Ids = list[int]
_BATCH = 1000  # rows that a fast tokenizer is given at a time


@dataclass(frozen=True)
class Encoded:
    """Token ids, and what became of long texts.

    Attributes:
        dataset: a row an input: `input_ids`, `token_type_ids` where the tokenizer gives them, `labels` where there
            are any, `row`, `length`. No padding: the collators of `scoring/collate.py` do that.
        truncated: inputs that were longer than the model takes, and were cut.
        cut_targets: targets that were cut (generation, training only).
        longest: tokens of the longest input before cutting.
        max_length: tokens that the model takes.
    """

    dataset: Dataset
    truncated: int
    longest: int
    max_length: int
    cut_targets: int = 0

    def __str__(self) -> str:
        if not self.truncated:
            return f"no text is longer than {self.max_length} tokens"
        return f"{self.truncated} texts are longer than {self.max_length} tokens (up to {self.longest}) and were cut"


def encode(
    dataset: Dataset,
    tokenizer: Any,
    task: Task,
    max_length: int,
    *,
    head: HeadKind,
    training: bool = False,
    max_target_length: int = 128,
    stride: int | None = None,
    masked: Masked = 0.15,
) -> Encoded:
    """Tokenise a data set for a task.

    classification, regression: `labels` is an int or a float, left out where the data set has none.
    language modelling, training: blocks of `max_length` tokens; `labels` equal `input_ids` for a causal model (a masked
    one draws its labels in the collator). Evaluation: windows, see `scoring/windows.py`.
    generation, training: a row for each reference, `labels` the target; a decoder-only model reads prompt, target and
    end in one, with -100 as the label of the prompt. Evaluation: a row for each source, no labels.

    Args:
        dataset: canonical columns (`scoring.data.load_split`).
        tokenizer: of the model.
        task: what is asked.
        max_length: tokens an input may have; see `scoring.heads.longest_input`.
        head: kind of the model's head.
        training: whether the rows are to be learnt from or to be answered.
        max_target_length: tokens a target may have, its end token included (generation, training).
        stride: tokens scored by each window but the first (language modelling, evaluation); half of `max_length` if
            None.
        masked: share of the tokens that a masked model is scored on, or `each`, one at a time (the same).

    Raises:
        TaskError: the tokenizer lacks a token that the task needs, or `max_length` leaves no room.
    """
    if task.kind == "language_modelling":
        pieces = (
            blocks(dataset, tokenizer, task, max_length, head)
            if training
            else windows(dataset, tokenizer, task, max_length, head, stride, masked)
        )
        made = _collect(pieces)
        return Encoded(made, 0, max(made["length"], default=0), max_length)
    if task.kind == "generation":
        return _generation_rows(dataset, tokenizer, task, max_length, head, training, max_target_length)
    return _classified(dataset, tokenizer, max_length)


def check_vocabulary(encoded: Encoded, model: Any) -> None:
    """Refuse tokens that the model has no row for: it would stop at an index that says nothing.

    Raises:
        DataError: there is one, as of a tokenizer that is another model's, or has tokens added to it.
    """
    import pyarrow.compute as arrow

    known, table = vocabulary(model), encoded.dataset.data
    columns = [table.column(name) for name in ("input_ids", "labels") if name in encoded.dataset.column_names]
    numbers = [arrow.list_flatten(column) for column in columns if "list" in str(column.type)]
    largest = max((arrow.max(found).as_py() or 0 for found in numbers), default=0)
    if largest >= known:
        raise DataError(
            f"The tokenizer gives these texts the token {largest}, and the model has only {known:,}, counted from 0",
            why="It is another model's tokenizer, or tokens were added to it and not to the model",
            remedy="Put the tokenizer that belongs to the weights beside them",
        )


def _classified(dataset: Dataset, tokenizer: Any, max_length: int) -> Encoded:
    truncated, longest = 0, 0
    columns: Columns = {}
    pair = "text_pair" in dataset.column_names
    for at in range(0, len(dataset), _BATCH):
        part = dataset[at : at + _BATCH]
        texts = [part["text"], part["text_pair"]] if pair else [part["text"]]
        made = dict(tokenizer(*texts, return_attention_mask=False, verbose=False))
        lengths = [len(ids) for ids in made["input_ids"]]
        longest = max(longest, *lengths)
        if over := [i for i, length in enumerate(lengths) if length > max_length]:
            truncated += len(over)
            cut = tokenizer(
                *([column[i] for i in over] for column in texts),
                return_attention_mask=False,
                truncation=True,
                max_length=max_length,
            )
            for name, values in cut.items():
                for i, value in zip(over, values, strict=True):
                    made[name][i] = value
        if "label" in part:
            made["labels"] = part["label"]
        made |= {"row": list(range(at, at + len(lengths))), "length": [len(ids) for ids in made["input_ids"]]}
        for name, values in made.items():
            columns.setdefault(name, []).extend(values)
    return Encoded(need("datasets").Dataset.from_dict(columns), truncated, longest, max_length)


def _collect(pieces: Iterator[dict[str, Any]]) -> Dataset:
    """Rows as a data set, a few thousand of them Python objects at a time."""
    datasets = need("datasets")
    columns: Columns = {}
    parts = []
    for piece in pieces:
        for name, value in piece.items():
            columns.setdefault(name, []).append(value)
        if len(columns["row"]) >= 10 * _BATCH:
            parts.append(datasets.Dataset.from_dict(columns))
            columns = {}
    if columns or not parts:
        parts.append(datasets.Dataset.from_dict(columns or {"input_ids": [], "row": [], "length": []}))
    return datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]


def _generation_rows(
    dataset: Dataset,
    tokenizer: Any,
    task: Task,
    max_length: int,
    head: HeadKind,
    training: bool,
    max_target_length: int,
) -> Encoded:
    """Sources and targets as token ids: for an encoder-decoder in two sequences, for a decoder-only model in one.

    To train on, `row` numbers the rows made here: one for each reference.
    """
    room = max_length if head == "seq2seq" else max_length - max_target_length
    if room < 1:
        raise TaskError(
            f"Answers of {max_target_length} tokens leave no room for a source",
            why=f"A decoder-only model has {max_length} tokens for both",
            remedy="Ask for shorter answers, or allow longer inputs",
        )
    prompt = _Prompt(tokenizer, task.prompt if head == "causal" else "{source}", room, head)
    rows: dict[str, list[Any]] = {"input_ids": [], "row": [], "length": []}
    if training:
        rows["labels"] = []
    truncated, longest, cut = 0, 0, 0
    targets = dataset["references"] if training else [[]] * len(dataset)
    for source, references in zip(dataset["source"], targets, strict=True):
        ids, tokens = prompt(source)
        truncated += tokens > room
        longest = max(longest, tokens)
        for inputs, labels, was_cut in _targets(ids, references, tokenizer, head, max_target_length, training):
            rows["input_ids"].append(inputs)
            if training:
                rows["labels"].append(labels)
            cut += was_cut
    rows["row"] = list(range(len(rows["input_ids"])))
    rows["length"] = [len(ids) for ids in rows["input_ids"]]
    return Encoded(need("datasets").Dataset.from_dict(rows), truncated, longest, room, cut)


def _targets(
    prompt: Ids, references: list[str], tokenizer: Any, head: HeadKind, longest: int, training: bool
) -> Iterator[tuple[Ids, Ids, bool]]:
    if not training:
        yield prompt, [], False
        return
    for text in references:
        if head == "seq2seq":
            target = tokenizer(text_target=text, verbose=False)["input_ids"]
        else:
            target = [*tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], tokenizer.eos_token_id]
        over = len(target) > longest
        if over:  # the end token stays: a model that never sees one never stops
            target = [*target[: longest - 1], target[-1]]
        if head == "seq2seq":
            yield prompt, target, over
        else:
            yield prompt + target, [IGNORED] * len(prompt) + target, over


class _Prompt:
    """Puts a source text into the prompt. Only the source is shortened where it is too long."""

    def __init__(self, tokenizer: Any, template: str, room: int, head: HeadKind) -> None:
        self._tokenizer, self._room = tokenizer, room
        before, _, after = template.partition("{source}")
        self._before, self._after = self._ids(before), self._ids(after)
        if head == "causal":
            if tokenizer.eos_token_id is None:
                raise TaskError("The tokenizer has no end token", why="A model would not know when to stop")
            if tokenizer.bos_token_id is not None:
                self._before = [tokenizer.bos_token_id, *self._before]
        else:
            # What the tokenizer puts around a text of its own, such as BART's start and end.
            self._before, self._after = _frame(tokenizer)
        self._left = room - len(self._before) - len(self._after)
        if self._left < 1:
            raise TaskError(
                f"{room} tokens leave no room for a source", remedy="Allow longer inputs, or shorter targets"
            )

    def __call__(self, source: str) -> tuple[Ids, int]:
        """Token ids, and how many there would be uncut."""
        ids = self._ids(source)
        whole = len(self._before) + len(ids) + len(self._after)
        return [*self._before, *ids[: self._left], *self._after], whole

    def _ids(self, text: str) -> Ids:
        if not text:
            return []
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _frame(tokenizer: Any) -> tuple[Ids, Ids]:
    inner = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for at in range(len(whole) - len(inner) + 1):
        if whole[at : at + len(inner)] == inner:
            return list(whole[:at]), list(whole[at + len(inner) :])
    return [], list(whole[len(inner) :])
