import base64
import hashlib
import itertools
import re

import pytest

from equilign.reports.page import report_html
from equilign.text import visible

from .dom import SECTIONS, figure_table, parse, table_rows, tiles

# Structure


def test_sections_come_in_the_promised_order(summary, rendered):
    page = rendered(summary)
    assert [node["id"] for node in page.by_id("main").all("section")] == SECTIONS
    for section in page.all("section"):
        label = page.by_id(section["aria-labelledby"])
        assert label.tag == "h2"
        assert label in section.all("h2")


@pytest.mark.parametrize("fixture", ["summary", "two_methods", "hostile"])
def test_document_is_well_formed(fixture, request, rendered):
    page = rendered(request.getfixturevalue(fixture))
    assert page.first("html")["lang"] == "en"
    for tag in ("head", "body", "header", "main", "footer", "h1", "title"):
        assert len([n for n in page.all(tag) if n.parent.tag != "svg"]) == 1, tag
    levels = [int(node.tag[1]) for node in page.walk() if re.fullmatch("h[1-6]", node.tag)]
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    ids = [node["id"] for node in page.walk() if node.get("id")]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[\w.-]+", name) for name in ids)
    skip = page.first("body").first("a")
    assert page.by_id(skip["href"].removeprefix("#")).tag == "main"
    for table in page.all("table"):
        widths = {len(row) for row in table_rows(table)}
        assert len(widths) == 1
        assert table.first("caption").words()
    for field in page.all("input") + page.all("select"):
        labels = [n for n in page.all("label") if n.get("for") == field.get("id")]
        assert labels or field.parent.tag == "label"


@pytest.mark.parametrize("fixture", ["two_methods", "hostile"])
def test_nothing_is_loaded_and_nothing_runs_but_our_script(fixture, request, rendered):
    page = rendered(request.getfixturevalue(fixture))
    forbidden = {"link", "img", "iframe", "object", "embed", "base", "image", "foreignobject"}
    assert not {node.tag for node in page.walk()} & forbidden
    ids = {node.get("id") for node in page.walk()}
    for node in page.walk():
        for name, value in node.attributes.items():
            assert not name.startswith("on"), (node.tag, name)
            assert name not in {"style", "src", "srcset", "action", "xlink:href"}, (node.tag, name)
            for target in re.findall(r"url\(#(.*?)\)", value or ""):
                assert target in ids
            if name == "href" and value.startswith("#"):
                assert value[1:] in ids
            elif name == "href":
                assert node.tag == "a"
                assert re.fullmatch(r"https://arxiv\.org/abs/[\d.]+", value)
    assert "http" not in page.first("style").text()
    assert not re.search(r"url\(|@import", page.first("style").text())


def test_security_policy_names_exactly_our_style_and_script(summary, rendered):
    page = rendered(summary)
    (meta,) = [n for n in page.all("meta") if n.get("http-equiv") == "Content-Security-Policy"]
    policy = dict(item.strip().split(" ", 1) for item in meta["content"].split(";"))

    def source(tag):
        (node,) = page.all(tag)
        digest = hashlib.sha256(node.text().encode()).digest()
        return f"'sha256-{base64.b64encode(digest).decode()}'"

    assert policy == {
        "default-src": "'none'",
        "style-src": source("style"),
        "script-src": source("script"),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    before = page.first("head").children
    assert before.index(meta) < before.index(page.first("style"))


# Numbers


def test_summary_sentence_and_key_figures(summary, rendered):
    method = rendered(summary).by_id("summary").first("div", "method")
    assert (
        method.first("p", "lead")
        .words()
        .startswith(
            "After 3 rounds the SPPO model’s answer is preferred to the start model’s in 63 % of "
            "comparisons on 128 prompts it was not trained on (95 % interval 58–68 %). "
            "The whole interval lies above 50 %"
        )
    )
    assert tiles(method) == {
        "Preferred to the start": "63 %95 %: 58–68 %",
        "Distance moved": "2.1nats",
        "Tokens per answer": "29.126.0 at the start",
        "Training time": "4 min 40 s",
    }
    assert method.first("a")["href"] == "https://arxiv.org/abs/2405.00675"


def test_each_method_has_its_own_summary(two_methods, rendered):
    first, second = rendered(two_methods).by_id("summary").all("div", "method")
    assert (first.first("h3").words(), second.first("h3").words()) == ("SPPO", "Nash-MD")
    assert tiles(second)["Preferred to the start"] == "53 %95 %: 47–59 %"
    assert "The interval contains 50 %" in second.first("p", "lead").words()


def test_tables_behind_the_figures_hold_the_numbers(two_methods, rendered):
    page = rendered(two_methods)
    rounds = figure_table(page, "win-rate")
    assert rounds[0][:4] == ["Method", "Round", "Win rate", "95 % interval"]
    assert rounds[1] == [
        "SPPO",
        "1",
        "57.0 %",
        "52.0–62.0 %",
        "0.70",
        "27.0",
        "3.667",
        "1 min 2 s",
    ]
    assert len(rounds) == 7
    assert figure_table(page, "front")[6] == ["Nash-MD", "3", "0.80", "53.0 %"]
    attributes = figure_table(page, "attributes")
    assert attributes[5] == ["SPPO", "brevity", "31.0 %", "25.0–37.0 %"]
    assert len(attributes) == 11
    assert figure_table(page, "cycles")[3] == [
        "SPPO",
        "3",
        "128",
        "17",
        "13.3 %",
        "8.3–20.3 %",
        "80 %",
    ]


def test_every_figure_is_named_inline_and_follows_the_page_colours(two_methods, rendered):
    page = rendered(two_methods)
    figures = page.all("figure")
    assert [node["id"] for node in figures] == [
        "figure-win-rate",
        "figure-front",
        "figure-attributes",
        "figure-cycles",
    ]
    for figure in figures:
        for svg in figure.all("svg"):
            assert svg["role"] == "img"
            assert svg["aria-label"] == svg.first("title").text() == svg.children[0].text()
            assert "viewbox" in svg.attributes
            paints = {n.get(p) for n in svg.walk() for p in ("fill", "stroke")} - {None}
            assert paints <= {"none", "currentColor", "var(--grid)"} | {
                f"var(--series-{i})" for i in range(1, 7)
            }
            assert {"SPPO", "Nash-MD"} <= {node.text() for node in svg.all("text")}


def test_points_are_drawn_where_the_numbers_say(summary, rendered):
    svg = rendered(summary).by_id("figure-win-rate").first("div", "wide").first("svg")
    points = [
        (float(use["x"]), float(use["y"]))
        for use in svg.all("use")
        if use.get("fill") == "var(--series-1)" and use.get("stroke-width") is None
    ]
    (x1, y1), (x2, y2), (x3, y3) = points
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.05)
    assert y1 > y2 > y3
    assert (y1 - y2) / (y2 - y3) == pytest.approx(0.04 / 0.03, abs=0.01)


