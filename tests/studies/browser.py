"""A page as a reader has it: in Chromium, with no network, at some width and in some scheme."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOW_TO = "Chromium is not on PATH: on Debian, apt-get install chromium"
_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@dataclass
class Opened:
    """A page, and all that it complained of or asked for since it was opened."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; without one the test is skipped, and fails where CI promises that there is one."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(HOW_TO)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=_OPTIONS)
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, path: Path, *, width: int = 1280, scheme: Literal["light", "dark"] = "light"
) -> Iterator[Opened]:
    """A file in a new window; a narrow one is a phone."""
    size, touch = {"width": width, "height": 900}, width < 500
    context = browser.new_context(viewport=size, color_scheme=scheme, offline=True, has_touch=touch, is_mobile=touch)
    there = Opened(context.new_page())
    there.page.set_default_timeout(20_000)
    there.page.on("console", lambda message: there.complaints.append(f"{message.type}: {message.text}"))
    there.page.on("pageerror", lambda error: there.complaints.append(str(error)))
    there.page.on("request", lambda request: there.requests.append(request.url))
    there.page.goto(path.as_uri())
    there.page.wait_for_load_state("load")
    try:
        yield there
    finally:
        context.close()


def wait_for_figures(page: Page) -> int:
    """How many figures are drawn, once they are."""
    page.wait_for_selector("html[data-drawn]", state="attached")
    return int(page.locator("html").get_attribute("data-drawn") or 0)
