"""Plans tried in memory, measured as the certificate will measure the variant once it is written.

A patched model in memory holds the values that a patched file would, also where the file has some of its tensors in
fewer bits than most. So nothing need be written to know what its certificate will say. The source's outputs are
computed once for all that is tried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hf_bias_patch.checkpoint.dtypes import unit_roundoff
from hf_bias_patch.errors import PlanError, VerifyError
from hf_bias_patch.evidence.certificate import MeasuredRun
from hf_bias_patch.evidence.full_model import Deployed, ModelVerifier, UnsupportedError
from hf_bias_patch.evidence.outputs import Outputs
from hf_bias_patch.evidence.pair import Pair, Step
from hf_bias_patch.models.load_for_verify import TORCH_NAMES, load_model
from hf_bias_patch.models.names import names_on_disk, sites_in_memory
from hf_bias_patch.patching.in_memory import apply
from hf_bias_patch.patching.recipe import Recipe

__all__ = ["Trial", "share_of"]


class Trial:
    """Whole models, patched in memory.

    Args:
        pair: the source, beside itself (`before_patch`).
        attention: attention implementations to run; each must pass.
        texts: the user's; None for none.
        seed: of the random inputs.
        step: told what is being done, as each step begins.

    Raises:
        VerifyError: the source cannot be loaded or run, gives NaN, or is made up in part, so that nothing could be
            proven of it.
    """

    def __init__(
        self, pair: Pair, attention: Sequence[str], texts: Sequence[str] | None, seed: int, step: Step
    ) -> None:
        self._pair, self._verifier = pair, ModelVerifier(pair, texts, seed, step)
        self._source: dict[str, tuple[list[Outputs], Deployed]] = {}
        refused: list[VerifyError] = []
        for kind in attention:
            try:
                reference, _ = self._verifier.in_float64(kind)
            except UnsupportedError as error:
                refused.append(error)
                continue
            self._source[kind] = reference, self._verifier.deployed(kind, reference, of_source=True)
            self._refuse_nan(kind)
        if not self._source:
            raise refused[0] if refused else VerifyError("No attention implementation was given")

    def _refuse_nan(self, kind: str) -> None:
        floor, _ = self._source[kind][1]
        if not all(math.isfinite(floor.worst(group)[0]) for group in floor.groups()):
            raise VerifyError(
                f"{self._pair.source.name} itself gives NaN or infinite values in {self._pair.dtype}, {kind} attention",
                why="A variant cannot be compared with outputs that are not finite",
                remedy="Look for NaN in its weights and in config.json, or for values beyond the range of the dtype",
            )

    def share(self, recipe: Recipe) -> float:
        """The largest share of its bound that any figure would take; infinite where the plan cannot be carried out.

        Args:
            recipe: of folds alone.
        """
        try:
            return max(share_of(self._run(kind, recipe)) for kind in self._source)
        except PlanError:  # a value that is beyond the range of the storage dtype
            return math.inf

    def _run(self, kind: str, recipe: Recipe) -> MeasuredRun:
        pair, (reference, source) = self._pair, self._source[kind]
        assert pair.plan is not None
        model = load_model(pair.source, pair.dtype, kind).model
        sites, coarser = sites_in_memory(model, pair.source_files, pair.plan.sites), self._coarser(model)
        patched = apply(model, recipe.storing_zeros(), sites=sites)  # never restored: the model is of this run
        _round(model, {name: coarser[name] for name in patched.plan.touched if name in coarser})
        variant = self._verifier.run(model, pair.source.name, reference, of_source=False)
        return self._verifier.compared(kind, (), source, variant)

    def _coarser(self, model: Any) -> dict[str, str]:
        """Parameter → its dtype in the file, of those to be edited that the file holds in fewer bits than the model."""
        pair = self._pair
        assert pair.plan is not None
        dtypes = {name: pair.source_files.tensors[name].dtype for name in pair.plan.touched}
        least = unit_roundoff(pair.dtype)
        coarser = {name: dtype for name, dtype in dtypes.items() if unit_roundoff(dtype) > least}
        if not coarser:
            return {}
        names = names_on_disk(model, pair.source_files)
        return {memory: coarser[disk] for memory, disk in names.items() if disk in coarser}


def _round(model: Any, dtypes: Mapping[str, str]) -> None:
    """Round parameters to the dtypes that a file would hold them in."""
    import torch

    for name, value in model.named_parameters(remove_duplicate=False):
        if name in dtypes:
            stored = value.detach().to(getattr(torch, TORCH_NAMES[dtypes[name]]))
            value.detach().copy_(stored)


def share_of(run: MeasuredRun) -> float:
    """The largest share of its bound that a figure of a run takes; infinite where decoding parts without a tie."""
    if run.decoding is not None and not all(fork.tie for fork in run.decoding.forks):
        return math.inf
    return max(figure.share for figure in (*run.algebra, *run.deployed))
