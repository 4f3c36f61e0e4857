"""A whole run of the smallest scale: files, keys, page, resuming."""

import html
import json
import re
import shutil

import numpy as np
import pytest

from equilign.errors import ConfigError, RunDirectoryError
from equilign.experiments.omwu import run
from equilign.experiments.omwu.networks import NEURAL_CONTESTANTS
from equilign.experiments.omwu.run import NEURAL_FAMILIES
from equilign.experiments.reproduce import PAPERS, reproduce

KEYS = {"paper", "scale", "claims", "tables", "figures", "seconds"}


def quiet(*call):
    pass


def test_the_contract_of_the_summary(tiny_omwu):
    folder, summary, _ = tiny_omwu
    assert set(summary) >= KEYS
    assert summary["paper"] == "omwu"
    assert json.loads((folder / "results.json").read_text()) == summary
    for table in summary["tables"]:
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    for name in [*summary["figures"], *summary["parts"], "report.html", "config.yaml"]:
        assert (folder / name).stat().st_size > 100, name
    assert {f.rpartition(".")[2] for f in summary["figures"]} == {"svg", "png"}
    assert summary["seconds"] > 0.0


def test_the_page_stands_alone_and_says_everything(tiny_omwu):
    folder, summary, _ = tiny_omwu
    page = html.unescape((folder / "report.html").read_text())
    assert "default-src 'none'" in page
    assert not re.search(r'(?:src|href)="(?!#|https://arxiv\.org/abs/)', page)
    text = re.sub(r"<[^>]+>", "", page)
    for claim in summary["claims"]:
        assert claim["claim"] in text
    assert page.count('<figure id="figure-') * 2 == len(summary["figures"])
    assert "not available" in text, "what could not be known about the paper is said"
    assert len(page) < 2_000_000


def test_progress_names_the_parts(tiny_omwu):
    told = [call[0] for call in tiny_omwu[2] if call[2] == call[3]]
    assert "matrices: random, n = 10" in told
    assert told[-1] == "figures and page"


def test_numbers_are_gaps_of_the_original_game(tiny_results):
    for found in tiny_results["tabular"].values():
        for row in found["contestants"].values():
            final = np.array(row["final"], dtype=float)
            assert ((final >= 0.0) & (final <= 1.0)).all()
            assert len(row["curve"]["calls"]) == len(row["curve"]["median"])
        beaten = found["contestants"]["omwu"]["final_quantiles"][1]
        assert beaten < found["contestants"]["mwu"]["final_quantiles"][1]


def test_exact_floors_are_where_extragradient_ends(tiny_results):
    for rows in tiny_results["floors"].values():
        strong = next(r for r in rows if r["beta"] == 0.1 and r["method"] == "egpo")
        assert strong["agree"] == 1.0
        exact = [r["exact_quantiles"][1] for r in rows if r["method"] == "egpo"]
        assert exact == sorted(exact, reverse=True), "a smaller KL weight, a lower floor"


def test_networks_moved_and_every_contestant_is_there(tiny_results):
    assert set(tiny_results["neural"]) == set(NEURAL_FAMILIES)
    for found in tiny_results["neural"].values():
        assert set(found["contestants"]) == {c.key for c in NEURAL_CONTESTANTS}
        for row in found["contestants"].values():
            assert row["final_quantiles"] != row["start_quantiles"]
            assert row["curve"]["steps"][-1] <= found["gradient_steps"]


def test_resuming_computes_only_what_is_missing(tiny_omwu, tmp_path, monkeypatch):
    """A part is deleted: it comes back the same; the others are read."""
    monkeypatch.setattr(run, "render_reproduction", lambda page, folder: [])  # seconds of drawing
    folder, summary, _ = tiny_omwu
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    lost = copy / "parts" / "regrowth.json"
    before = lost.read_bytes()
    lost.unlink()
    told = []
    again = reproduce(
        "omwu", copy, scale="tiny", seed=3, resume=True, progress=lambda *c: told.append(c[0])
    )
    assert set(told) == {"rarely played responses", "figures and page"}
    assert lost.read_bytes() == before
    assert again["claims"] == summary["claims"]
    assert again["tables"] == summary["tables"]


def test_a_folder_in_use_is_refused(tiny_omwu, tmp_path):
    folder = tiny_omwu[0]
    with pytest.raises(RunDirectoryError, match="already holds a run"):
        reproduce("omwu", folder, scale="tiny", seed=3, progress=quiet)
    with pytest.raises(RunDirectoryError, match="seed: 3 there, 4 now"):
        reproduce("omwu", folder, scale="tiny", seed=4, resume=True, progress=quiet)


def test_a_damaged_part_is_named(tiny_omwu, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_omwu[0], copy)
    (copy / "parts" / "floors-random.json").write_text("{")
    with pytest.raises(RunDirectoryError, match=r"floors-random\.json.*delete that file"):
        reproduce("omwu", copy, scale="tiny", seed=3, resume=True, progress=quiet)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"paper": "sppoo"}, "no paper 'sppoo'; there are: omwu"),
        ({"scale": "huge"}, "no scale 'huge'; there are: quick, full, tiny"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_bad_requests(tmp_path, arguments, message):
    options = {"paper": "omwu", "scale": "tiny", "seed": 0, **arguments}
    paper = options.pop("paper")
    with pytest.raises(ConfigError, match=message):
        reproduce(paper, tmp_path / "x", **options, progress=quiet)
    assert not (tmp_path / "x").exists()


def test_every_paper_has_a_runner():
    from importlib import import_module

    for name, paper in PAPERS.items():
        module, _, function = paper.runner.partition(":")
        assert callable(getattr(import_module(module), function))
        assert paper.name == name


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_quick_scale_end_to_end(tmp_path, record_property):
    """What a user waits for; the time is recorded, and judged nowhere."""
    summary = reproduce("omwu", tmp_path / "run", scale="quick", seed=0, progress=quiet)
    record_property("seconds", summary["seconds"])
    record_property("peak_memory_mb", summary["peak_memory_mb"])
    assert set(summary) >= KEYS
    verdicts = {claim["claim"]: claim["holds"] for claim in summary["claims"]}
    straight = next(v for c, v in verdicts.items() if "constant factor per step" in c)
    assert straight is True
    print(f"quick scale: {summary['seconds']:.0f} s, {summary['peak_memory_mb']:.0f} MB")
