"""How large each bias was in the base and is in the variant: measured, kept, and drawn as a card's figure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic import TypeAdapter, ValidationError

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.sites import PROJECTIONS, Slot
from hf_bias_patch.checkpoint.checkpoint import Checkpoint, open_model
from hf_bias_patch.checkpoint.dtypes import numpy_dtype
from hf_bias_patch.checkpoint.header import TensorInfo
from hf_bias_patch.checkpoint.sidecar import SIDE_FOLDER
from hf_bias_patch.errors import CheckpointError, ExtraError
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.record import UNDO
from hf_bias_patch.patching.undo.reader import Undo

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FIGURE", "NORMS", "BiasNorm", "draw_norms", "dump_norms", "measure_norms", "read_norms"]

NORMS = f"{SIDE_FOLDER}/norms.json"
FIGURE = f"{SIDE_FOLDER}/norms.png"


class BiasNorm(NamedTuple):
    """The Euclidean norm of one bias.

    Attributes:
        site: name of the attention site.
        projection: which of its four.
        before, after: in the base, and in the variant.
    """

    site: str
    projection: str
    before: float
    after: float


def measure_norms(folder: Path, plan: Plan) -> tuple[BiasNorm, ...]:
    """The norms of all attention biases of a variant, and what they were.

    Raises:
        CheckpointError: the variant changed since it was patched, or a file of it is damaged.
    """
    checkpoint = open_model(folder)
    with Undo(folder / UNDO) as undo:
        gone = {
            name: TensorInfo(name, old.dtype, old.shape, 0, old.nbytes)
            for name, old in undo.manifest.tensors.items()
            if name not in checkpoint.tensors
        }
        tensors = {**checkpoint.tensors, **gone}
        sites = plan.sites or find_sites(checkpoint.config, tensors)
        found = []
        for site in sites:
            for projection, slot in site.slots.items():
                if slot.bias is not None and slot.bias in tensors:
                    before, after = _before(checkpoint, undo, slot.bias), _after(checkpoint, slot.bias)
                    found.append(BiasNorm(site.name, projection, _norm(slot, before), _norm(slot, after)))
        return tuple(found)


def _after(checkpoint: Checkpoint, name: str) -> np.ndarray | None:
    return checkpoint.read(name) if name in checkpoint.tensors else None


def _before(checkpoint: Checkpoint, undo: Undo, name: str) -> np.ndarray | None:
    if name not in undo.manifest.tensors:
        return _after(checkpoint, name)
    old = undo.manifest.tensors[name]
    content = b"".join(undo.restored(name, checkpoint))
    return np.frombuffer(content, numpy_dtype(old.dtype)).reshape(old.shape)


def _norm(slot: Slot, values: np.ndarray | None) -> float:
    """Six digits: the last ones of a sum differ between machines, and the card must not."""
    if values is None:
        return 0.0
    return float(f"{np.linalg.norm(slot.view.take(values.astype(np.float64).reshape(-1))):.6g}")


def read_norms(path: Path) -> tuple[BiasNorm, ...]:
    """Norms that were measured before.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        return TypeAdapter(tuple[BiasNorm, ...]).validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise CheckpointError(f"{path} is damaged", remedy="Remove it, and write the card again") from None


def dump_norms(norms: Iterable[BiasNorm]) -> bytes:
    """The norms as JSON, a bias a line."""
    lines = ",\n ".join(json.dumps(norm) for norm in norms)
    return f"[{lines}]\n".encode()


def draw_norms(norms: Sequence[BiasNorm]) -> bytes:
    """A panel a projection, a pair of points an attention site; as PNG.

    Raises:
        ExtraError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ExtraError("A card's figure needs matplotlib", remedy="pip install 'hf_bias_patch[hub]'") from None
    shown = [name for name in PROJECTIONS if any(norm.projection == name for norm in norms)]
    kinds = list(dict.fromkeys(_kind(norm.site) for norm in norms))
    sites = sorted(dict.fromkeys(norm.site for norm in norms), key=lambda site: kinds.index(_kind(site)))
    figure = Figure(figsize=(2.7 * len(shown) + 0.4, 2.7), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for panel, name in zip(panels, shown, strict=True):
        _draw(panel, [norm for norm in norms if norm.projection == name], sites)
        panel.set_title(name)
    panels[0].set_ylabel("norm of the bias")
    figure.supxlabel("attention sites, from the first layer to the last", fontsize="small")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, fontsize="small")
    drawn = BytesIO()
    figure.savefig(drawn, dpi=110, metadata={"Software": None})
    return drawn.getvalue()


def _draw(panel: Axes, norms: Sequence[BiasNorm], sites: Sequence[str]) -> None:
    at = [sites.index(norm.site) for norm in norms]
    before, after = [norm.before for norm in norms], [norm.after for norm in norms]
    panel.vlines(at, after, before, color="tab:gray", alpha=0.5, linewidth=1)
    panel.plot(at, before, "o", markerfacecolor="white", color="tab:gray", markersize=5, label="base", clip_on=False)
    panel.plot(at, after, "o", color="tab:blue", markersize=4, label="variant", clip_on=False)
    panel.set_xlim(-0.6, len(sites) - 0.4)
    panel.set_ylim(0, 1.08 * max(*before, *after, 1e-12))
    panel.grid(axis="y", alpha=0.3)
    middles, names, start = [], [], 0
    for name, group in groupby(sites, _kind):
        size = len(list(group))
        middles.append(start + (size - 1) / 2)
        names.append(name.replace(" ", "\n"))
        start += size
        if start < len(sites):
            panel.axvline(start - 0.5, color="tab:gray", linewidth=0.5)
    panel.set_xticks(middles, names, fontsize="small")
    panel.tick_params(axis="x", length=0)


def _kind(site: str) -> str:
    stack, _, kind = site.split(".")
    return f"{stack} {kind}"
