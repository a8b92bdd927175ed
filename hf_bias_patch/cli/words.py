"""One word for each option, and the other words that are accepted for it."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

__all__ = ["ANY_WORD", "ModelByName", "field_of", "option_of", "with_options"]

_WORDS = {"model_name_or_path": "model", "task_name": "task", "output_dir": "output", "num_train_epochs": "epochs"}
"""Field → its option, where that has a shorter name."""

_OLD_WORDS = {"out": "output_dir", "tasks": "task_name", "limit": "max_eval_samples", "file": "files"}
"""Words of earlier versions → the field; accepted, and not shown."""

_FIELD = re.compile(rf"(?<![\w/'\"-])({'|'.join(_WORDS)})(?![\w/'\"])")
"""A field in a message; no part of a path, and no name in quotes."""


def field_of(word: str) -> str:
    """The field that an option or a key of a YAML file names, in any of its spellings."""
    plain = word.replace("-", "_")
    return _OLD_WORDS.get(plain) or next((field for field, short in _WORDS.items() if short == plain), plain)


def option_of(word: str) -> str:
    """An option as it is shown. Scripts of Hugging Face have `--output_dir`, which is `--output` here."""
    field = field_of(word)
    return _WORDS.get(field, field).replace("_", "-")


def with_options(message: str) -> str:
    """An error's message with options in place of the fields that have another name."""
    return _FIELD.sub(lambda found: f"--{_WORDS[found[0]]}", message)


ANY_WORD: dict[str, Any] = {"token_normalize_func": option_of, "help_option_names": ["-h", "--help"]}
"""Context settings under which options are accepted in any spelling, and by their old words."""


class ModelByName(TyperCommand):
    """A command that takes its argument MODEL as `--model MODEL`, too, as `tune` and `compare` do."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See `click.Command.parse_args`."""
        given = []
        for word in args:
            name, _, value = word.partition("=")
            if name.startswith("--") and option_of(name[2:]) == "model":
                given += [value] if value else []  # without its name, what follows is the argument
            else:
                given.append(word)
        return super().parse_args(ctx, given)
