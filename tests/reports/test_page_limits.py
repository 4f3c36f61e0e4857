import copy
import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib
import pytest

from equilign.reports import page as page_module
from equilign.reports import render_report, save_figures
from equilign.reports.content import page_content
from equilign.reports.figures import charts
from equilign.reports.page import MOST_BYTES, report_html
from equilign.reports.run import read_run

from .dom import SECTIONS, figure_table, parse, tiles

# Missing parts


def paths(value, here=()):
    if here:
        yield here
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value[:2])
    else:
        return
    for key, item in items:
        yield from paths(item, (*here, key))


def change(summary, path, action):
    result = copy.deepcopy(summary)
    parent = result
    for key in path[:-1]:
        parent = parent[key]
    action(parent, path[-1])
    return result


REPLACEMENTS = [None, "text", float("nan"), [], {}, 3, [None], {"x": None}]


def test_any_part_may_be_missing_or_odd(summary):
    for path in paths(summary):
        changed = [change(summary, path, lambda parent, key: parent.pop(key))]
        for value in REPLACEMENTS:
            changed.append(change(summary, path, lambda p, k, v=value: p.__setitem__(k, v)))
        for variant in changed:
            run = read_run(variant)
            page_content(run, 10_000)
            charts(run)


@pytest.mark.parametrize(
    "path",
    [
        ("methods",),
        ("oracle",),
        ("methods", "sppo", "rounds"),
        ("methods", "sppo", "final"),
        ("methods", "sppo", "rounds", 1, "win_rate"),
        ("methods", "sppo", "rounds", 1, "low"),
        ("methods", "sppo", "rounds", 0, "kl_nats"),
        ("methods", "sppo", "rounds", 2, "cycles"),
        ("methods", "sppo", "final", "attributes", "quality", "win_rate"),
        ("methods", "sppo", "examples", 0, "win_prob"),
    ],
    ids=lambda path: ".".join(map(str, path)),
)
def test_page_without_a_part_keeps_its_sections(summary, path):
    page = parse(report_html(change(summary, path, lambda p, k: p.__setitem__(k, None))))
    assert [node["id"] for node in page.all("section")] == SECTIONS


@pytest.mark.parametrize("empty", [{}, {"methods": {}}, {"methods": {"sppo": None}}])
def test_empty_run_says_what_is_missing(empty):
    page = parse(report_html(empty))
    assert [node["id"] for node in page.all("section")] == SECTIONS
    assert not page.all("svg")
    for section in ("win-rate", "front", "attributes", "cycles", "answers", "judges"):
        assert "recorded no" in page.by_id(section).words()


def test_final_numbers_fall_back_to_the_last_round(summary, rendered):
    del summary["methods"]["sppo"]["final"]
    found = tiles(rendered(summary).first("div", "method"))
    assert found["Preferred to the start"] == "64 %95 %: 59–69 %"
    assert found["Distance moved"] == "2.2nats"


def test_unjudged_answer_is_neither_better_nor_worse(summary):
    summary["methods"]["sppo"]["examples"][0]["win_prob"] = None
    item = parse(report_html(summary)).first("li", "answer")
    assert item["data-verdict"] == "unknown"
    assert item.first("h3").words() == "Not judged"


# Files


def test_report_is_written_and_replaced(summary, tmp_path):
    target = tmp_path / "new" / "report.html"
    render_report({}, target)
    render_report(summary, target)
    assert target.read_text(encoding="utf-8") == report_html(summary)
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize("broken", ["report_html", "write"])
def test_failing_render_leaves_the_old_file(summary, tmp_path, monkeypatch, broken):
    target = tmp_path / "report.html"
    target.write_text("old")

    def fail(*args, **kwargs):
        raise OSError("no")

    if broken == "write":
        monkeypatch.setattr("os.fsync", fail)
    else:
        monkeypatch.setattr(page_module, broken, fail)
    with pytest.raises(OSError, match="no"):
        render_report(summary, target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_two_renders_are_identical_whatever_the_matplotlib_settings(two_methods):
    first = report_html(two_methods)
    with matplotlib.rc_context({"font.size": 30, "svg.hashsalt": "other", "axes.grid": False}):
        before = dict(matplotlib.rcParams)
        assert report_html(two_methods) == first
        assert dict(matplotlib.rcParams) == before


def test_page_stays_small_for_a_huge_run(summary):
    method = summary["methods"]["sppo"]
    text = "\x1b'<" * 600
    method["examples"] = [
        {"prompt": text, "before": text, "after": text, "win_prob": 0.7} for _ in range(3000)
    ]
    method["rounds"] = [dict(method["rounds"][0], round=i) for i in range(1, 2001)]
    summary["config"] = {str(i): "x" * 5000 for i in range(5000)}
    html = report_html(summary)
    assert len(html.encode()) < MOST_BYTES
    page = parse(html)
    shown = len(page.all("li", "answer"))
    assert 0 < shown < 3000
    words = page.by_id("answers").first("p").words()
    assert f"it holds {shown:,} of 3,000 answers" in words
    assert figure_table(page, "win-rate")[-1][1] == "2000"


def test_figures_are_saved_as_svg_and_png(two_methods, tmp_path):
    written = save_figures(two_methods, tmp_path / "figures")
    keys = ("win-rate", "front", "attributes", "cycles")
    assert [path.name for path in written] == [f"{k}{s}" for k in keys for s in (".svg", ".png")]
    for path in written:
        if path.suffix == ".svg":
            root = ET.parse(path).getroot()
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
            texts = {node.text for node in root.iter("{http://www.w3.org/2000/svg}text")}
            assert "Nash-MD" in texts
        else:
            assert path.read_bytes().startswith(b"\x89PNG\r\n")
    again = save_figures(two_methods, tmp_path / "again")
    assert [p.read_bytes() for p in written] == [p.read_bytes() for p in again]


def test_no_gui_library_and_no_torch_is_imported():
    code = (
        "import sys; from equilign.reports import render_report; "
        "print([m for m in ('matplotlib.pyplot', 'torch', 'transformers', 'tkinter') "
        "if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
