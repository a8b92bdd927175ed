"""Writes docs/families.md and the table in docs/verdicts.md from the family files.

Run: python scripts/make_families_doc.py
"""

from __future__ import annotations

from pathlib import Path

from hf_bias_patch.attention.matrix import matrix, without_attention
from hf_bias_patch.attention.matrix_text import markdown, overview

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
`hf_bias_patch/attention/families/`. Made by `python scripts/make_families_doc.py`; do not edit.

`redundant`: removing it changes nothing. An arrow says where it can go exactly: into the output projection's bias
(where there is one), or into its own weight (where the layer norm before it has a bias). In brackets are the traps that
close other roads. A config value that a family does not cover makes every verdict `unknown`; `inspect` tells.

"""


def text() -> str:
    """The whole page."""
    return HEAD + markdown(*matrix(), without_attention())


def verdicts(page: str) -> str:
    """The page with its table as the families are now."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"docs/verdicts.md lacks {BEGIN!r} or {END!r}")
    table = overview(matrix(WELL_KNOWN)[0], WELL_KNOWN)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


if __name__ == "__main__":
    TARGET.write_text(text(), "utf-8")
    VERDICTS.write_text(verdicts(VERDICTS.read_text("utf-8")), "utf-8")
