"""The page of a study, looked at in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_bias_patch.studies.comparison import compare_studies
from hf_bias_patch.studies.report.study import write_report
from hf_bias_patch.studies.results import write_results
from tests.studies.browser import Opened, chromium, opened, wait_for_figures
from tests.studies.complete import HOSTILE, complete, environment_in

SECTIONS = ("verdicts", "perturbation", "where", "removal", "folds", "steps", "lessons", "drift", "scores")

_DRAWN = """() => Array.from(document.querySelectorAll("[data-plot]"), (place) => {
    const box = place.querySelector(".main-svg")?.getBoundingClientRect();
    const marks = place.querySelectorAll(".scatterlayer .points path, .barlayer .point path, .heatmaplayer image");
    const cut = Array.from(place.querySelectorAll("text")).filter((text) => {
        const shape = text.getBoundingClientRect();
        const out = shape.left < box.left - 1 || shape.right > box.right + 1 || shape.bottom > box.bottom + 1;
        return shape.width && out;
    });
    return { name: place.dataset.plot, width: box?.width ?? 0, height: box?.height ?? 0, marks: marks.length,
             wide: document.documentElement.clientWidth, cut: cut.map((text) => text.textContent),
             titles: place.querySelectorAll(".xtitle, .ytitle").length };
})"""

# Of all text that is shown, what stands out least from what lies behind it.
_CONTRAST = """() => {
    const numbers = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
        .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
    const behind = (element) => {
        for (let one = element; one; one = one.parentElement) {
            const found = numbers(getComputedStyle(one).backgroundColor);
            if (found.length === 3 || found[3] > 0) return found;
        }
        throw new Error("no paper");
    };
    let worst = { ratio: 99, text: "" }, seen = 0;
    for (const element of document.querySelectorAll("body *")) {
        if (element.closest("script, .heatmap-label, noscript, .skip") || !element.getClientRects().length) continue;
        const own = Array.from(element.childNodes).filter((node) => node.nodeType === 3 && node.data.trim());
        if (!own.length) continue;
        const style = getComputedStyle(element);
        const ink = numbers(element.namespaceURI.endsWith("svg") ? style.fill : style.color);
        const [low, high] = [light(ink), light(behind(element))].sort((one, two) => one - two);
        const ratio = (high + 0.05) / (low + 0.05);
        seen += 1;
        if (ratio < worst.ratio) worst = { ratio, text: own[0].data.trim() };
    }
    return { ...worst, seen };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study with every experiment."""
    folder = environment_in(tmp_path_factory.mktemp("report"))
    return folder / write_report(complete(), folder)[0]


@pytest.fixture(scope="module")
def wide(browser: Any, report: Path) -> Iterator[Opened]:
    with opened(browser, report) as there:
        assert wait_for_figures(there.page) > 0
        yield there


def test_nothing_is_asked_of_a_network_and_nothing_goes_wrong(wide: Opened, report: Path) -> None:
    assert wide.requests == [report.as_uri()]
    assert wide.complaints == []
    out = wide.page.evaluate(
        "() => Array.from(document.querySelectorAll('[src], link[href], a[href]'),"
        " (e) => e.getAttribute('src') ?? e.getAttribute('href')).filter((to) => !to.startsWith('#'))"
    )
    assert out == []


def test_every_section_is_there(wide: Opened) -> None:
    for name in SECTIONS:
        assert wide.page.locator(f"section#{name} h2").is_visible()
        assert wide.page.locator(f"section#{name} table").count() >= 1
    assert wide.page.locator("#summary li").count() >= 5


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_it_can_be_read(browser: Any, report: Path, width: int, scheme: Any) -> None:
    with opened(browser, report, width=width, scheme=scheme) as there:
        wait_for_figures(there.page)
        drawn = there.page.evaluate(_DRAWN)
        assert len(drawn) >= 15
        for plot in drawn:
            assert plot["marks"] > 0 and plot["height"] > 100 and plot["titles"] > 0, plot
            assert not plot["cut"], plot
            assert 200 < plot["width"] <= plot["wide"], plot
        assert there.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        paper = there.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 28)")
        least = there.page.evaluate(_CONTRAST)
        assert least["seen"] > 500 and least["ratio"] >= 4.5, least
        assert there.complaints == []


def test_figures_follow_the_scheme_and_the_window(browser: Any, report: Path) -> None:
    with opened(browser, report) as there:
        wait_for_figures(there.page)
        label = there.page.locator("[data-plot=removal] .xtitle")
        before = label.evaluate("(text) => getComputedStyle(text).fill")
        there.page.emulate_media(color_scheme="dark")
        there.page.wait_for_function(
            "(before) => getComputedStyle(document.querySelector('[data-plot=removal] .xtitle')).fill !== before",
            arg=before,
        )
        assert there.page.evaluate(_CONTRAST)["ratio"] >= 4.5
        for width in (800, 390):  # a smaller window, and one so narrow that there is room for less
            there.page.set_viewport_size({"width": width, "height": 800})
            there.page.wait_for_function(
                "(wide) => document.querySelector('[data-plot=removal] .main-svg').clientWidth < wide",
                arg=width,
            )
        there.page.wait_for_function("() => document.documentElement.scrollWidth <= innerWidth")
        there.page.wait_for_function(f"() => ({_DRAWN})().every((plot) => !plot.cut.length && plot.width <= plot.wide)")
        assert there.complaints == []


def _in_view(place: Any, mark: str) -> dict[str, float]:
    """Where a mark of a figure is, once the page has moved to the figure."""
    place.scroll_into_view_if_needed()
    place.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return place.locator(mark).bounding_box()


@pytest.mark.parametrize(
    ("plot", "mark", "says"),
    [
        ("perturbation-encoder-self", ".scatterlayer .points path >> nth=0", "encoder self, query, zeros"),
        ("layers-encoder-self", ".heatmaplayer image", "encoder self, query, layer 3, zeros"),
        ("steps-decoder-self", ".barlayer .point path >> nth=0", "decoder self, query, gradient"),
        ("lessons", ".scatterlayer .points path >> nth=3", "query"),
        ("scores-2", ".scatterlayer .points path >> nth=-1", "embedded:lm, from scratch, value"),
    ],
)
def test_pointing_at_a_mark_tells_its_figures(wide: Opened, plot: str, mark: str, says: str) -> None:
    page, tip = wide.page, wide.page.locator("#tip")
    assert tip.is_hidden()
    place = page.locator(f"[data-plot={plot}]")
    box = _in_view(place, mark)
    page.mouse.move(box["x"] + box["width"] / 2 + 2, box["y"] + min(6, box["height"] / 2))
    tip.wait_for()
    text = tip.inner_text().splitlines()
    assert text[0] == says and len(text) > 3 and all(": " in line for line in text[1:])
    shown = tip.bounding_box()
    assert shown and shown["x"] >= 0 and shown["y"] >= 0 and shown["y"] + shown["height"] <= 900
    page.mouse.move(0, 0)
    tip.wait_for(state="hidden")


def _column(page: Any, section: str, label: str) -> tuple[Any, list[str]]:
    table = page.locator(f"section#{section} table").first
    heads = [text.strip() for text in table.locator("th button").all_text_contents()]
    at = heads.index(label)
    values = table.locator(f"tbody td:nth-child({at + 1})")
    return table.locator("th").nth(at), values.evaluate_all(
        "(cells) => cells.map((cell) => cell.dataset.value ?? cell.textContent)"
    )


def test_a_table_is_sorted_by_mouse_and_by_keyboard(wide: Opened) -> None:
    head, before = _column(wide.page, "verdicts", "change")
    numbers = sorted(map(float, before))
    assert list(map(float, before)) != numbers and sorted(before) != list(map(repr, numbers))
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert list(map(float, _column(wide.page, "verdicts", "change")[1])) == numbers
    wide.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert list(map(float, _column(wide.page, "verdicts", "change")[1])) == numbers[::-1]
    wide.page.keyboard.press("Shift+Tab")  # to the heading before, "numbers", and from there to "verdict"
    wide.page.keyboard.press("Shift+Tab")
    wide.page.keyboard.press("Space")
    other, values = _column(wide.page, "verdicts", "verdict")
    assert other.get_attribute("aria-sort") == "ascending" and values == sorted(values)
    assert head.get_attribute("aria-sort") == "none"


@pytest.mark.parametrize("times", [1, 2])
def test_what_has_no_value_comes_last(wide: Opened, times: int) -> None:
    head, before = _column(wide.page, "folds", "relative")
    assert "" in before
    for _ in range(times):
        head.locator("button").click()
    values = _column(wide.page, "folds", "relative")[1]
    assert "" not in values[: -before.count("")] and set(values[-before.count("") :]) == {""}


def test_hostile_names_stay_text(browser: Any, tmp_path: Path) -> None:
    found = complete(HOSTILE, notes=(HOSTILE,))
    rows = [*found.rows[:3], *(row for row in found.rows if row.stage == "removal")]
    folder = environment_in(tmp_path)
    path = folder / write_report(complete(HOSTILE, notes=(HOSTILE,), rows=tuple(rows)), folder)[0]
    with opened(browser, path) as there:
        wait_for_figures(there.page)
        shown = HOSTILE.replace("\u2028", "").strip()
        assert shown in (there.page.locator("h1").text_content() or "").replace("\u2028", "")
        assert there.page.title() != "taken" and there.complaints == []


def test_a_comparison_is_such_a_page_and_a_finger_can_point(browser: Any, tmp_path: Path) -> None:
    told = ["owner/a-model", "embedded:bart with a name that is much longer than a phone is wide"]
    folders = [environment_in(tmp_path / str(number)) for number, _ in enumerate(told)]
    for name, folder in zip(told, folders, strict=True):
        write_results(complete(name), folder)
    compare_studies(folders, tmp_path)
    path = tmp_path / "comparison.html"
    with opened(browser, path, width=390, scheme="dark") as there:
        assert wait_for_figures(there.page) == 1
        box = _in_view(there.page.locator(".plot"), ".scatterlayer .points path >> nth=-1")
        there.page.touchscreen.tap(box["x"] + 5, box["y"] + 5)
        there.page.locator("#tip").wait_for()
        assert there.page.locator("#tip strong").inner_text() == told[1]
        drawn = there.page.evaluate(_DRAWN)[0]
        assert drawn["marks"] >= 18 and not drawn["cut"]
        assert there.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert there.page.evaluate(_CONTRAST)["ratio"] >= 4.5
        assert there.complaints == [] and there.requests == [path.as_uri()]
