"""The page of a tournament in a real browser: Debian's Chromium."""

import time

import numpy as np
import pytest

from equilign.reports.tournament import tournament_html
from equilign.reports.tournament_data import Sheet
from tests.reports.test_browser import active, tab_until
from tests.reports.tournaments import made, results_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

NAMES = ("base", "tuned", "other")


@pytest.fixture
def open_sheet(chromium, tmp_path):
    """Open a page from disk; afterwards, check that it asked for nothing and logged nothing."""
    contexts, complaints, requests = [], [], []

    def open_page(sheet, width=1100, scheme="light", script=True, names=NAMES):
        path = tmp_path / f"report-{len(contexts)}.html"
        path.write_text(tournament_html(results_of(sheet, names), sheet), encoding="utf-8")
        context = chromium.new_context(
            viewport={"width": width, "height": 800},
            color_scheme=scheme,
            java_script_enabled=script,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.goto(path.as_uri())
        if script:
            page.wait_for_selector(".answer")
        return page

    yield open_page
    expected = [(tmp_path / f"report-{i}.html").as_uri() for i in range(len(contexts))]
    for context in contexts:
        context.close()
    assert complaints == []
    assert requests == expected


def status(page):
    return page.locator("#status").text_content()


def numbers(page):
    return [int(t.split()[1]) for t in page.locator(".answer h3 b").all_text_contents()]


def means(sheet, player):
    others = [j for j in range(sheet.wins.shape[1]) if j != player]
    seen = ~np.isnan(sheet.wins[:, player, others])
    total = np.nan_to_num(sheet.wins[:, player, others]).sum(axis=1)
    return np.where(seen.any(axis=1), total / np.maximum(seen.sum(axis=1), 1), np.nan)


def test_paging(open_sheet):
    page = open_sheet(made())
    assert numbers(page) == list(range(1, 11))
    assert status(page) == "Showing 1 to 10 of 30 prompts."
    assert page.locator("#first").is_disabled()
    page.click("#next")
    assert numbers(page) == list(range(11, 21))
    assert page.evaluate("document.activeElement.className") == "answer"
    page.click("#last")
    assert numbers(page) == list(range(21, 31))
    assert page.locator("#next").is_disabled()
    page.fill("#page", "2")
    page.press("#page", "Enter")
    assert numbers(page) == list(range(11, 21))
    page.fill("#page", "99")
    page.press("#page", "Enter")
    assert numbers(page)[0] == 21


def test_search_sees_prompts_and_answers(open_sheet):
    sheet = made()
    page = open_sheet(sheet)
    page.fill("#search", "  PUBS prompt ")
    expected = sum("pubs" in text for text in sheet.prompts)
    assert status(page).endswith(f"of {expected} prompts.")
    word = sheet.answers[1][17][0].split()[3]
    page.fill("#search", word)
    found = [
        p
        for p in range(30)
        if any(word in text for text in (sheet.prompts[p], *(a[p][0] for a in sheet.answers)))
    ]
    assert numbers(page) == [p + 1 for p in found]
    page.fill("#search", "nothing has this")
    assert status(page) == "No prompt matches."
    assert page.locator("#paging").is_hidden()


def test_filters(open_sheet):
    sheet = made()
    page = open_sheet(sheet)
    assert page.locator("#outcome").is_disabled()
    page.select_option("#player", label="tuned")
    page.select_option("#against", label="base")
    column = sheet.wins[:, 1, 0]
    for outcome, where in (
        ("won", column > 0.5),
        ("lost", column < 0.5),
        ("tie", column == 0.5),
        ("none", np.isnan(column)),
    ):
        page.select_option("#outcome", outcome)
        assert numbers(page) == (np.flatnonzero(where)[:10] + 1).tolist(), outcome
    page.select_option("#outcome", "won")
    page.select_option("#against", "-1")
    assert numbers(page) == (np.flatnonzero(means(sheet, 1) > 0.5)[:10] + 1).tolist()
    page.select_option("#player", "-1")
    page.check("#cyclic")
    beats = sheet.wins > 0.5
    cyclic = [
        p
        for p, b in enumerate(beats)
        if (b[0, 1] and b[1, 2] and b[2, 0]) or (b[1, 0] and b[2, 1] and b[0, 2])
    ]
    assert cyclic
    assert numbers(page) == [p + 1 for p in cyclic[:10]]


def test_one_prompts_answers_and_graph(open_sheet):
    sheet = made()
    page = open_sheet(sheet)
    first = page.locator(".answer").first
    assert first.locator(".prompt").text_content() == sheet.prompts[0]
    assert first.locator("dd").all_text_contents() == [a[0][0] for a in sheet.answers]
    first.locator("summary").click()
    first.locator("svg").wait_for()
    said = first.locator("svg").get_attribute("aria-label")
    for i, winner in enumerate(NAMES):
        for j, loser in enumerate(NAMES):
            assert (f"{winner} beats {loser}" in said) == bool(sheet.wins[0, i, j] > 0.5)
    assert first.locator("svg line").count() == int((sheet.wins[0] > 0.5).sum())
    assert first.locator("tbody tr").count() == 3


def test_a_script_tag_stays_text(open_sheet):
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    sheet = made(prompts=3)
    answers = [[[evil] for _ in range(3)] for _ in NAMES]
    page = open_sheet(Sheet([evil, "p", "q"], answers, sheet.wins))
    assert page.locator(".answer .prompt").first.text_content() == evil
    assert page.locator(".answer dd").first.text_content() == evil
    assert page.evaluate("document.scripts.length") == 1
    assert page.locator("main img").count() == 0


def test_keyboard_alone(open_sheet):
    page = open_sheet(made())
    page.keyboard.press("Tab")
    assert active(page) == ["skip", "A"]
    page.keyboard.press("Enter")
    tab_until(page, "search")
    page.keyboard.type("no00007")
    assert numbers(page) == [8]
    page.keyboard.press("Tab")
    assert active(page)[0] == "player"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    assert active(page)[0] == "outcome"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    tab_until(page, "next", most=60)
    page.keyboard.press("Enter")
    assert numbers(page)[0] == 11


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1100, "light")])
def test_no_horizontal_scroll(open_sheet, width, scheme):
    names = ("a-name-without-any-space-that-is-rather-long", "tuned", "other", "d", "e", "f")
    page = open_sheet(made(names, words=60), width=width, scheme=scheme, names=names)
    page.eval_on_selector_all("details", "all => all.forEach((item) => { item.open = true; })")
    page.locator(".answer svg").first.wait_for()
    size = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert size[0] <= size[1] == width


def test_without_script_the_file_is_named(open_sheet):
    page = open_sheet(made(), script=False)
    assert page.locator("noscript").count() == 1
    assert page.locator("#controls").is_hidden()
    assert page.locator(".rates").first.is_visible()


@pytest.mark.slow
def test_ten_thousand_prompts_stay_quick(open_sheet):
    names = ("a", "b", "c", "d")
    sheet = made(names, prompts=10_000, words=40)
    page = open_sheet(sheet, names=names)
    assert status(page) == "Showing 1 to 10 of 10,000 prompts."
    began = time.perf_counter()
    page.fill("#search", "prompt no09876")
    assert numbers(page) == [9877]
    page.fill("#search", "rivers")
    expected = sum("rivers" in text for text in sheet.prompts)
    assert status(page) == f"Showing 1 to 10 of {expected:,} prompts."
    page.select_option("#player", label="c")
    page.select_option("#outcome", "lost")
    page.click("#last")
    page.check("#cyclic")
    assert time.perf_counter() - began < 60
    assert page.locator(".answer").count() == 10
    assert page.locator("li").count() == 10
