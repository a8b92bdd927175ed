"""One HTML page with everything in it: style, script, figures and the library that draws them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from hf_bias_patch.errors import ExtraError
from hf_bias_patch.studies.figures.description import Panel
from hf_bias_patch.studies.figures.to_plotly import height, plotly_panel
from hf_bias_patch.studies.number_formats import number
from hf_bias_patch.studies.report.tables import Table

__all__ = ["Page", "Section", "render"]


@dataclass(frozen=True)
class Section:
    """One part of a page.

    Attributes:
        name: by which it can be linked to.
        title: its heading.
        about: paragraphs: what was done, and how to read it.
        panels, tables: what there is to see.
    """

    name: str
    title: str
    about: Sequence[str]
    panels: Sequence[Panel] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Page:
    """The content of a page, as plain texts; the template escapes them.

    Attributes:
        title: its heading.
        subtitle: what it is.
        facts: names and values: of what was measured, and how.
        summary: the summary, sentence by sentence.
        sections: in the order in which they are shown.
    """

    title: str
    subtitle: str
    facts: Sequence[tuple[str, str]]
    summary: Sequence[str]
    sections: Sequence[Section]


def render(page: Page) -> str:
    """The page as HTML; the same bytes for the same page and versions.

    Raises:
        ExtraError: jinja2 or plotly is missing.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ExtraError(
            f"The report needs jinja2 and plotly: {error}", remedy="pip install 'hf_bias_patch[study]'"
        ) from None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    panels = [panel for section in page.sections for panel in section.panels]
    return environment.from_string(_text("page.html.j2")).render(
        page=page,
        style=Markup(_text("page.css")),
        script=Markup(_script(_text("page.js"))),
        plotly=Markup(_script(get_plotlyjs())) if panels else "",
        plots=Markup(_json({panel.name: plotly_panel(panel) for panel in panels})),
        height=height,
        number=number,
    )


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _script(code: str) -> str:
    """Code that does not end its script element."""
    return code.replace("</script", "<\\/script")


def _json(value: Any) -> str:
    """JSON for a script element: tags are escaped, and numbers that are not finite are null."""
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
