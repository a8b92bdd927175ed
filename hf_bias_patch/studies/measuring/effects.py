"""How far the outputs of a changed model are from those of the same model unchanged."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hf_bias_patch.studies.measuring.inputs import TextBatch

if TYPE_CHECKING:
    import torch

__all__ = ["Effect", "ModelOutputs", "outputs", "run"]


@dataclass(frozen=True)
class ModelOutputs:
    """The outputs of one batch.

    Attributes:
        states: last hidden states (of the decoder, where there is one) where they are counted, shape (tokens, width).
        log_probs: logarithms of the probabilities of the next or hidden token where one is predicted, shape
            (predicted, vocabulary); None without a language modelling head.
        losses: negative log-likelihood of the right token in nats, shape (predicted,); None without a head.
    """

    states: torch.Tensor
    log_probs: torch.Tensor | None
    losses: torch.Tensor | None

    @cached_property
    def exact(self) -> torch.Tensor:
        """The hidden states in float64; converted once for all comparisons with these outputs."""
        return self.states.double()

    @cached_property
    def probs(self) -> torch.Tensor:
        """Probabilities; computed once for all comparisons with these outputs."""
        assert self.log_probs is not None
        return self.log_probs.exp()

    @cached_property
    def top_1(self) -> torch.Tensor:
        """The most likely token at each place."""
        assert self.log_probs is not None
        return self.log_probs.argmax(-1)


def run(model: Any, batch: TextBatch) -> ModelOutputs:
    """Run a model on a batch, without gradients."""
    import torch

    with torch.inference_mode():
        return outputs(model, batch)


def outputs(model: Any, batch: TextBatch) -> ModelOutputs:
    """Run a model on a batch."""
    found = model(**batch.inputs, output_hidden_states=True)
    states = found.get("last_hidden_state")
    if states is None:
        states = (found.get("decoder_hidden_states") or found["hidden_states"])[-1]
    states, logits = states[batch.counted], found.get("logits")
    if logits is None or batch.labels is None:
        return ModelOutputs(states, None, None)
    if logits.ndim > 2:  # else the head was narrowed: see `shortcuts.Head`
        logits = logits[batch.predicted]
    log_probs = (logits if logits.dtype.itemsize > 4 else logits.float()).log_softmax(-1)
    return ModelOutputs(states, log_probs, -log_probs.gather(-1, batch.labels[batch.predicted][:, None])[:, 0])


@dataclass
class Effect:
    """The effect of one change, summed over batches.

    Sums over tokens are taken in float64, whatever dtype the model runs in; those over a vocabulary in float32, so that
    a divergence below 1e-7 is rounding.
    """

    tokens: int = 0
    predicted: int = 0
    _largest: float = 0.0
    _sums: dict[str, float] = field(default_factory=dict)

    def add(self, base: ModelOutputs, changed: ModelOutputs) -> None:
        """Add a batch: the outputs without the change, and with it."""
        import torch

        one, two = base.exact, changed.exact
        apart = two - one
        self.tokens += len(one)
        self._largest = max(self._largest, float(apart.abs().max()))
        self._sum("distance", apart.norm(dim=-1))
        self._sum("square", apart.square())
        self._sum("base square", one.square())
        self._sum("cosine", torch.cosine_similarity(one, two, dim=-1))
        if base.log_probs is None or changed.log_probs is None:
            return
        assert base.losses is not None and changed.losses is not None
        divergence = torch.linalg.vecdot(base.probs, base.log_probs - changed.log_probs)
        self._sum("divergence", divergence.double())
        self._sum("agreed", (base.top_1 == changed.top_1).double())
        self.predicted += len(base.losses)
        self._sum("base loss", base.losses.double())
        self._sum("loss", changed.losses.double())

    def figures(self) -> dict[str, float]:
        """The figures of the effect.

        Of the last hidden states: `largest`, change of an entry; `distance`, mean Euclidean change of a token, and
        `root_square`, the root of its mean square; `relative`, norm of all changes over norm of all hidden states;
        `cosine`, mean over tokens. Where tokens are predicted: `kl`, mean KL(unchanged ‖ changed) in nats; `agreement`,
        share of tokens with the same most likely token; `loss` and `loss_change` in nats a token; `perplexity`. Loss
        and perplexity are those with the change.
        """
        sums, tokens = self._sums, max(1, self.tokens)
        found = {
            "largest": self._largest,
            "distance": sums.get("distance", 0.0) / tokens,
            "root_square": math.sqrt(sums.get("square", 0.0) / tokens),
            "relative": math.sqrt(sums.get("square", 0.0) / (sums.get("base square", 0.0) or 1.0)),
            "cosine": sums.get("cosine", 0.0) / tokens,
        }
        if "divergence" not in sums:
            return found
        loss, before = (sums[name] / max(1, self.predicted) for name in ("loss", "base loss"))
        return found | {
            "kl": sums["divergence"] / max(1, self.predicted),
            "agreement": sums["agreed"] / max(1, self.predicted),
            "loss": loss,
            "loss_change": loss - before,
            "perplexity": math.exp(min(loss, 700.0)),
        }

    def _sum(self, name: str, values: torch.Tensor) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + float(values.sum())
