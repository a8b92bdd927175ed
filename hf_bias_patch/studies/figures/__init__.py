"""A study's figures as PNG and SVG: for papers and slides, where a page does not go."""

from __future__ import annotations

from hf_bias_patch.studies.figures.write import write_comparison_figure, write_figures

__all__ = ["write_comparison_figure", "write_figures"]
