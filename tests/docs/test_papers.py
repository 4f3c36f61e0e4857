"""Tables of docs/papers: every claim names code and a test, and both exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "papers").glob("*.md"))
HEAD = ["claim", "equation", "code", "test", "measured"]
PLACE = re.compile(r"`([\w/]+\.py)::(\w+)`")
CODE = ROOT / "src" / "equilign"


@cache
def names(path):
    """What a file defines at its top level."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found |= {t.id for t in targets if isinstance(t, ast.Name)}
    return found


def rows(text):
    """Cells of the tables whose head is HEAD, row by row."""
    found, inside = [], False
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")] if line.startswith("|") else []
        if cells == HEAD:
            inside = True
        elif not cells:
            inside = False
        elif inside and set("".join(cells)) != {"-"}:
            found.append(cells)
    return found


def missing(text):
    """What is wrong with a page's tables, in words."""
    problems = []
    for cells in rows(text):
        if len(cells) != len(HEAD) or not all(cells):
            problems.append(f"not five cells: {cells}")
            continue
        for cell, root, start in ((cells[2], CODE, ""), (cells[3], ROOT, "tests/")):
            places = PLACE.findall(cell)
            if not places or PLACE.sub("", cell).strip(", "):
                problems.append(f"no path::name, or more than those: {cell}")
            for path, name in places:
                if not path.startswith(start) or not (root / path).is_file():
                    problems.append(f"no file {path}")
                elif name not in names(root / path):
                    problems.append(f"{path} has no {name}")
                elif start and not name.startswith("test_"):
                    problems.append(f"{name} is no test")
    return problems


def test_there_is_a_page_for_each_paper():
    assert [p.stem for p in PAGES] == ["omwu", "slhf", "sppo", "sta-rlhf"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_code_and_tests_exist(page):
    text = page.read_text(encoding="utf-8")
    assert len(rows(text)) >= 10
    assert missing(text) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("SPPO`", "SPP`", "rules/sppo.py has no SPP"),
        ("rules/sppo.py::", "rules/spo.py::", "no file rules/spo.py"),
        ("::test_monotone", "::test_monotony", "has no test_monotony"),
        ("tests/experiments/test_sppo_claims.py::test_length", "tests/x.py::test_a", "no file"),
        ("`rules/sppo.py::SPPO`", "see there", "no path::name"),
        ("| exact |", "| |", "not five cells"),
    ],
)
def test_a_wrong_table_is_seen(old, new, told):
    text = (ROOT / "docs" / "papers" / "sppo.md").read_text(encoding="utf-8")
    assert old in text
    (problem,) = missing(text.replace(old, new, 1))
    assert told in problem
