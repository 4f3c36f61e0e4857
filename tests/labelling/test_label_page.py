"""The page in a real browser: Debian's Chromium. Without it these tests fail on purpose."""

import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from equilign.labelling import LabelStore

from .conftest import questions

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
# Five seconds, the default, are not enough beside other work.
expect.set_options(timeout=30_000)

HOSTILE = [
    "<script>document.title='owned';alert(1)</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "</p></main><style>body{display:none}</style>",
    "javascript:alert(1) &lt;b&gt; {{7*7}} ${x}",
    "\x1b[31mred\x1b[0m \u202eevil\u2066 nul\x07",
    "a" * 3000,
    "two\n\n    lines",
]


@pytest.fixture
def visit(chromium):
    """Open the page as one person; afterwards, check that it asked for nothing elsewhere."""
    contexts, complaints, foreign, dialogs = [], [], [], []

    def open_page(url, name=None, width=1100, scheme="light", expect_errors=False):
        context = chromium.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        if not expect_errors:
            page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        start = url.partition("?")[0]
        page.on(
            "request",
            lambda r: foreign.append(r.url) if not r.url.startswith((start, "data:")) else None,
        )
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(url)
        if name is not None:
            page.fill("#annotator", name)
            page.keyboard.press("Enter")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert foreign == []
    assert dialogs == []


@pytest.fixture
def site(store, serve):
    def start(pairs, **options):
        store.add(pairs, wanted=options.pop("wanted", 1))
        return serve(store, **options).url

    return start


def mine(page, number):
    expect(page.locator("#counts")).to_contain_text(f"{number} by you")


def press(page, key, number):
    page.keyboard.press(key)
    mine(page, number)


def test_every_key_does_what_it_says(visit, site, store):
    page = visit(site(questions(6)), "ann")
    mine(page, 0)
    said = []
    for number, key in enumerate(["ArrowLeft", "ArrowRight", "t", "ArrowDown", "s"], 1):
        said.append((key, page.locator("#left").text_content()))
        press(page, key, number)
    page.keyboard.press("u")
    mine(page, 4)
    press(page, "T", 5)
    for button in ("skip",):
        page.locator(f"#choose-{button}").click()
    mine(page, 6)
    expect(page.locator("#idle")).to_be_visible()
    answers = store.answers(undone=True)
    assert [a.undone is None for a in answers] == [True] * 4 + [False, True, True]
    values = [a.value for a in answers]
    assert values[0] == float(answers[0].a_left)
    assert values[1] == float(not answers[1].a_left)
    assert values[2:] == [0.5, 0.5, None, 0.5, None]
    assert all(0.0 <= a.seconds < 60.0 for a in answers)
    with store.file.reading() as connection:
        texts = dict(connection.execute("SELECT hash, text FROM texts").fetchall())
    assert [texts[a.a if a.a_left else a.b] for a in answers[:5]] == [left for _, left in said]


def test_hostile_text_is_shown_and_runs_nothing(visit, site):
    page = visit(site([(h, h + "!", "plain") for h in HOSTILE]), "ann")
    for number, text in enumerate(HOSTILE):
        mine(page, number)
        shown = {page.locator(f"#{side}").text_content() for side in ("left", "right")}
        assert shown == {text + "!", "plain"}
        assert page.locator("#prompt").text_content() == text
        assert page.evaluate("document.scripts.length") == 1
        assert page.locator("img, iframe, object, style, [onerror]").count() == 0
        size = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert size[0] <= size[1]
        press(page, "ArrowLeft", number + 1)
    assert page.title() == "Compare answers"


def test_the_policy_stops_a_script_that_got_in(visit, site):
    page = visit(site(questions(1)), "ann", expect_errors=True)
    mine(page, 0)
    page.evaluate(
        """() => { const script = document.createElement("script");
        script.textContent = "document.title='owned'"; document.body.append(script); }"""
    )
    assert page.title() == "Compare answers"


