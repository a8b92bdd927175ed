"""Measures, without a family, whether each attention bias of a model is redundant, foldable or needed.

Every verdict rests on several forward passes in float64: a bias that moves no output, however far it is moved, is
redundant, provided that its own weight does move it; a fold is exact if the outputs stay where they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from hf_bias_patch.models.float64 import in_single_steps
from hf_bias_patch.probing.findings import Finding, Probe
from hf_bias_patch.probing.moves import ReferenceRunner, moved, part
from hf_bias_patch.probing.origin import Elements
from hf_bias_patch.probing.sites import ProbedSite, ProbedSlot, assemble
from hf_bias_patch.probing.tags import NormTag
from hf_bias_patch.probing.trace import Trace

__all__ = ["probe"]

STILL = 1e-9
"""Relative change of the outputs up to which they count as unmoved. On 542 model types the largest change by a
redundant bias was 6e-12, the smallest by another 1.3e-5."""

MOVED = 1e-7
"""Relative change from which they count as moved."""

HIDDEN = 1e-5
"""Part of its own weight's effect that a redundant bias stays below: else it may only be too small to see."""

CARRIED = 1e-4
"""Part of a needed bias's effect that is left at most when its fold is exact."""

NO_CONSTANT = "makes no constant"
"""A fold into the weight is refused with this for values that another checkpoint may not have."""

_SIZES = (1.0, 1.0, 6.0)  # of moves: several, and one far out, so that nothing discrete stays still by chance


