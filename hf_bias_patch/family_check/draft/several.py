"""Drafts several model types, one after the other, so that those that share a family end in one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from hf_bias_patch.architecture.family import families, parsed
from hf_bias_patch.architecture.family_files import drafted, text_of
from hf_bias_patch.family_check.cases import cases
from hf_bias_patch.family_check.draft.family_file import joined
from hf_bias_patch.family_check.draft.run import Draft, changes_to_try, draft
from hf_bias_patch.family_check.sweep import TIMEOUT, Swept, sweep

__all__ = ["Drafts"]


@dataclass
class Drafts:
    """Drafted families, held against the numbers while a `with` block lasts.

    Attributes:
        files: name of a family file → its text with the drafted types.
        failed: model type → why it could not be drafted.
    """

    files: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Drafts:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def draft(self, model_types: Sequence[str], vary: bool = True) -> Iterator[Draft]:
        """Draft model types; each is known to the families from then on.

        Args:
            model_types: of the installed transformers. What a family says of them now is forgotten.
            vary: see `draft`.
        """
        for model_type in model_types:
            self._forget(model_type)
        for model_type in model_types:
            try:
                found = draft(model_type, vary)
            except Exception as error:  # transformers says in many ways that it builds no small model
                self.failed[model_type] = " ".join(str(error).split()) or type(error).__name__
                continue
            for one in found:
                self._keep(one)
                yield one

    def check(
        self, model_types: Sequence[str], vary: bool = True, jobs: int = 1, timeout: float = TIMEOUT
    ) -> Iterator[Swept]:
        """Hold the drafts against the numbers: at the default configs, as published, and with each value changed."""
        left = [name for name in model_types if name not in self.failed]
        yield from sweep(cases(left, vary=vary, changes=changes_to_try), jobs, timeout)

    def write(self, folder: Path) -> Iterator[Path]:
        """Write the files into a folder, which is made if it is missing; each file once it is written."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.files.items():
            (folder / f"{name}.toml").write_text(text, "utf-8")
            yield folder / f"{name}.toml"

    def _forget(self, model_type: str) -> None:
        for family in families():
            if model_type in family.model_types:
                left = [name for name in family.model_types if name != model_type]
                self._stack.enter_context(drafted(family.name, joined(text_of(family.name), left)))

    def _keep(self, one: Draft) -> None:
        if not one.text:
            return
        old = text_of(one.name)
        text = joined(old, [*parsed(one.name, old).model_types, one.model_type]) if one.joins else one.text
        self.files[one.name] = text
        self._stack.enter_context(drafted(one.name, text))
