"""A study as one HTML page that opens without a network."""

from __future__ import annotations

from hf_bias_patch.studies.report.comparison import write_comparison_page
from hf_bias_patch.studies.report.study_page import write_report

__all__ = ["write_comparison_page", "write_report"]
