"""One run of the smallest scale, shared by the tests that read what it leaves."""

import json

import pytest

from equilign.experiments.reproduce import reproduce


@pytest.fixture(scope="session")
def tiny_omwu(tmp_path_factory):
    """Folder, summary and progress calls of ``equilign reproduce omwu --scale tiny``."""
    folder = tmp_path_factory.mktemp("omwu") / "run"
    told = []
    summary = reproduce(
        "omwu", folder, scale="tiny", seed=3, progress=lambda *call: told.append(call)
    )
    return folder, summary, told


@pytest.fixture
def tiny_results(tiny_omwu):
    """The measured numbers, read back from the parts: a fresh copy for each test."""
    parts = {p.stem: json.loads(p.read_text()) for p in (tiny_omwu[0] / "parts").glob("*.json")}
    results = {"regrowth": parts["regrowth"]}
    for key, prefix in (
        ("tabular", "tabular-"),
        ("floors", "floors-"),
        ("linear", "linear-"),
        ("neural", "networks-"),
    ):
        names = ("full-odd", "full-even", "random")
        results[key] = {n: parts[prefix + n] for n in names if prefix + n in parts}
    return results
