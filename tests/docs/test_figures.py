"""Figures of the documentation are what their scripts draw."""

import runpy
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from equilign.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "recipes" / "figures" / "which_method.py"))


def test_the_figure_is_up_to_date(script):
    assert script["TARGET"].read_text(encoding="utf-8") == script["draw"]()


def test_it_stands_alone_and_says_itself(script):
    root = ET.fromstring(script["draw"]())
    label = root.attrib["aria-label"]
    for fork in script["FORKS"]:
        assert " ".join(fork.question) in label
        assert fork.methods in label
    assert "http" not in script["draw"]().replace("http://www.w3.org/2000/svg", "")


def test_methods_in_it_exist_and_are_in_the_table(script):
    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    drawn = [fork.methods for fork in script["FORKS"][1:]] + [script["LAST"][0]]
    for name in " ".join(drawn).replace(",", "").split():
        if name not in ("or", "then", "refine"):
            assert name in METHODS, name
            assert f"`{name}`" in page, name
