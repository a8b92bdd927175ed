"""The user's texts as token ids."""

from __future__ import annotations

from collections.abc import Sequence

from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.errors import VerifyError
from hf_bias_patch.models.load_for_verify import load_tokenizer

__all__ = ["read_texts"]


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
