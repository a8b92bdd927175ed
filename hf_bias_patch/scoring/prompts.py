"""Sources and targets as token ids: for encoder-decoders in two sequences, for decoder-only models in one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.collate import IGNORED
from hf_bias_patch.scoring.encode import Encoded
from hf_bias_patch.scoring.extra import need
from hf_bias_patch.scoring.forms import Form
from hf_bias_patch.scoring.tasks import Task

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["generation_rows"]

Ids = list[int]


def generation_rows(
    dataset: Dataset,
    tokenizer: Any,
    task: Task,
    max_length: int,
    form: Form,
    training: bool,
    max_target_length: int,
) -> Encoded:
    """Rows of `scoring.encode.encode` for a generation task; see there.

    While training, `row` still numbers the rows made here, one a reference.

    Raises:
        TaskError: no room is left for the source, or a decoder-only model has no end token.
    """
    room = max_length if form == "seq2seq" else max_length - max_target_length
    if room < 1:
        raise TaskError(
            f"Answers of {max_target_length} tokens leave no room for a source",
            why=f"A decoder-only model has {max_length} tokens for both",
            remedy="Ask for shorter answers, or allow longer inputs",
        )
    prompt = _Prompt(tokenizer, task.prompt if form == "causal" else "{source}", room, form)
    rows: dict[str, list[Any]] = {"input_ids": [], "row": [], "length": []}
    if training:
        rows["labels"] = []
    truncated, longest, cut = 0, 0, 0
    targets = dataset["references"] if training else [[]] * len(dataset)
    for source, references in zip(dataset["source"], targets, strict=True):
        ids, tokens = prompt(source)
        truncated += tokens > room
        longest = max(longest, tokens)
        for inputs, labels, was_cut in _targets(ids, references, tokenizer, form, max_target_length, training):
            rows["input_ids"].append(inputs)
            if training:
                rows["labels"].append(labels)
            cut += was_cut
    rows["row"] = list(range(len(rows["input_ids"])))
    rows["length"] = [len(ids) for ids in rows["input_ids"]]
    return Encoded(need("datasets").Dataset.from_dict(rows), truncated, longest, room, cut)


def _targets(
    prompt: Ids, references: list[str], tokenizer: Any, form: Form, longest: int, training: bool
) -> Iterator[tuple[Ids, Ids, bool]]:
    if not training:
        yield prompt, [], False
        return
    for text in references:
        if form == "seq2seq":
            target = tokenizer(text_target=text, verbose=False)["input_ids"]
            over = len(target) > longest
            # The end token stays: a model that never sees one never stops.
            yield prompt, [*target[: longest - 1], target[-1]] if over else target, over
            continue
        target = [*tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], tokenizer.eos_token_id]
        over = len(target) > longest
        target = [*target[: longest - 1], target[-1]] if over else target
        yield prompt + target, [IGNORED] * len(prompt) + target, over


class _Prompt:
    """Puts a source between what stands before and after it; only the source is ever cut."""

    def __init__(self, tokenizer: Any, template: str, room: int, form: Form) -> None:
        self._tokenizer, self._room = tokenizer, room
        before, _, after = template.partition("{source}")
        self._before, self._after = self._ids(before), self._ids(after)
        if form == "causal":
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
