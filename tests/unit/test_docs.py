"""What the pages name exists: links with their anchors, paths, make targets, and the messages that the FAQ quotes."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "config" / "README.md", *ROOT.glob("docs/*.md")])
BASELINES = (ROOT / "docs/baselines.md").read_text()
FOLDERS = "config|docs|envs|profiles|scripts|tests|workflow"
MADE_LATER = {"config/sources.lock.tsv"}  # by the first download
named_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    lines = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL).splitlines()
    headings = [line.lstrip("#").strip().lower() for line in lines if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


@named_page
def test_every_link_leads_somewhere(page):
    broken = []
    for path, anchor in re.findall(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text(encoding="utf-8")):
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(f"{path}#{anchor}")
    assert broken == []


@named_page
def test_every_path_and_make_target_exists(page):
    text = page.read_text(encoding="utf-8")
    found = {path.rstrip(".") for path in re.findall(rf"(?<![\w./>-])(?:{FOLDERS})/[\w./-]*", text)}
    assert sorted(path for path in found - MADE_LATER if not (ROOT / path).exists()) == []
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([\w-]+)", text, flags=re.MULTILINE)) <= targets


def test_the_messages_of_the_faq_are_those_of_the_code():
    modules = (ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "scripts").rglob("*.py"))
    texts = [text for module in modules for text in texts_of(module)]
    page = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| ((?:[^|\n]*has )?`[^|\n]*) \|", page, flags=re.MULTILINE)
    quoted = [quote for cell in cells for quote in re.findall(r"`([^`]+)`", cell)]
    patterns = {quote: ".*".join(map(re.escape, quote.split("..."))) for quote in quoted}
    assert len(patterns) > 60
    assert [one for one, pattern in patterns.items() if not any(re.search(pattern, text) for text in texts)] == []


def texts_of(tree) -> list[str]:
    """Every text in a module, on one line; what an f-string fills in is left out."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(part.value for part in node.values if isinstance(part, ast.Constant)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return [" ".join(text.split()) for text in found]


@pytest.mark.parametrize("method", re.findall(r"^## ([a-z_0-9]+)$", BASELINES, re.MULTILINE))
def test_every_method_of_the_papers_says_what_it_was_held_against(method):
    section = BASELINES.split(f"\n## {method}\n")[1].split("\n## ")[0]
    assert "\n**Held against** " in section
