"""How numbers are written in tables and figures."""

from __future__ import annotations

import math

__all__ = ["fine", "number", "percent", "signed"]


def number(value: float) -> str:
    """Three significant digits: `0.0817`, `1.86e-7`, `1,024`."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-3 or size >= 1e6:
        mantissa, exponent = f"{value:.2e}".split("e")
        text = f"{float(mantissa):g}e{int(exponent)}"
    elif size >= 100:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.3g}"
    return text.replace("-", "−")


def fine(value: float) -> str:
    """Five significant digits, for what differs in the last of them."""
    return f"{value:,.5g}".replace("-", "−") if 1e-3 <= abs(value) < 1e5 else number(value)


def signed(value: float) -> str:
    """As `number`, with a plus sign."""
    return f"+{number(value)}" if value > 0 else number(value)


def percent(value: float) -> str:
    """A share as hundredths: `98.2 %`."""
    return f"{value:.2%}".replace("%", " %") if math.isfinite(value) else number(value)
