"""What trains, tensor by tensor, and what was left out: what `set_trainable` and `adapters.add` return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["LeftOut", "Trainable", "TrainableTensor"]


@dataclass(frozen=True)
class TrainableTensor:
    """A tensor that trains.

    Attributes:
        name: the stock model's name of the parameter; of an adapter, the parameter that it is merged into.
        part: the projections that train of a fused parameter, such as `query,value`; of an adapter the kind of
            tensor, such as `lora_A`; else `all`.
        role: `attention bias`, `bias`, `weight`, `head` or `adapter`.
        elements: how many of its elements train.
        whole: how many elements it has.
        live: name of the parameter that the optimiser holds; a different one only where a part trains.
        places: the elements of that part, as ranges (start, stop); empty where all of it trains.
    """

    name: str
    part: str
    role: str
    elements: int
    whole: int
    live: str
    places: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A redundant bias that does not train because it is redundant.

    Attributes:
        name: of the parameter.
        projection: whose bias it is; of a fused parameter only its part is left out.
        elements: how many elements do not train.
    """

    name: str
    projection: str
    elements: int


@dataclass(frozen=True)
class Trainable:
    """All that trains.

    Attributes:
        trained: the tensors, in the model's order.
        total: elements of all parameters of the model, the head's and adapters' among them.
        head: whether the task head trains.
        left_out: redundant biases that were named and do not train.
        untold: why it is not known which biases are redundant; empty if it is known, or does not matter.
    """

    trained: tuple[TrainableTensor, ...]
    total: int
    head: bool
    left_out: tuple[LeftOut, ...] = ()
    untold: str = ""

    @property
    def elements(self) -> int:
        """Parameters that train, with the head's."""
        return sum(tensor.elements for tensor in self.trained)

    @property
    def without_head(self) -> int:
        """Parameters that train, without the head's: what papers count."""
        return sum(tensor.elements for tensor in self.trained if tensor.role != "head")

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user, in sentences."""
        sentences = []
        for projection in dict.fromkeys(bias.projection for bias in self.left_out):
            sizes = [bias.elements for bias in self.left_out if bias.projection == projection]
            said = f"{projection} biases do" if len(sizes) > 1 else f"{projection} bias does"
            sentences.append(
                f"{len(sizes)} redundant {said} not train ({sum(sizes):,} parameters); --train-redundant lets "
                + ("them" if len(sizes) > 1 else "it")
            )
        if self.untold:
            sentences.append(
                f"All biases train, redundant ones too: it is not known which are redundant. {self.untold}"
            )
        return tuple(sentences)

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        counts = {"trained": self.elements, "trained_without_head": self.without_head, "total": self.total}
        listed = {"tensors": [vars(tensor) for tensor in self.trained]}
        return {**counts, **listed, "left_out": [vars(bias) for bias in self.left_out], "notes": list(self.notes)}
