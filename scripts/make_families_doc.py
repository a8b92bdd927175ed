"""Writes docs/families.md from the family files: python scripts/make_families_doc.py"""

from __future__ import annotations

from pathlib import Path

from hf_bias_patch.attention.matrix import matrix
from hf_bias_patch.attention.matrix_text import markdown

TARGET = Path(__file__).parent.parent / "docs" / "families.md"
HEAD = """# Families

What becomes of the query, key and value bias in each model type, from the facts in
`hf_bias_patch/attention/families/`. Made by `python scripts/make_families_doc.py`; do not edit.

`redundant`: removing it changes nothing. An arrow says where it can go exactly: into the output projection's bias
(where there is one), or into its own weight (where the layer norm before it has a bias). In brackets are the traps that
close other roads. A config value that a family does not cover makes every verdict `unknown`; `inspect` tells.

"""


def text() -> str:
    """The whole page."""
    return HEAD + markdown(*matrix())


if __name__ == "__main__":
    TARGET.write_text(text(), "utf-8")
