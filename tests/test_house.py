"""The house's own rules: one name a class, small files, small functions, and a glossary that says each word once."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hf_bias_patch"
LINES, FUNCTION_LINES = 400, 60


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text("utf-8"))


def _is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it is one of the command line's: its parameters are options, each with its help."""
    return any("typer." in ast.unparse(argument.annotation or ast.Constant(0)) for argument in function.args.args)


def test_no_two_public_classes_share_a_name() -> None:
    names = Counter(
        node.name
        for _, module in modules()
        for node in ast.walk(module)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name for name, count in names.items() if count > 1} == set()


def test_files_are_small() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: size for name, size in sizes.items() if size > LINES} == {}


def test_functions_are_small() -> None:
    sizes = {
        f"{name}: {node.name}": (node.end_lineno or 0) - (node.body[0].lineno if _is_command(node) else node.lineno) + 1
        for name, module in modules()
        for node in ast.walk(module)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert {name: size for name, size in sizes.items() if size > FUNCTION_LINES} == {}


def test_the_glossary_says_each_word_once() -> None:
    page = (ROOT / "docs" / "design.md").read_text("utf-8")
    section = page.partition("## Glossary\n")[2].partition("\n## ")[0]
    words = [
        word.strip() for line in re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE)[1:] for word in line.split(",")
    ]
    assert len(words) > 20 and [word for word, count in Counter(words).items() if count > 1] == []


@pytest.mark.parametrize(
    "page", sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]), ids=lambda path: path.name
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    lost = []
    for link in links:
        target, _, anchor = link.partition("#")
        if link.startswith("http"):
            continue
        there = page if not target else (page.parent / target)
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            lost.append(link)
    assert lost == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made of their text."""
    heads = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
