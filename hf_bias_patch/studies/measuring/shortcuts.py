"""What a changed model need not compute again: layers before the change, and its head where no token is predicted.

An arm that changes layer 8 needs layers 0 to 7 as they were: they give out again what they gave out in the unchanged
pass, which runs once for each batch. A masked model predicts one token in seven. Its head, of a width times a
vocabulary, is a fifth of BERT's arithmetic, and a third where the layers before a change are skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from hf_bias_patch.architecture.sites import Site
from hf_bias_patch.studies.measuring.effects import run
from hf_bias_patch.studies.measuring.inputs import TextBatch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Head", "Layers", "Recorded"]

Recorded = dict[str, list[Any]]
"""Name of a layer's module → what it gave out, each time it ran, in the order of the layers' first runs."""


class Layers:
    """A model's layers, in the order in which it runs them, and what each gave out on the batch at hand.

    A layer that runs more than once in a pass (ALBERT's) is never skipped, nor is any when a site's layer is not found.
    """

    def __init__(self, model: PreTrainedModel, sites: Iterable[Site]) -> None:
        self._of_site = {site.name: _layer_of(model, site) for site in sites}
        self._modules = {name: model.get_submodule(name) for name in self._of_site.values() if name is not None}

    @contextmanager
    def recorded(self) -> Iterator[Recorded]:
        """The outputs of each layer in the pass that runs inside the block."""
        found: Recorded = {}
        with ExitStack() as hooks:
            for name, module in self._modules.items():
                handle = module.register_forward_hook(_keeping(found, name))
                hooks.callback(handle.remove)
            yield found

    def before(self, sites: Iterable[str], recorded: Recorded) -> list[str]:
        """The layers, by module name, that ran once and before all of these sites."""
        order = list(recorded)
        named = [self._of_site[site] for site in sites]
        if not order or any(name not in recorded for name in named):
            return []
        first = min(order.index(str(name)) for name in named)
        return order[:first] if all(len(found) == 1 for found in recorded.values()) else []

    @contextmanager
    def skipped(self, names: Iterable[str], recorded: Recorded) -> Iterator[None]:
        """Inside the block these layers return their outputs of the recorded pass without computing."""
        with ExitStack() as instead:
            for name in names:
                own = vars(self._modules[name])
                before = {"forward": own["forward"]} if "forward" in own else {}  # Accelerate puts one there
                instead.callback(own.update, before)
                instead.callback(own.pop, "forward")
                own["forward"] = _giving(recorded[name][0])
            yield


def _keeping(found: Recorded, name: str) -> Any:
    def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        found.setdefault(name, []).append(output)

    return hook


def _giving(output: Any) -> Any:
    return lambda *args, **kwargs: output


def _layer_of(model: PreTrainedModel, site: Site) -> str | None:
    """Name of the module that is the site's layer: the entry of a list of modules that its parameters are named by."""
    import torch

    parameter = next(slot.bias or slot.weight for slot in site.slots.values())
    parts = (parameter or "").split(".")
    for place, part in enumerate(parts[:-1]):
        if part.isdigit() and isinstance(model.get_submodule(".".join(parts[:place])), torch.nn.ModuleList):
            return ".".join(parts[: place + 1])
    return None


class Head:
    """A masked language model's map to the vocabulary."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._map = model.get_output_embeddings()

    @contextmanager
    def narrowed(self, batch: TextBatch) -> Iterator[None]:
        """Inside the block the model's logits are those of the predicted places, shape (predicted, vocabulary)."""

        def hook(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return (inputs[0][batch.predicted], *inputs[1:])

        handle = self._map.register_forward_pre_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def narrows(self, batch: TextBatch) -> bool:
        """Whether narrowed logits are the same to rounding; tried on a batch."""
        import torch

        if self._map is None:
            return False
        whole = run(self._model, batch).log_probs
        try:
            with self.narrowed(batch):
                found = run(self._model, batch).log_probs
        except Exception:  # a model of its own ways, such as one that puts logits into another shape
            return False
        assert whole is not None and found is not None
        return found.shape == whole.shape and torch.allclose(found, whole, rtol=1e-3, atol=1e-3)
