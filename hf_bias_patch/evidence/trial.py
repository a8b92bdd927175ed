"""Plans tried in memory, measured as the certificate will measure the variant once it is written.

A patched model in memory holds the bytes that a patched file would, so nothing need be written to know what its
certificate will say. The source's outputs are computed once for all that is tried.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hf_bias_patch.errors import PlanError, VerifyError
from hf_bias_patch.evidence.certificate import Run
from hf_bias_patch.evidence.compare import Outputs
from hf_bias_patch.evidence.memory_names import sites_in_memory
from hf_bias_patch.evidence.models import load_model
from hf_bias_patch.evidence.pair import Pair, Step
from hf_bias_patch.evidence.whole import Deployed, Runner, UnsupportedError
from hf_bias_patch.patching.memory import apply
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
        VerifyError: the source cannot be loaded or run, or is made up in part, so that nothing could be proven of it.
    """

    def __init__(
        self, pair: Pair, attention: Sequence[str], texts: Sequence[str] | None, seed: int, step: Step
    ) -> None:
        self._pair, self._runner = pair, Runner(pair, texts, seed, step)
        self._source: dict[str, tuple[list[Outputs], Deployed]] = {}
        refused: list[VerifyError] = []
        for kind in attention:
            try:
                reference, _ = self._runner.in_float64(kind)
            except UnsupportedError as error:
                refused.append(error)
                continue
            self._source[kind] = reference, self._runner.deployed(kind, reference, of_source=True)
        if not self._source:
            raise refused[0] if refused else VerifyError("No attention implementation was given")

    def share(self, recipe: Recipe) -> float:
        """The largest share of its bound that any figure would take; infinite where the plan cannot be carried out.

        Args:
            recipe: of folds alone.
        """
        try:
            return max(share_of(self._run(kind, recipe)) for kind in self._source)
        except PlanError:  # a value that is beyond the range of the storage dtype
            return math.inf

    def _run(self, kind: str, recipe: Recipe) -> Run:
        pair, (reference, source) = self._pair, self._source[kind]
        assert pair.plan is not None
        model = load_model(pair.source, pair.dtype, kind).model
        sites = sites_in_memory(model, pair.source_files, pair.plan.sites)
        with apply(model, recipe.storing_zeros(), sites=sites) as patched:
            variant = self._runner.run(patched, pair.source.name, reference, of_source=False)
        return self._runner.compared(kind, (), source, variant)


def share_of(run: Run) -> float:
    """The largest share of its bound that a figure of a run takes; infinite where decoding parts without a tie."""
    if run.decoding is not None and not all(fork.tie for fork in run.decoding.forks):
        return math.inf
    return max(figure.share for figure in (*run.algebra, *run.deployed))