def test_cycles_are_explained(summary, rendered):
    explanation, measured = [p.words() for p in rendered(summary).by_id("cycles").all("p")][:2]
    assert "a beats b, b beats c and c beats a" in explanation
    assert "no reward model" in explanation
    assert measured == (
        "SPPO, round 3: 17 of 128 prompts (13 %, 95 % interval 8–20 %) had at least one cycle "
        "among its 5 sampled answers. On 80 % of prompts one answer beat all the others."
    )


def test_answers_are_listed_with_their_verdict(summary, rendered):
    section = rendered(summary).by_id("answers")
    items = section.all("li", "answer")
    given = summary["methods"]["sppo"]["examples"]
    assert len(items) == len(given) == 45
    for item, example in zip(items, given, strict=True):
        prompt, before, after = (node.text() for node in item.all(cls="text"))
        assert (prompt, before, after) == (example["prompt"], example["before"], example["after"])
        p = example["win_prob"]
        verdict = "equal" if p == 0.5 else "better" if p > 0.5 else "worse"
        assert item["data-verdict"] == verdict
        assert item.first("b", "verdict").words().lower() == verdict
        assert f"{100 * p:.0f} %" in item.first("h3").words()
        assert item.get("hidden", "no") == "no", "without a script every answer is visible"
    choices = {n.first("input")["value"]: n.words() for n in section.all("label") if n.all("input")}
    assert choices == {"all": "All (45)", "better": "Better (27)", "worse": "Worse (9)"}
    assert items[0].first("p", "scores").words() == (
        "Better on informativeness, quality. Equal on naturalness. Worse on brevity."
    )


def test_judges_configuration_and_environment(summary, rendered):
    page = rendered(summary)
    judges = table_rows(page.by_id("judges").first("table"))
    assert judges[1] == [
        "informativeness",
        "says what was asked for",
        "learned",
        "65 % (61–69 %)",
    ]
    assert judges[4][2:] == ["rule", "rule, not fitted"]
    facts, config, environment = (
        dict(table_rows(table)) for table in page.by_id("run").all("table")
    )
    assert facts["Whole run"] == "5 min 12 s"
    assert facts["Peak memory"] == "1,402 MB"
    assert (facts["Prompts for training"], facts["Prompts for evaluation"]) == ("256", "128")
    assert config == {
        "train.rounds": "3",
        "train.lr": "1e-05",
        "train.flags": "[true, null]",
        "seed": "7",
    }
    assert environment == {"python": "3.11.7", "torch": "2.13.0"}
    assert all(table.parent.tag == "details" for table in page.by_id("run").all("table"))


# Hostile text


def test_hostile_answers_stay_text(hostile, hostile_texts, rendered):
    items = rendered(hostile).all("li", "answer")
    assert len(items) == len(hostile_texts)
    for item, text in zip(items, hostile_texts.values(), strict=True):
        prompt, before, after = (node for node in item.all(cls="text"))
        for lead, node in (("prompt", prompt), ("before", before), ("after", after)):
            assert node.text() == visible(f"{lead} {text}")
            assert all(isinstance(child, str) for child in node.children)


def test_hostile_names_stay_text(hostile, hostile_texts, rendered):
    page = rendered(hostile)
    assert len(page.all("script")) == len(page.all("style")) == 1
    names = [row[1] for row in figure_table(page, "attributes")[1:]]
    for name, given in zip(names, hostile["methods"]["sppo"]["final"]["attributes"], strict=True):
        assert name.rstrip("…") in " ".join(visible(given).split())
    title = hostile["methods"]["sppo"]["title"]
    assert visible(title) in page.by_id("summary").first("p", "lead").text()
    config = page.by_id("run").all("table")[1]
    assert config.all("td")[0].text() == visible(hostile_texts["script"])
    assert not [a for a in page.all("a") if "javascript" in a["href"]]


def test_no_hidden_character_reaches_the_page(hostile):
    html = report_html(hostile)
    assert visible(html) == html
    html.encode("utf-8")


def test_names_are_not_formulas_nor_dropped_from_the_legend(two_methods):
    two_methods["methods"]["sppo"]["title"] = r"_$\frac{1$"
    page = parse(report_html(two_methods))
    svg = page.by_id("figure-win-rate").first("svg")
    assert r"_$\frac{1$" in {node.text() for node in svg.all("text")}
