"""The page of a tournament as text: what it holds, its size, what it says."""

import base64
import gzip
import json
import time

import numpy as np
import pytest

from equilign.reports.tournament import MOST_BYTES, render_tournament, tournament_html
from equilign.reports.tournament_data import Sheet, pack_sheet
from equilign.reports.tournament_words import lead
from tests.reports.tournaments import made, results_of


def opened(packed):
    return json.loads(gzip.decompress(base64.b64decode(packed.data)))


def test_everything_fits_and_comes_back():
    sheet = made()
    packed = pack_sheet(sheet)
    assert (packed.prompts, packed.texts_cut) == (30, 0)
    data = opened(packed)
    assert data["prompts"] == list(sheet.prompts)
    assert data["answers"] == [[list(row) for row in player] for player in sheet.answers]
    pairs = [(0, 1), (0, 2), (1, 2)]
    for column, (i, j) in zip(data["wins"], pairs, strict=True):
        expected = [-1 if v != v else round(1000 * v) for v in sheet.wins[:, i, j].tolist()]
        assert column == expected


@pytest.mark.parametrize(("value", "shown"), [(0.5 + 1e-12, 500), (0.5004, 501), (0.4996, 499)])
def test_only_ties_are_ties(value, shown):
    wins = np.array([[[0.5, value], [1 - value, 0.5]]])
    assert opened(pack_sheet(Sheet(["p"], [[["a"]], [["b"]]], wins)))["wins"] == [[shown]]


def test_long_texts_are_cut_before_prompts_are_left_out():
    sheet = made(prompts=200, words=400)
    whole = len(pack_sheet(sheet, 10**9).data)
    packed = pack_sheet(sheet, whole // 4)
    assert len(packed.data) <= whole // 4
    assert packed.prompts == 200
    assert packed.texts_cut == 600
    text = opened(packed)["answers"][0][0][0]
    full = sheet.answers[0][0][0]
    assert text == f"{full[: packed.cut]}… ({len(full) - packed.cut:,} more characters)"
    # Not far below what is allowed: the next longer cut would not have fitted.
    assert len(packed.data) > whole // 7
    few = pack_sheet(sheet, whole // 60)
    assert len(few.data) <= whole // 60
    assert 1 <= few.prompts < 200
    assert opened(few)["prompts"][-1].startswith(f"prompt no{few.prompts - 1:05d} ")


def test_the_page_says_what_it_leaves_out():
    sheet = made(prompts=200, words=400)
    text = tournament_html(results_of(sheet), sheet)
    assert "All 200\u00a0prompts with all answers." in text
    assert "prompts.jsonl beside" in text  # for readers without JavaScript
    assert len(text.encode()) < 1_000_000


def test_names_and_words_are_escaped():
    names = ("<b>x</b>", "a&b", "c")
    sheet = made(names)
    text = tournament_html(results_of(sheet, names), sheet)
    assert "<b>x</b>" not in text
    assert "&lt;b&gt;x&lt;/b&gt;" in text
    assert "a&amp;b" in text


def test_figures_as_files_and_the_same_page_twice(tmp_path):
    sheet = made()
    results = results_of(sheet)
    paths = render_tournament(results, sheet, tmp_path)
    assert sorted(p.name for p in paths) == sorted(
        f"tournament-{key}{end}"
        for key in ("ranking", "graph", "matrix")
        for end in (".svg", ".png")
    )
    first = (tmp_path / "report.html").read_bytes()
    assert first == tournament_html(results, sheet).encode()
    assert b"http://" not in first.replace(b"http://www.w3.org", b"")


@pytest.mark.parametrize("size", [2, 14])
def test_few_and_many_players(size):
    names = tuple(f"player {i}" for i in range(size))
    sheet = made(names, prompts=20)
    results = results_of(sheet, names)
    results["cycles"]["examples"] = []
    text = tournament_html(results, sheet)
    assert text.count('<th scope="row">player 1</th>') == 3


def test_words_follow_the_numbers():
    sheet = made()
    results = results_of(sheet)
    results["condorcet_winner"] = "tuned"
    results["bradley_terry"]["favourite"] = "base"
    results["low"][1] = [0.6, 0.5, 0.6]
    second = lead(results)[1]
    assert "tuned beats every other player head to head" in second
    assert "puts base first" in second
    assert "The intervals of all its win rates lie above" in second
    results["low"][1] = [0.45, 0.5, 0.6]
    assert "Against 1 of the 2 the interval contains" in lead(results)[1]
    results["condorcet_winner"] = None
    results["lottery"] = {"base": 0.25, "tuned": 0.75, "other": 0.0}
    assert "the maximal lottery plays tuned (75\u00a0%), base (25\u00a0%)." in lead(results)[1]


def test_two_players_have_no_circles_to_speak_of():
    sheet = made(("a", "b"))
    results = results_of(sheet, ("a", "b"))
    assert len(lead(results)) == 2
    assert not any("circle" in words for words in lead(results))
    three = results_of(made())
    assert "1\u00a0cycle of three players" in lead(three)[2]
    three["cycles"]["count"] = 0
    assert lead(three)[2] == "No three players beat each other in a circle."


@pytest.mark.slow
def test_ten_thousand_prompts_in_time_and_size():
    names = ("a", "b", "c", "d")
    sheet = made(names, prompts=10_000, words=60)
    results = results_of(sheet, names)
    began = time.process_time()  # a busy machine is not the page's fault
    text = tournament_html(results, sheet)
    assert time.process_time() - began < 60
    assert 2_000_000 < len(text.encode()) < MOST_BYTES
    assert "All 10,000\u00a0prompts with all answers." in text
