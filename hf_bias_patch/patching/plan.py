"""The plan: a recipe resolved against one checkpoint. Concrete edits, all refusals made, nothing executed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hf_bias_patch.architecture.sites import Norm, Projection, Site, Slot
from hf_bias_patch.architecture.verdict import Destination
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.patching.fills import Fill
from hf_bias_patch.patching.preserved import Preserved
from hf_bias_patch.patching.recipe import Recipe

__all__ = ["Action", "Edit", "Plan"]

Action = Literal["fold", "drop", "fill", "freeze", "train"]


class Edit(BaseModel):
    """One action on one bias slot.

    Attributes:
        site: name of the attention site, such as `decoder.0.cross`.
        heads: query heads of the site.
        action, destination: what is done, and where a fold's bias goes (`into` in JSON).
        slot: the bias slot it is done to.
        value, output: the site's value and output slots, where the edit involves them.
        norm: the layer norm that carries the bias (folds into `weight` and `norm`).
        fill, seed: what is written instead (fills).
        amplification: how many times its own rounding error the bias suffers; 1 for folds that only add vectors.
        conditioning: 1-norm condition number of the query weight (folds into `norm`).
        loss: amplification times the storage dtype's unit roundoff, relative to the bias.
        equal: what stays equal.
        zero: whether the bias is zero already, so that no value changes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    site: str
    heads: int
    action: Action
    slot: Slot
    destination: Destination | None = Field(default=None, validation_alias="into", serialization_alias="into")
    value: Slot | None = None
    output: Slot | None = None
    norm: Norm | None = None
    fill: Fill | None = None
    seed: int = 0
    amplification: float | None = None
    conditioning: float | None = None
    loss: float | None = None
    equal: Preserved = Preserved()
    zero: bool = False

    @property
    def projection(self) -> Projection:
        """The projection whose bias it is."""
        return self.slot.projection

    @property
    def name(self) -> str:
        """The slot's name, such as `encoder.0.self.key`."""
        return f"{self.site}.{self.projection}"

    @property
    def bias(self) -> str:
        """Parameter name of the bias; a planned slot has one."""
        assert self.slot.bias is not None
        return self.slot.bias

    @property
    def removes(self) -> bool:
        """Whether the bias is gone afterwards."""
        return self.action in ("fold", "drop")

    @property
    def changes(self) -> bool:
        """Whether any value changes."""
        return self.action == "fill" or (self.removes and not self.zero)

    @property
    def label(self) -> str:
        """The action as a person would write it, such as `fold value:output`."""
        destination = f":{self.destination}" if self.destination else ""
        return f"{self.action} {self.projection}{destination}"

    @property
    def replacement(self) -> np.ndarray:
        """What takes the bias's place: zeros, or the values of a fill; shape (slot.view.size,), float64."""
        size = self.slot.view.size
        return self.fill.values(self.seed, self.name, size) if self.fill else np.zeros(size)


class Plan(BaseModel):
    """Everything that will happen to one checkpoint.

    Attributes:
        package: version of hf_bias_patch that made it.
        recipe: what was asked for.
        edits: in the order of sites and projections.
        touched: tensor name → bytes, of every tensor whose values change.
        absent: tensors that leave the file (storage `absent`).
        nbytes: bytes of all tensors of the checkpoint, touched or not.
        family: name of the family whose facts it rests on.
        equal: what all edits together leave equal.
        lossy: whether an edit changes the function on purpose.
        sites: the attention sites, where they come from a probe; empty where a family finds them.
        uncovered: tensors that look like attention biases and are at no site: no action is about them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: str
    recipe: Recipe
    family: str
    edits: tuple[Edit, ...]
    touched: dict[str, int]
    absent: tuple[str, ...] = ()
    nbytes: int
    equal: Preserved
    lossy: bool
    sites: tuple[Site, ...] = ()
    uncovered: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether anything in the checkpoint's weights changes."""
        return bool(self.touched or self.absent)

    @property
    def frozen(self) -> tuple[Edit, ...]:
        """Edits that tell an optimiser what it may touch."""
        return tuple(edit for edit in self.edits if edit.action in ("freeze", "train"))

    def dumps(self) -> str:
        """The plan as JSON text."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True) + "\n"

    @classmethod
    def loads(cls, text: str | bytes, where: str | Path = "plan") -> Plan:
        """A plan from JSON text.

        Raises:
            CheckpointError: it is not a plan, or is one of another version of this package.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise CheckpointError(
                f"{where} is not a plan that this version can read ({error.error_count()} problems)",
                remedy="Use the version of hf_bias_patch that made it, or patch the source again",
            ) from None