def test_the_name_is_asked_once_and_can_be_changed(visit, site):
    url = site(questions(2))
    page = visit(url)
    expect(page.locator("#annotator")).to_be_focused()
    page.keyboard.press("t")  # typed, not a tie
    page.keyboard.press("Enter")
    mine(page, 0)
    assert page.locator("#name").text_content() == "t"
    before = page.locator("#prompt").text_content()
    page.reload()
    mine(page, 0)
    assert page.locator("#prompt").text_content() == before
    page.locator("#change").click()
    page.fill("#annotator", "<b>bob</b>")
    page.keyboard.press("Enter")
    expect(page.locator("#prompt")).not_to_have_text(before)
    assert page.locator("#name").text_content() == "<b>bob</b>"


def test_new_questions_appear_by_themselves(visit, site, store):
    page = visit(site(questions(1)), "ann")
    mine(page, 0)
    press(page, "t", 1)
    expect(page.locator("#idle")).to_contain_text("Everything is answered")
    store.add([("new", "one", "two")])
    expect(page.locator("#prompt")).to_have_text("new")
    assert page.locator("#idle").is_hidden()


def test_a_held_key_and_shortcuts_of_the_browser_answer_once(visit, site, store):
    page = visit(site(questions(5)), "ann")
    mine(page, 0)
    page.keyboard.down("ArrowLeft")
    for _ in range(5):
        page.keyboard.down("ArrowLeft")  # repeats
    page.keyboard.up("ArrowLeft")
    mine(page, 1)
    page.keyboard.press("Control+s")
    page.keyboard.press("Alt+ArrowLeft")
    mine(page, 1)
    assert len(store.answers()) == 1


def test_a_second_window_of_the_same_person_loses_nothing(visit, site, store):
    url = site(questions(2))
    one, two = visit(url, "ann", expect_errors=True), visit(url, "ann", expect_errors=True)
    mine(one, 0)
    mine(two, 0)
    assert one.locator("#prompt").text_content() == two.locator("#prompt").text_content()
    press(one, "ArrowLeft", 1)
    two.keyboard.press("ArrowRight")
    expect(two.locator("#message")).to_contain_text("already")
    mine(two, 1)
    assert len(store.answers()) == 1


def test_with_a_token(visit, site):
    url = site(questions(1), token="secret-token")
    page = visit(url, "ann")
    mine(page, 0)
    assert "token" not in page.url
    page.reload()
    mine(page, 0)
    bare = visit(url.partition("?")[0], expect_errors=True)
    assert "printed" in bare.locator("body").text_content()


def test_an_answer_that_is_not_let_in_waits_for_the_next_visit(visit, site, store):
    page = visit(site(questions(2)), "ann", expect_errors=True)
    mine(page, 0)
    page.route("**/api/answer", lambda route: route.fulfill(status=401, json={"error": "no"}))
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#message")).to_have_text("no")
    assert store.answers() == []
    page.unroute("**/api/answer")
    page.reload()
    mine(page, 1)
    assert len(store.answers()) == 1


def test_buttons_keep_the_focus(visit, site, store):
    page = visit(site(questions(3)), "ann")
    mine(page, 0)
    page.locator("#choose-tie").focus()
    for number in (1, 2, 3):
        page.keyboard.press("Enter")
        mine(page, number)
        expect(page.locator("#choose-tie")).to_be_focused()
    page.keyboard.press("Enter")  # nothing left to answer
    page.wait_for_timeout(100)
    assert len(store.answers()) == 3


@pytest.mark.parametrize("width", [320, 1100])
def test_no_horizontal_scroll(visit, site, width):
    page = visit(site([("prompt " * 60, "word " * 300, "x" * 900)]), "ann", width=width)
    mine(page, 0)
    size = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert size[0] <= size[1] == width
    left, right = (page.locator(f"#{s}").bounding_box() for s in ("left", "right"))
    assert (left["y"] == right["y"]) == (width > 640), "side by side where there is room"
    for name in ("choose-left", "choose-tie", "choose-right", "choose-skip", "undo"):
        box = page.locator(f"#{name}").bounding_box()
        assert box["y"] + box["height"] <= 800, "within reach without scrolling"


