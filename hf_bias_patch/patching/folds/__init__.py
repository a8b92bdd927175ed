"""WHERE A BIAS GOES: one file a destination, and here the list of them.

A file says all that is particular to its destination: what of a site an edit involves, when it is refused, what it
measures, what it touches and preserves, and the new values. The order in which folds are carried out is that of
`rewrite.Rewrite`, and nowhere else. Which projection may go where, and when that is exact, is said by
`architecture.verdict`: it depends on the model and not on the edit.
"""

from __future__ import annotations

from hf_bias_patch.patching.folds.fold import BaseFold, RankOneUpdate, RoundingCost, Vectors
from hf_bias_patch.patching.folds.into_norm import IntoNorm
from hf_bias_patch.patching.folds.into_nothing import IntoNothing
from hf_bias_patch.patching.folds.into_output import IntoOutput
from hf_bias_patch.patching.folds.into_weight import IntoWeight
from hf_bias_patch.patching.plan import Edit

__all__ = ["FOLDS", "BaseFold", "RankOneUpdate", "RoundingCost", "Vectors", "touched"]

FOLDS: dict[str, type[BaseFold]] = {fold.destination: fold for fold in (IntoNothing, IntoOutput, IntoWeight, IntoNorm)}
"""Destination → its fold."""


def touched(edit: Edit) -> tuple[str, ...]:
    """Tensors whose values an edit changes."""
    if not edit.changes:
        return ()
    more = FOLDS[edit.destination].touches(edit) if edit.destination else ()
    return (edit.bias, *more)
