"""Several runs on one page, where that is fair."""

import copy
import json

import pytest
from click.testing import CliRunner

from equilign.cli.main import cli
from equilign.errors import DataError, EquilignError
from equilign.reports import side_by_side
from equilign.reports.page import report_html


@pytest.fixture
def other(summary):
    found = copy.deepcopy(summary)
    found.update(seed=8, seconds=100.0, peak_memory_mb=2000.0, samples_per_prompt=3)
    found["methods"]["sppo"]["final"]["win_rate"] = 0.71
    return found


def test_every_run_keeps_its_methods(summary, other):
    found = side_by_side([("first", summary), ("second", other)])
    assert list(found["methods"]) == ["sppo (first)", "sppo (second)"]
    rates = [m["final"]["win_rate"] for m in found["methods"].values()]
    assert rates == [0.63, 0.71]
    assert [m["title"] for m in found["methods"].values()] == ["SPPO (first)", "SPPO (second)"]
    assert found["seconds"] == pytest.approx(412.4)
    assert found["peak_memory_mb"] == 2000.0
    assert found["seed"] == "7, 8"
    assert set(found["config"]) == {"first", "second"}
    assert "samples_per_prompt" not in found, "they differ in it"
    assert found["start"] == {"mean_tokens": 26.0}
    assert summary["methods"]["sppo"]["title"] == "SPPO", "the runs are left as they were"


def test_the_page_has_both(summary, other):
    html = report_html(side_by_side([("first", summary), ("second", other)]))
    assert "SPPO (first)" in html
    assert "SPPO (second)" in html
    assert "71\u00a0%" in html


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "another"}, "the start model.*the shipped chat model and another"),
        ({"oracle": {"name": "someone else"}}, "the judge"),
        ({"prompts": {"train": 256, "evaluation": 64}}, "number of prompts.*128 and 64"),
    ],
)
def test_what_cannot_be_compared_is_refused(summary, other, change, words):
    other.update(change)
    with pytest.raises(DataError, match=words) as caught:
        side_by_side([("first", summary), ("second", other)])
    assert "equilign tournament" in str(caught.value)


def test_two_of_one_name_are_refused(summary, other):
    with pytest.raises(DataError, match="two of the runs are named same"):
        side_by_side([("same", summary), ("same", other)])


def test_the_command(summary, other, tmp_path):
    for name, content in (("one", summary), ("two", other)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(content))
    runs = [str(tmp_path / "one"), str(tmp_path / "two")]
    where = tmp_path / "both"
    done = CliRunner().invoke(cli, ["report", *runs, "--output-dir", str(where)])
    assert done.exit_code == 0, done.output
    assert "SPPO (two)" in (where / "report.html").read_text()
    assert list((where / "figures").glob("*.svg"))
    missing = CliRunner().invoke(cli, ["report", *runs])
    assert isinstance(missing.exception, EquilignError)
    assert "--output-dir" in str(missing.exception)
