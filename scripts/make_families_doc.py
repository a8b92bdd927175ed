"""Writes docs/families.md and the table in docs/verdicts.md from the family files.

Run: python scripts/make_families_doc.py
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from hf_bias_patch.architecture.support_table import (
    PROJECTIONS,
    SupportCell,
    SupportRow,
    cell_text,
    markdown,
    row,
    support_table,
    without_attention,
)
from hf_bias_patch.architecture.verdict import BLOCKERS

ROOT = Path(__file__).parent.parent
TARGET, VERDICTS = ROOT / "docs" / "families.md", ROOT / "docs" / "verdicts.md"
BEGIN, END = "<!-- families: made by scripts/make_families_doc.py -->\n", "<!-- /families -->\n"
WELL_KNOWN = (
    "bert", "roberta", "distilbert", "electra", "gpt2", "bart", "mbart", "opt", "bloom", "whisper", "wav2vec2", "vit",
    "beit", "dinov2", "clip_text_model", "clip_vision_model", "swin", "albert", "deberta", "deberta-v2", "longformer",
    "gpt_neox", "phi", "starcoder2", "modernbert", "dinov3_vit", "falcon", "esm", "llama", "qwen2", "gemma2", "qwen3",
    "qwen3_next", "gemma4_text", "gpt_oss",
)  # fmt: skip
"""What the table in docs/verdicts.md is about."""
HEAD = """# Families

What becomes of the query, key and value bias in each model type, from the facts in
`hf_bias_patch/architecture/families/`. Made by `python scripts/make_families_doc.py`; do not edit.

`redundant`: removing it changes nothing. An arrow says where it can go exactly: into the output projection's bias
(where there is one), or into its own weight (where the layer norm before it has a bias). In brackets is what closes
other destinations. A config value that a family does not cover makes every verdict `unknown`; `inspect` tells.

"""


def overview(entries: Iterable[SupportRow], model_types: Sequence[str]) -> str:
    """A short table: some model types in the order given, those with the same cells in one row.

    A type with several rows is told in all but the first by the kind of site, or else by what the layers lack.
    """
    sites: dict[str, dict[tuple[str, ...], list[str]]] = {name: {} for name in model_types}
    for entry in entries:
        cells = tuple(_short(entry.cells.get(name), name) for name in PROJECTIONS)
        for name in entry.model_types:
            if name in sites:
                what = entry.stack if entry.kind == "self" else entry.kind
                sites[name].setdefault(cells, []).append(what)
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, found in sites.items():
        said: set[str] = set()
        for number, (cells, kinds) in enumerate(found.items()):
            what = ", ".join(dict.fromkeys(kinds)) if set(kinds) - said else _other_layers(cells)
            rows.setdefault(cells, []).append(f"{name} ({what})" if number else name)
            said |= set(kinds)
    body = [row(", ".join(names), *cells) for cells, names in rows.items()]
    return "\n".join(["| model types | query | key | value |", "|---|---|---|---|", *body, ""])


def _other_layers(cells: tuple[str, ...]) -> str:
    """What tells layers from others of their kind: the maps that they lack, if they lack any."""
    lacking = [name for name, cell in zip(PROJECTIONS, cells, strict=True) if cell == cell_text(None)]
    return f"layers without a {' and '.join(lacking)} map" if lacking else "other layers"


def _short(cell: SupportCell | None, projection: str) -> str:
    """A cell's text, without the blockers that leave the first destination of this projection open."""
    if cell is None:
        return "–"
    identity = {"query": "weight", "key": "key", "value": "value"}[projection]
    closed = tuple(blocker for blocker in cell.closed if identity in BLOCKERS[blocker][1])
    unless = {
        blocker: where for blocker, where in cell.unless.items() if identity in BLOCKERS[blocker][1] and not closed
    }
    return cell_text(replace(cell, closed=closed, unless=unless))


def text() -> str:
    """The whole page."""
    return HEAD + markdown(*support_table(), without_attention())


def verdicts(page: str) -> str:
    """The page with its table as the families are now."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"docs/verdicts.md lacks {BEGIN!r} or {END!r}")
    table = overview(support_table(WELL_KNOWN)[0], WELL_KNOWN)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


if __name__ == "__main__":
    TARGET.write_text(text(), "utf-8")
    VERDICTS.write_text(verdicts(VERDICTS.read_text("utf-8")), "utf-8")
