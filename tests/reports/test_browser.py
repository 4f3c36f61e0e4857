"""The report in a real browser: Debian's Chromium. Without it these tests fail on purpose."""

import re

import pytest

from equilign.reports import render_report
from equilign.text import visible

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


@pytest.fixture
def open_report(chromium, tmp_path):
    """Open a report from disk; afterwards, check that it asked for nothing and logged nothing."""
    contexts, complaints, requests, dialogs = [], [], [], []

    def open_page(summary, width=1100, scheme="light", script=True):
        path = tmp_path / f"report-{len(contexts)}.html"
        render_report(summary, path)
        context = chromium.new_context(
            viewport={"width": width, "height": 800},
            color_scheme=scheme,
            java_script_enabled=script,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(path.as_uri())
        return page

    yield open_page
    expected = [(tmp_path / f"report-{i}.html").as_uri() for i in range(len(contexts))]
    for context in contexts:
        context.close()
    assert complaints == []
    assert requests == expected
    assert dialogs == []


def shown(page):
    return page.locator(".answer:visible")


def prompts(page):
    return page.locator(".answer:visible .prompt").all_text_contents()


def active(page):
    return page.evaluate(
        "[document.activeElement.id || document.activeElement.className,"
        " document.activeElement.tagName]"
    )


def tab_until(page, name, most=40):
    for _ in range(most):
        page.keyboard.press("Tab")
        if active(page)[0] == name:
            return
    raise AssertionError(f"{most} tabs do not reach {name}")


def test_first_twenty_answers_and_show_more(summary, open_report):
    page = open_report(summary)
    assert shown(page).count() == 20
    assert page.locator("#status").text_content() == "Showing 20 of 45 answers."
    page.locator("#more").click()
    assert shown(page).count() == 40
    focused = page.evaluate("document.activeElement.querySelector('.prompt').textContent")
    assert focused == summary["methods"]["sppo"]["examples"][20]["prompt"]
    page.locator("#more").click()
    assert shown(page).count() == 45
    assert page.locator("#more").is_hidden()


def test_search(summary, open_report):
    page = open_report(summary)
    examples = summary["methods"]["sppo"]["examples"]
    page.fill("#search", "café 33")
    assert prompts(page) == [examples[33]["prompt"]]
    page.fill("#search", "  TRY  cocum")
    assert prompts(page) == [e["prompt"] for e in examples if "Cocum" in e["prompt"]]
    page.fill("#search", "before")
    assert shown(page).count() == 0
    assert page.locator("#status").text_content() == "No answer matches."
    page.fill("#search", "")
    assert shown(page).count() == 20


def test_filters(two_methods, open_report):
    page = open_report(two_methods)
    page.check("input[value=worse]")
    assert set(page.locator(".answer:visible .verdict").all_text_contents()) == {"Worse"}
    page.select_option("#method", label="Nash-MD")
    assert shown(page).count() == 2
    page.check("input[value=better]")
    assert shown(page).count() == 4
    page.check("input[value=all]")
    assert shown(page).count() == 7


def test_keyboard_reaches_and_works_the_controls(summary, open_report):
    page = open_report(summary)
    page.keyboard.press("Tab")
    assert active(page) == ["skip", "A"]
    assert page.locator(".skip").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert active(page)[0] == "main"
    tab_until(page, "search")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"
    page.keyboard.type("Mill")
    assert set(re.search(r"name\[(.*?)\]", text)[1] for text in prompts(page)) == {"The Mill"}
    page.keyboard.press("Tab")
    assert active(page)[1] == "INPUT"
    page.keyboard.press("ArrowRight")
    assert page.locator("input[value=better]").is_checked()
    assert set(page.locator(".answer:visible .verdict").all_text_contents()) == {"Better"}
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    page.keyboard.press("Enter")
    tab_until(page, "more")
    page.keyboard.press("Enter")
    assert shown(page).count() == 27


@pytest.mark.parametrize("width", [360, 1100])
@pytest.mark.parametrize("fixture", ["two_methods", "hostile"])
def test_no_horizontal_scroll(fixture, width, request, open_report):
    page = open_report(request.getfixturevalue(fixture), width=width)
    page.eval_on_selector_all("details", "all => all.forEach((item) => { item.open = true; })")
    size = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert size[0] <= size[1] == width
    outside = page.evaluate(
        """() => [...document.querySelectorAll("main *")]
          .filter((item) => !item.closest(".scroll, .hidden-text") && item.checkVisibility())
          .filter((item) => item.getBoundingClientRect().right > innerWidth + 0.5)
          .map((item) => item.tagName + "." + item.className)"""
    )
    assert outside == []
    kind = "narrow" if width == 360 else "wide"
    assert page.locator(f".{kind} svg:visible").count() == 4
    assert page.locator("svg:visible").count() == 4


def luminance(colour):
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


COLOURS = """() => Object.fromEntries([
    ["text", "p.lead", "color"], ["soft", "p.soft", "color"], ["link", "main a", "color"],
    ["summary", "summary", "color"], ["better", ".better .verdict", "color"],
    ["worse", ".worse .verdict", "color"], ["button", "button", "color"],
    ["figure", ".chart text", "fill"], ["tile", ".figures dt", "color"],
  ].map(([name, query, key]) => [name, getComputedStyle(document.querySelector(query))[key]]))"""


def test_light_and_dark_are_different_and_readable(summary, open_report):
    found = {}
    for scheme in ("light", "dark"):
        page = open_report(summary, scheme=scheme)
        background, panel = page.evaluate(
            "[document.body, document.querySelector('.figures div')]"
            ".map((item) => getComputedStyle(item).backgroundColor)"
        )
        colours = page.evaluate(COLOURS)
        for name, colour in colours.items():
            assert contrast(colour, background) >= 4.5, (scheme, name)
            assert contrast(colour, panel) >= 4.5, (scheme, name)
        marker = page.evaluate(
            "getComputedStyle(document.querySelector('.wide use[fill^=\"var(--series-1\"]')).fill"
        )
        assert contrast(marker, background) >= 3
        found[scheme] = {**colours, "marker": marker, "background": background}
    for name in found["light"]:
        assert found["light"][name] != found["dark"][name], name
    assert luminance(found["dark"]["background"]) < 0.05 < luminance(found["light"]["background"])


def test_paper_is_light_and_complete(summary, open_report):
    page = open_report(summary, scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert luminance(background) > 0.9
    assert page.locator("#controls").is_hidden()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0


def test_hostile_text_is_shown_and_runs_nothing(hostile, hostile_texts, open_report):
    page = open_report(hostile)
    page.wait_for_timeout(200)
    assert page.title().startswith("Training report: _$")
    assert page.evaluate("document.scripts.length") == 1
    assert page.locator("img, iframe, object, [onerror], [onload]").count() == 0
    for i, text in enumerate(hostile_texts.values()):
        after = page.locator(".answer").nth(i).locator("dd").nth(1)
        assert after.text_content() == visible(f"after {text}")
        box, frame = after.bounding_box(), page.locator(".answers").bounding_box()
        assert box["x"] + box["width"] <= frame["x"] + frame["width"]


def test_without_script_every_answer_is_readable(summary, open_report):
    page = open_report(summary, script=False)
    assert page.locator(".answer").count() == 45
    assert page.locator(".answer").last.is_visible()
    assert page.locator("#controls").is_hidden()
    assert page.locator("#more").is_hidden()


def test_empty_report_opens(open_report):
    page = open_report({})
    assert page.locator("h1").text_content() == "Training report"
