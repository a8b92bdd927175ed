"""The verdict on each bias slot, and where its bias could go. Decisions only: all facts come in as arguments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["BLOCKERS", "DESTINATIONS", "NO_BIAS", "Destination", "SlotFacts", "Verdict", "decide"]

Destination = Literal["nothing", "output", "weight", "norm"]

DESTINATIONS: dict[str, tuple[Destination, ...]] = {
    "query": ("weight", "norm"),
    "key": ("nothing", "weight"),
    "value": ("output", "weight"),
    "output": (),
}
"""Where a fold of each projection's bias may go, the default first (`nothing`: it is redundant)."""


_KEY, _VALUE, _WEIGHT = "key", "value", "weight"
BLOCKERS: dict[str, tuple[str, frozenset[str]]] = {
    name: (reason, frozenset(closed))
    for name, reason, *closed in (
        ("rotary", "rotary positions turn the key after its bias was added", _KEY),
        ("rotary_some", "rotary positions turn the key in some layers, and which is not told here", _KEY),
        ("qk_norm", "a norm on the key comes after its bias", _KEY),
        ("softcap", "scores are soft-capped before softmax", _KEY),
        ("sink", "an attention sink takes part in softmax", _KEY, _VALUE),
        ("extra_key", "keys or values that this map did not make take part in softmax", _KEY, _VALUE),
        ("other_queries", "other query maps compare the same keys with some of the tokens", _KEY),
        ("key_positions", "the key is also compared with positions", _KEY),
        ("positions", "keys meet a term that depends on position", _KEY),
        ("not_softmax", "attention weights are not a softmax over the keys", _KEY, _VALUE),
        ("channels", "attention is over channels, and each has its own entry of the bias", _KEY, _VALUE),
        ("selection", "keys are selected by their scores", _KEY, _VALUE),
        ("approximate", "attention is approximated, and its rows need not sum to 1", _KEY, _VALUE),
        ("clip", "projections are clipped", _KEY, _VALUE),
        ("key_used", "the key is used outside of the scores as well", _KEY),
        ("key_mixed", "the key map is followed by another step that is not the same for all keys", _KEY),
        ("value_rotary", "rotary positions turn the value", _VALUE),
        ("value_mixed", "the value goes through another step before it is mixed", _VALUE),
        ("value_used", "the value is used outside of the weighted sum as well", _VALUE),
        ("other_values", "what some tokens get is a weighted sum of another map's values", _VALUE),
        ("gate", "a gate stands between attention and the output projection", _VALUE),
        ("norm_after", "a norm stands between attention and the output projection", _VALUE),
        ("between", "another step stands between attention and the output projection", _VALUE),
        ("rows", "attention rows do not sum to 1", _VALUE),
        ("output_used", "the output projection is no plain map of the mixed values", _VALUE),
        ("norm_elsewhere", "with this configuration it is not that norm that the map reads", _WEIGHT),
        ("padded", "the map also reads padding, which is no norm's output", _WEIGHT),
        ("also_read", "the map is applied to other inputs as well", _WEIGHT),
        ("not_known", "this attention is not understood", _KEY, _VALUE, _WEIGHT),
    )
}
"""What a family may say of an attention: name → reason, and the identities it closes (docs/theory.md, "Where they
fail"): identity 1 (`key`), identity 2 (`value`), identity 3 (`weight`)."""


NO_BIAS = "the checkpoint has no such bias"
"""Why a slot is absent, unless stock transformers does not read what the checkpoint has."""


@dataclass(frozen=True)
class SlotFacts:
    """What a verdict rests on. Each `no_…` is empty, or the reason why that is closed.

    Attributes:
        bias: whether the model has the bias at all.
        unread: why it has none although the checkpoint does; empty if that has none either.
        unhandled: a config entry the family does not cover, and where to look for what it does.
        no_cancel: why the key bias does not cancel (identity 1).
        no_norm: why identity 3 (into the own weight) has no layer norm to use.
        no_shift: why identity 4 (into that norm's bias) is closed.
        no_output: why the value cannot reach the output bias.
        no_weight: why the projection's own weight cannot be edited (quantised).
    """

    bias: bool
    unread: str = ""
    unhandled: str = ""
    no_cancel: str = ""
    no_norm: str = ""
    no_shift: str = ""
    no_output: str = ""
    no_weight: str = ""


@dataclass(frozen=True)
class Verdict:
    """Whether a bias can be removed without changing the function, and how.

    Attributes:
        state: `redundant`, `foldable`, `needed`, `absent` or `unknown`.
        reason: one sentence.
        folds: destination → empty if the fold is exact there, else why it is refused.
    """

    state: str
    reason: str
    folds: dict[str, str] = field(default_factory=dict)

    @property
    def destinations(self) -> tuple[str, ...]:
        """Where the bias can go exactly, the default first."""
        return tuple(destination for destination, refusal in self.folds.items() if not refusal)


_EXACT = {
    "nothing": "it adds one number to all scores of a query, which softmax cancels",
    "output": "attention rows sum to 1, so it passes into the output bias",
    "weight": "the layer norm before it makes a constant, so its weight can carry it",
    "norm": "the layer norm before it can carry it in its own bias",
}


def decide(projection: str, facts: SlotFacts) -> Verdict:
    """The verdict on one slot of softmax dot-product attention (docs/theory.md, identities 1 to 4)."""
    if not facts.bias:
        return Verdict("absent", f"stock transformers does not read it: {facts.unread}" if facts.unread else NO_BIAS)
    if facts.unhandled:
        refusal = f"the family does not cover {facts.unhandled}"
        return Verdict("unknown", refusal, {destination: refusal for destination in DESTINATIONS[projection]})
    if projection == "output":
        return Verdict("needed", "it is added after attention, and value biases fold into it")
    refusals = {
        "nothing": facts.no_cancel,
        "output": facts.no_output,
        "weight": facts.no_weight or facts.no_norm,
        "norm": facts.no_weight or facts.no_norm or facts.no_shift,
    }
    folds: dict[str, str] = {destination: refusals[destination] for destination in DESTINATIONS[projection]}
    exact = [destination for destination, refusal in folds.items() if not refusal]
    if not exact:
        return Verdict("needed", "; ".join(dict.fromkeys(folds.values())), folds)
    state = "redundant" if exact[0] == "nothing" else "foldable"
    return Verdict(state, _EXACT[exact[0]], folds)
