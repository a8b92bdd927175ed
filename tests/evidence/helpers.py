"""Variants of tiny models, right ones and wrong ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.sites import Site, Slot
from hf_bias_patch.checkpoint.checkpoint import open_checkpoint
from hf_bias_patch.evidence.pair import Pair, open_pair
from hf_bias_patch.patching.algebra import witness
from hf_bias_patch.patching.on_disk import patch
from hf_bias_patch.patching.record import PLAN
from tests.models import fresh

Values = dict[str, np.ndarray]


def variant_of(source: Path, out: Path, **recipe: Any) -> Path:
    """A variant of a checkpoint in the folder `out`."""
    return patch(source, out, **recipe).path


def edited(folder: Path, out: Path, change: Callable[[dict[str, torch.Tensor]], None], *, plan: bool = True) -> Path:
    """A copy of a variant with other tensors, with or without its plan."""
    shutil.copytree(folder, out)
    values = load_file(out / "model.safetensors")
    change(values)
    save_file(values, out / "model.safetensors", {"format": "pt"})
    if not plan:
        (out / PLAN).unlink()
    return out


def pair_of(variant: Path, source: Path) -> Pair:
    """The two as `verify` opens them."""
    return open_pair(variant, source, lambda what: None)


def sites_of(folder: Path) -> dict[str, Site]:
    """The attention sites of a checkpoint by name."""
    checkpoint = open_checkpoint(folder)
    return {site.name: site for site in find_sites(checkpoint.config, checkpoint.tensors)}


class Parts:
    """One site's projections as plain (out, in) matrices and vectors, in float64, of the source."""

    def __init__(self, source: Path, site: Site) -> None:
        self.site = site
        self.values = {name: value.double().numpy() for name, value in load_file(source / "model.safetensors").items()}

    def weight(self, projection: str) -> np.ndarray:
        """Of shape (out, in)."""
        slot = self.slot(projection)
        stored = self.values[str(slot.weight)]
        return slot.view.take(stored.T if slot.conv1d else stored)

    def bias(self, projection: str) -> np.ndarray:
        """Of shape (out,)."""
        slot = self.slot(projection)
        return slot.view.take(self.values[str(slot.bias)])

    def slot(self, projection: str) -> Slot:
        """The bias slot."""
        return self.site.slots[projection]

    def direction(self, projection: str) -> np.ndarray:
        """What a bias is carried along when it goes into its weight."""
        norm = self.slot(projection).norm
        assert norm is not None
        found = witness(self.values[norm.weight], self.values[norm.bias])
        assert found is not None
        return found.direction


def put_bias(values: dict[str, torch.Tensor], slot: Slot, new: np.ndarray) -> None:
    """Write one projection's bias into a checkpoint's tensors."""
    whole = values[str(slot.bias)].double().numpy()
    slot.view.put(whole, new)
    values[str(slot.bias)] = torch.from_numpy(whole).to(values[str(slot.bias)].dtype)


def put_weight(values: dict[str, torch.Tensor], slot: Slot, new: np.ndarray) -> None:
    """Write one projection's matrix, (out, in), into a checkpoint's tensors."""
    whole = values[str(slot.weight)].double().numpy()
    axis = 1 if slot.conv1d else 0
    slot.view.put(whole, new.T if slot.conv1d else new, axis)
    values[str(slot.weight)] = torch.from_numpy(whole).to(values[str(slot.weight)].dtype)


def steep_norm(folder: Path) -> Path:
    """A BERT of which one norm, before layer 1, makes so small a constant that a fold by it loses digits of float32.

    The other norms are made good ones: each bias is shifted by its weight, so that the constant is about the width.
    """
    model = fresh("bert", dtype=torch.float32)
    steep = model.bert.encoder.layer[0].output.LayerNorm
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, torch.nn.LayerNorm):
                norm.bias += norm.weight
        inverse = 1 / steep.weight.double()
        constant = inverse @ steep.bias.double()
        steep.bias -= ((constant - 1e-4) * inverse / (inverse @ inverse)).float()
    model.save_pretrained(folder)
    return folder
