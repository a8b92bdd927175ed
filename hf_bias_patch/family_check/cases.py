"""What a check of the table runs: model types at their default configs, as published, and with values changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from hf_bias_patch.architecture.suggest import close_to
from hf_bias_patch.errors import BiasPatchError, FamilyError
from hf_bias_patch.family_check.one_type import changes_of_type
from hf_bias_patch.family_check.published import published
from hf_bias_patch.family_check.small_models.config import model_types
from hf_bias_patch.family_check.variations import Change
from hf_bias_patch.family_check.variations import pairs as pairs_of

__all__ = ["Case", "cases", "types_to_check"]


@dataclass(frozen=True)
class Case:
    """What is checked at a time: a model type, at its default config or with some of its values changed.

    Attributes:
        model_type: its name.
        changes: config values other than the default ones.
        checkpoint: the published checkpoint that has them; empty, if they are made up.
    """

    model_type: str
    changes: tuple[Change, ...] = ()
    checkpoint: str = ""

    def __str__(self) -> str:
        if self.checkpoint:
            return f"{self.checkpoint} ({self.model_type})"
        return self.model_type + (" with " if self.changes else "") + ", ".join(map(str, self.changes))


def types_to_check(names: Sequence[str]) -> Sequence[str]:
    """The model types that are meant; all that can be built, if none is named.

    Raises:
        FamilyError: one of them cannot be built.
    """
    known = model_types()
    if unknown := sorted(set(names) - set(known)):
        raise FamilyError(
            f"No small model of type {' or '.join(map(repr, unknown))} can be built",
            why="The installed transformers has no such type, or it needs a package that is not there",
            remedy=close_to(unknown, known),
        )
    return names or known


def cases(
    names: Iterable[str],
    *,
    vary: bool = False,
    pairs: bool = False,
    changes: Callable[[str], tuple[Change, ...]] = changes_of_type,
) -> Iterator[Case]:
    """Each model type at its default, and as published checkpoints have it.

    Args:
        names: of model types.
        vary: also with each change of its config.
        pairs: also with every two of them.
        changes: gives the changes of a type.
    """
    for name in names:
        yield Case(name)
        yield from (Case(name, one.changes, one.name) for one in published(name))
        try:
            varied = changes(name) if vary or pairs else ()
        except BiasPatchError:  # the check of the default says it
            continue
        yield from (Case(name, (change,)) for change in varied)
        if pairs:
            yield from (Case(name, pair) for pair in pairs_of(varied))