def luminance(colour):
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_light_and_dark_are_readable(visit, site):
    url = site(questions(1))
    pages = {}
    for scheme in ("light", "dark"):
        page = visit(url, "ann", scheme=scheme)
        mine(page, 0)
        colours = page.evaluate(
            """() => ["#left", "#prompt", "h1", "h2", "#counts", "button", "kbd"].map((query) =>
            getComputedStyle(document.querySelector(query)).color)"""
        )
        grounds = page.evaluate(
            """() => ["body", "article"].map((query) =>
            getComputedStyle(document.querySelector(query)).backgroundColor)"""
        )
        for colour in colours:
            for ground in grounds:
                low, high = sorted([luminance(colour), luminance(ground)])
                assert (high + 0.05) / (low + 0.05) >= 4.5, (scheme, colour, ground)
        pages[scheme] = luminance(grounds[0])
    assert pages["dark"] < 0.05 < pages["light"]


def test_two_people_and_a_server_that_is_killed(visit, process, quick_folder, pairs_file):
    """Kill -9 while both answer: the pages keep their answers and go on, nothing is doubled."""
    server = process(quick_folder / "labels.sqlite", pairs_file(16))
    url = server.start()["url"]
    pages = [visit(url, name, expect_errors=True) for name in ("ann", "bob")]
    for page in pages:
        mine(page, 0)
    seen, keys = [[], []], ["ArrowLeft", "ArrowRight"]
    for turn in range(1, 8):
        if turn == 4:
            server.kill()
        for page, own, key in zip(pages, seen, keys, strict=True):
            own.append([page.locator(f"#{s}").text_content() for s in ("prompt", "left", "right")])
            page.keyboard.press(key)
            if turn == 4:
                expect(page.locator("#message")).to_contain_text("kept here and sent again")
        if turn == 4:
            pages[1].close()  # bob even closes his window, and comes back
            server.start()
            pages[1] = pages[1].context.new_page()
            pages[1].goto(url)
        for page in pages:
            mine(page, turn)
    assert server.stop()[0] == 0
    store = LabelStore(quick_folder / "labels.sqlite")
    answers = store.answers(undone=True)
    assert len(answers) == 14
    assert len({a.pair for a in answers}) == 14, "no pair was given to both"
    with store.file.reading() as connection:
        texts = dict(connection.execute("SELECT hash, text FROM texts").fetchall())
    for name, own, left_wins in (("ann", seen[0], True), ("bob", seen[1], False)):
        stored = [a for a in answers if a.annotator == name]
        for answer, (prompt, left, right) in zip(stored, own, strict=True):
            winner = texts[answer.a if answer.value == 1.0 else answer.b]
            assert texts[answer.prompt] == prompt
            assert winner == (left if left_wins else right)
    store.close()


def test_pictures_for_a_person_to_look_at(visit, site, tmp_path):
    """EQUILIGN_PICTURES names the folder to look into."""
    folder = Path(os.environ.get("EQUILIGN_PICTURES", tmp_path))
    answer = "The Mill is a pub by the river. It serves French food and welcomes families.\n\n"
    pairs = [("Where can a family eat by the river?", answer + HOSTILE[0], "Try The Mill. " * 12)]
    url = site([*pairs, *questions(40)])
    for scheme, width in (("light", 1100), ("dark", 1100), ("light", 390), ("dark", 390)):
        page = visit(url, "ann", scheme=scheme, width=width)
        mine(page, 0)
        picture = page.screenshot(path=folder / f"label-{scheme}-{width}.png")
        assert len(picture) > 20_000, "an empty page is smaller"
    visit(url).screenshot(path=folder / "label-start.png")