def probe(model: nn.Module, run: Callable[[], Mapping[str, Tensor]], seed: int = 0) -> Probe:
    """Probe a model.

    Args:
        model: in float64. Its parameters are moved, and are as they were at the end; every module is in evaluation
            mode meanwhile.
        run: runs the model on some inputs, always the same, and gives its outputs by name.
        seed: of the moves.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        return _Prober(model, run, seed).probe()
    finally:
        for module, mode in modes.items():
            module.training = mode


class _Prober:
    def __init__(self, model: nn.Module, run: Callable[[], Mapping[str, Tensor]], seed: int) -> None:
        self.model, self.run = model, run
        self.runner = ReferenceRunner(model, run, seed)
        self.trace = self._traced()
        self.sites = assemble(self.trace)
        used = {self.trace.codes.names[number] for number in self.trace.used}
        self.untouched = tuple(name for name in self.trace.codes.names if name not in used)
        self.still = max(STILL, 100 * self.runner.floor)
        self.slots = [(site, slot) for site in self.sites for slot in site.slots if slot.projection != "output"]

    def probe(self) -> Probe:
        effects = self._effects()
        states = [self._state(site, slot, effect) for (site, slot), effect in zip(self.slots, effects, strict=True)]
        folds = self._folds([state for state, _ in states], effects)
        findings = [
            self._finding(site, slot, effect, state, fold)
            for (site, slot), effect, state, fold in zip(self.slots, effects, states, folds, strict=True)
        ]
        return Probe(tuple(findings), self.runner.floor, self.untouched)

    def _finding(
        self, site: ProbedSite, slot: ProbedSlot, effect: float, state: tuple[str, str], folds: dict[str, str]
    ) -> Finding:
        is_value = slot.projection == "value"
        return Finding(
            site.name,
            slot.projection,
            slot.bias.parameter,
            slot.bias.indices,
            effect,
            *state,
            folds,
            norm=slot.norms[0] if len(slot.norms) == 1 else None,
            weight=slot.weight,
            output=site.output if is_value else None,
            read=self._read(site, slot) if is_value else (),
        )

    def _traced(self) -> Trace:
        trace = Trace(dict(self.model.named_parameters()))
        with in_single_steps(trace.dropped), trace:
            self.run()
        return trace

    # ------------------------------------------------------------------------------------------------ verdicts

    def _effects(self) -> list[float]:
        """How far each bias moves the outputs. Keys are tried together first: mostly, none of them does."""
        keys = [slot for _, slot in self.slots if slot.projection == "key"]
        together = self._effect(keys)
        return [
            together if slot.projection == "key" and together <= self.still else self._effect([slot])
            for _, slot in self.slots
        ]

    def _effect(self, slots: list[ProbedSlot]) -> float:
        effects = [0.0]
        for size in _SIZES:
            with ExitStack() as stack:
                for slot in slots:
                    now = self._values(slot.bias)
                    stack.enter_context(moved(self.model, slot.bias, now + self.runner.draw(now, size)))
                effects.append(self.runner.effect())
            if effects[-1] > MOVED:
                break
        return max(effects)

    def _values(self, elements: Elements) -> Tensor:
        return part(self.model.get_parameter(elements.parameter), elements)

    def _state(self, site: ProbedSite, slot: ProbedSlot, effect: float) -> tuple[str, str]:
        if effect > max(MOVED, 1e4 * self.runner.floor):
            return "needed", "moving it moves the output"
        if effect > self.still:
            return "undecided", f"the output moves by {effect:.1e}, neither rounding nor a clear effect"
        weight = self._weight_effect(slot)
        if weight <= MOVED:
            return "not reached", "not even its weight moves the output on these inputs"
        if effect > max(HIDDEN * weight, 100 * self.runner.floor):
            return "undecided", f"its weight moves the output by {weight:.1e} only: too little to see a bias"
        if any(op in _SELECTING for op in site.ops):
            return "undecided", "a selection stands behind its scores, which may hide what moves"
        if slot.projection in ("query", "key") and site.softmax and site.spread < 1e-3:
            return "not reached", "attention was uniform on these inputs"
        if beside := self._beside(site):
            return "not reached", f"{beside} belongs to this attention, and no run came there"
        return "redundant", "moving it moves no output, moving its weight does"

    def _beside(self, site: ProbedSite) -> str:
        """A map of the site's own module that no run read: with other inputs, it may meet what this bias is in."""
        own = (name for name in self.untouched if site.name and name.startswith(f"{site.name}."))
        return next((name for name in own if self.model.get_parameter(name).ndim > 1), "")

    def _weight_effect(self, slot: ProbedSlot) -> float:
        """How far the outputs move with the bias's weight."""
        if slot.weight is None:
            return 0.0
        now = self._values(slot.weight)
        spread = float(now.std()) or 1.0
        with moved(self.model, slot.weight, now + self.runner.draw(now, spread)):
            return self.runner.effect()

    # --------------------------------------------------------------------------------------------------- folds

    def _folds(self, states: list[str], effects: list[float]) -> list[dict[str, str]]:
        """For each slot, destination → empty if the fold left the outputs where they were, else why not."""
        found: list[dict[str, str]] = [{} for _ in self.slots]
        limits = [
            max(100 * self.runner.floor, min(self.still, CARRIED * effect)) if state == "needed" else self.still
            for state, effect in zip(states, effects, strict=True)
        ]
        for destination, way in {"weight": self._fold_into_weight, "output": self._fold_into_output}.items():
            trials: dict[int, list[_Edits]] = {}
            for number, (site, slot) in enumerate(self.slots):
                if states[number] not in ("redundant", "needed") or (
                    destination == "output" and slot.projection != "value"
                ):
                    continue
                edits = [way(site, slot, amount) for amount in self._amounts(slot)]
                found[number][destination] = next((edit for edit in edits if isinstance(edit, str)), "")
                if not found[number][destination]:
                    trials[number] = [edit for edit in edits if not isinstance(edit, str)]
            if not trials:
                continue
            limit = min(limits[number] for number in trials)
            if any(self._tried(list(together), limit) for together in zip(*trials.values(), strict=True)):
                for number, each in trials.items():
                    found[number][destination] = next(
                        filter(None, (self._tried([edit], limits[number]) for edit in each)), ""
                    )
        return found

    def _amounts(self, slot: ProbedSlot) -> tuple[Tensor, Tensor]:
        """What is folded: the whole bias; and another amount, since any fold of a bias that is zero is exact."""
        bias = self._values(slot.bias)
        return bias, bias + self.runner.draw(bias, 1.0)

    def _tried(self, edits: list[_Edits], limit: float) -> str:
        """What edits do to the outputs, all together: empty if nothing."""
        with ExitStack() as stack:
            for changes in edits:
                for elements, values in changes:
                    now = self._values(elements)
                    stack.enter_context(moved(self.model, elements, now + values))
            effect = self.runner.effect()
        return "" if effect <= limit else f"tried, it moves the output by {effect:.1e}"

    def _fold_into_weight(self, site: ProbedSite, slot: ProbedSlot, bias: Tensor) -> _Edits | str:
        """Identity 3, for an amount of the bias."""
        norm = slot.norms[0] if len(slot.norms) == 1 else None
        if slot.weight is None or norm is None:
            return "it reads no layer norm directly and alone"
        direction = self._direction(norm)
        if direction is None:
            return f"{norm.bias} {NO_CONSTANT}"
        now = self._values(slot.weight)
        if now.ndim != 2 or now.shape[1] != len(direction):
            return "its weight is no matrix over the norm's features"
        return [(slot.weight, torch.outer(bias, direction)), (slot.bias, -bias)]

    def _direction(self, norm: NormTag) -> Tensor | None:
        gamma, beta = (self.model.get_parameter(name).detach() for name in (norm.weight, norm.bias))
        if bool((gamma == 0).any()):
            return None
        constant = float((beta / gamma).sum())
        return 1 / gamma / constant if abs(constant) > 1e-6 else None

    def _fold_into_output(self, site: ProbedSite, slot: ProbedSlot, bias: Tensor) -> _Edits | str:
        """Identity 2, for an amount of the bias."""
        output, read = site.output, self._read(site, slot)
        if not read:
            return "no map reads the mixed values as they are"
        if output is None or output.weight is None:
            return "the output projection has no bias"
        weight = self._values(output.weight).flatten(1)
        if weight.shape[1] != len(read):
            return "the output projection is no plain map"
        values = dict(zip(slot.bias.indices, bias.tolist(), strict=True))
        carried = torch.tensor([values.get(index, 0.0) for index in read], dtype=torch.float64)
        return [(output.bias, weight @ carried), (slot.bias, -bias)]

    def _read(self, site: ProbedSite, slot: ProbedSlot) -> tuple[int, ...]:
        """Which element of a value bias reaches each input of the output projection; empty if not as it is."""
        read = self.trace.mixings[site.mixings[0]].read
        if read is None:
            return ()
        start = self.trace.codes.start(self.trace.codes.names.index(slot.bias.parameter))
        own = set(slot.bias.indices)
        return tuple(code - start if code - start in own else -1 for code in read.tolist())


_Edits = list[tuple[Elements, Tensor]]
_SELECTING = {"argmax", "argmin", "topk", "sort", "argsort", "bernoulli", "multinomial", "kthvalue", "exponential_"}
