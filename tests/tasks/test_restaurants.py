"""Attribute lists, and what a sentence says of one: a table of cases with every known trap."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equilign.tasks.restaurants import (
    SLOTS,
    Coverage,
    coverage,
    format_attributes,
    parse_attributes,
)

SEEDED = settings(derandomize=True, deadline=None)

DATA = Path(__file__).parents[2] / "data" / "text" / "e2e_restaurants"

# -- attribute lists ----------------------------------------------------------------------

NAMES = st.from_regex(r"[A-Za-z]([A-Za-z _]{0,10}[A-Za-z_])?", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="[]"), max_size=20).map(str.strip)


@SEEDED
@given(slots=st.dictionaries(NAMES, VALUES, min_size=1, max_size=8))
def test_parsing_undoes_formatting(slots):
    assert parse_attributes(format_attributes(slots)) == slots
    assert list(parse_attributes(format_attributes(slots))) == list(slots)


def test_parsing_by_hand():
    text = "name[The Mill],customer rating[3 out of 5] ,  priceRange[ £20-25 ], near[A, B & C]"
    assert parse_attributes(text) == {
        "name": "The Mill",
        "customer rating": "3 out of 5",
        "priceRange": "£20-25",
        "near": "A, B & C",
    }
    assert parse_attributes("name[x],") == parse_attributes("\n name [x]\n") == {"name": "x"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"needs at least one slot\[value\]"),
        ("Describe a pub.", "not an attribute list at 'Describe a pub.'"),
        ("name[The Mill], and a pub", "not an attribute list at 'and a pub'|at ' and a pub'"),
        ("name[The Mill] area[riverside]", r"at 'name\[The Mill\] area\[riverside\]'"),
        ("name[The Mill", r"at 'name\[The Mill'"),
        ("name[The [old] Mill]", "not an attribute list"),
        ("[The Mill]", "not an attribute list"),
        ("3name[The Mill]", "not an attribute list"),
        ("name[a],, area[b]", "at ', area"),
        ("x" * 1000, "^not an attribute list at 'x{40}'$"),
    ],
)
def test_what_is_no_attribute_list_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_attributes(text)


# -- coverage -----------------------------------------------------------------------------

CASES = [
    # (attributes, sentence, missing, invented)
    # Names are matched whole, with or without "the", whatever the case and the punctuation.
    ("name[The Mill]", "The Mill is open.", "", ""),
    ("name[The Mill]", "Go to mill!", "", ""),
    ("name[Mill]", "Go to the Mill.", "", ""),
    ("name[The Mill]", "The Millers went out.", "name", ""),
    ("name[The Mill]", "A windmill stands there.", "name", ""),
    ("name[Blue Spice]", "Blue-Spice is open.", "", ""),
    ("name[Blue Spice]", "Blue is the spice.", "name", ""),
    ("name[Fitzbillies]", "It is open.", "name", ""),
    ("name[Zizzi], near[The Portland Arms]", "Zizzi is near Portland Arms.", "", ""),
    ("name[Zizzi], near[The Portland Arms]", "Zizzi is open.", "near", ""),
    # What a name contains is not said of the place.
    ("name[The Mill], near[Café Rouge]", "The Mill is near Café Rouge.", "", ""),
    ("name[The Mill], near[Café Rouge]", "The Mill is a café near Café Rouge.", "", "eatType"),
    ("name[The Mill], near[Raja Indian Cuisine]", "The Mill, near Raja Indian Cuisine.", "", ""),
    (
        "name[The Mill], food[Indian], near[Raja Indian Cuisine]",
        "The Mill is near Raja Indian Cuisine.",
        "food",
        "",
    ),
    ("name[Riverside Pub], area[riverside]", "Riverside Pub is open.", "area", ""),
    ("near[Café Rouge]", "It is close to the Café Rouge’s door.", "", ""),
    # Types of place.
    ("name[Aromi], eatType[coffee shop]", "Aromi is a café.", "", ""),
    ("name[Aromi], eatType[coffee shop]", "Aromi is a coffee-house.", "", ""),
    ("name[Aromi], eatType[coffee shop]", "Aromi serves coffee.", "eatType", ""),
    ("name[Aromi], eatType[pub]", "Aromi is a restaurant.", "eatType", ""),
    ("name[Aromi], eatType[restaurant]", "Aromi is a bistro.", "", ""),
    ("name[Aromi], eatType[restaurant]", "Aromi is a pub.", "eatType", "eatType"),
    ("name[Aromi]", "Aromi is a restaurant.", "", ""),
    ("name[Aromi]", "Aromi is a pub.", "", "eatType"),
    ("name[Aromi], eatType[pub]", "Aromi stands in the republic.", "eatType", ""),
    # Food.
    ("name[Aromi], food[Italian]", "Aromi has pasta.", "", ""),
    ("name[Aromi], food[italian]", "Aromi has Italian food.", "", ""),
    ("name[Aromi], food[Italian]", "Aromi has French food.", "food", "food"),
    ("name[Aromi], food[FRENCH], area[Riverside]", "Aromi is French, by the river.", "", ""),
    ("name[Aromi], priceRange[Cheap], familyFriendly[Yes]", "Aromi: cheap, for kids.", "", ""),
    ("name[Aromi], food[English]", "Aromi has British food.", "", ""),
    ("name[Aromi], food[English]", "Aromi costs 20 British pounds.", "food", ""),
    ("name[Aromi], food[Fast food]", "Aromi has fast-food.", "", ""),
    ("name[Aromi], food[Thai]", "Aromi has Thai food.", "", ""),
    ("name[Aromi], food[Thai]", "Aromi has food from Thailand.", "food", ""),
    ("name[Aromi], food[Thai]", "Aromi has Chinese food.", "food", "food"),
    ("name[Aromi], phone[0123 45]", "Aromi: call 0123-45.", "", ""),
    ("name[Aromi], phone[0123 45]", "Aromi: call 0123 456.", "phone", ""),
    # Prices: words and numbers of one level are one statement.
    ("name[Aromi], priceRange[cheap]", "Aromi is inexpensive.", "", ""),
    ("name[Aromi], priceRange[less than £20]", "Aromi is cheap.", "", ""),
    ("name[Aromi], priceRange[cheap]", "Aromi costs less than 20 pounds.", "", ""),
    ("name[Aromi], priceRange[£20-25]", "Aromi costs £20-25.", "", ""),
    ("name[Aromi], priceRange[£20-25]", "Aromi costs £20–£25.", "", ""),
    ("name[Aromi], priceRange[£20-25]", "Aromi costs between £20 and £25.", "", ""),
    ("name[Aromi], priceRange[moderate]", "Aromi costs £20-25.", "", ""),
    ("name[Aromi], priceRange[£20-25]", "Aromi costs £20.", "priceRange", ""),
    ("name[Aromi], priceRange[£20-25]", "Aromi costs more than £30.", "priceRange", "priceRange"),
    ("name[Aromi], priceRange[more than £30]", "Aromi is pricey.", "", ""),
    ("name[Aromi], priceRange[high]", "Prices at Aromi are high.", "priceRange", ""),
    ("name[Aromi], priceRange[high]", "At Aromi prices are high.", "", ""),
    ("name[Aromi], priceRange[high]", "Aromi has high prices.", "", ""),
    ("name[Aromi], priceRange[high]", "Aromi is in the high price range.", "", ""),
    ("name[Aromi], priceRange[high]", "Aromi is high-priced.", "", ""),
    (
        "name[Aromi], priceRange[high]",
        "Aromi is in the low price range.",
        "priceRange",
        "priceRange",
    ),
    ("name[Aromi]", "Aromi is not inexpensive.", "", "priceRange"),
    ("name[Aromi], priceRange[£10]", "Aromi costs £10.", "", ""),
    # Ratings.
    ("name[Aromi], customer rating[5 out of 5]", "Aromi is highly rated.", "", ""),
    ("name[Aromi], customer rating[high]", "Aromi has 5 out of 5 stars.", "", ""),
    ("name[Aromi], customer rating[high]", "Aromi is a five-star place.", "", ""),
    ("name[Aromi], customer rating[1 out of 5]", "Aromi has 1 out of 5 stars.", "", ""),
    ("name[Aromi], customer rating[1 out of 5]", "Aromi has 1 out 5 stars.", "", ""),
    ("name[Aromi], customer rating[1 out of 5]", "Aromi has 1/5 stars.", "", ""),
    ("name[Aromi], customer rating[low]", "Aromi is a one-star place.", "", ""),
    ("name[Aromi], customer rating[low]", "Aromi has a low customer rating.", "", ""),
    ("name[Aromi], customer rating[low]", "The rating of Aromi is low.", "", ""),
    ("name[Aromi], customer rating[low]", "Aromi's rating is low.", "", ""),
    ("name[Aromi], customer rating[3 out of 5]", "Aromi is rated average.", "", ""),
    ("name[Aromi], customer rating[average]", "Aromi has three stars.", "", ""),
    (
        "name[Aromi], customer rating[average]",
        "Aromi has excellent reviews.",
        "customer rating",
        "customer rating",
    ),
    # Price next to rating: each adjective belongs to its own noun.
    (
        "name[A], priceRange[high], customer rating[low]",
        "A has high prices and low ratings.",
        "",
        "",
    ),
    ("name[A], priceRange[high], customer rating[low]", "A has a low rating, high price.", "", ""),
    ("name[A], priceRange[high], customer rating[low]", "A is low rated. High prices.", "", ""),
    ("name[A], priceRange[high]", "A has a high customer rating.", "priceRange", "customer rating"),
    (
        "name[A], customer rating[high]",
        "A is in the high price range.",
        "customer rating",
        "priceRange",
    ),
    (
        "name[A], priceRange[moderate], customer rating[low]",
        "A: average price and low rating.",
        "",
        "",
    ),
    (
        "name[A], priceRange[cheap], customer rating[high]",
        "A has a cheap price range, high customer rating.",
        "",
        "",
    ),
    (
        "name[A], priceRange[moderate], customer rating[high]",
        "A has a moderate price range and high customer rating.",
        "",
        "",
    ),
    (
        "name[A], priceRange[high], customer rating[average]",
        "A: high cost and average rating.",
        "",
        "",
    ),
    ("name[A], customer rating[average]", "A has a moderate customer rating.", "", ""),
    (
        "name[A], customer rating[average], priceRange[high]",
        "A: moderately rated, high priced.",
        "",
        "",
    ),
    (
        "name[A], priceRange[cheap], customer rating[high]",
        "Its rating is high. Prices are low. A.",
        "",
        "",
    ),
    (
        "name[A], priceRange[high], customer rating[high]",
        "Prices are low. Customers rate A.",
        "priceRange customer rating",
        "priceRange",
    ),
    # ... also where the comma is missing.
    (
        "name[A], priceRange[moderate], customer rating[high]",
        "A: average price high rating.",
        "",
        "",
    ),
    ("name[A], priceRange[moderate], customer rating[low]", "A: fair prices low rating.", "", ""),
    (
        "name[A], priceRange[high], customer rating[average]",
        "A: high price average rating.",
        "",
        "",
    ),
    ("name[A], priceRange[high], customer rating[low]", "A is rated low. Costly.", "", ""),
    (
        "name[A], priceRange[high], customer rating[average]",
        "3 out of 5 rating high price: A.",
        "",
        "",
    ),
    ("name[A], priceRange[cheap], customer rating[high]", "Five star rating low price: A.", "", ""),
    (
        "name[A], priceRange[moderate], customer rating[high]",
        "5/5 rating moderate price: A.",
        "",
        "",
    ),
    # Families.
    ("name[Aromi], familyFriendly[yes]", "Aromi is family-friendly.", "", ""),
    ("name[Aromi], familyFriendly[yes]", "Kids love Aromi.", "", ""),
    ("name[Aromi], familyFriendly[no]", "Aromi is not family friendly.", "", ""),
    ("name[Aromi], familyFriendly[no]", "Aromi is a non family-friendly place.", "", ""),
    ("name[Aromi], familyFriendly[no]", "Aromi isn’t a place for children.", "", ""),
    ("name[Aromi], familyFriendly[no]", "Aromi is children-free.", "", ""),
    ("name[Aromi], familyFriendly[no]", "Children are not welcome at Aromi.", "", ""),
    ("name[Aromi], familyFriendly[no]", "Families are unwelcome at Aromi.", "", ""),
    ("name[Aromi], familyFriendly[no]", "Aromi is for adults only.", "", ""),
    (
        "name[Aromi], familyFriendly[no]",
        "Aromi is family-friendly.",
        "familyFriendly",
        "familyFriendly",
    ),
    (
        "name[Aromi], familyFriendly[yes]",
        "Aromi is not child friendly.",
        "familyFriendly",
        "familyFriendly",
    ),
    (
        "name[Aromi], familyFriendly[yes]",
        "Aromi is family friendly but not cheap.",
        "",
        "priceRange",
    ),
    ("name[Aromi], familyFriendly[yes]", "Aromi is not dull, but kid friendly.", "", ""),
    ("name[Aromi], familyFriendly[yes]", "Kids eat free at Aromi.", "", ""),
    ("name[Aromi], familyFriendly[yes]", "Kids love Aromi and it is not dull.", "", ""),
    ("name[Aromi], familyFriendly[yes]", "Aromi is a family place that is not dull.", "", ""),
    ("name[Aromi], familyFriendly[yes]", "Kids love Aromi, which isn't dull.", "", ""),
    ("name[Aromi], familyFriendly[yes]", "Kids love Aromi which isn't dull.", "", ""),
    ("name[Aromi], familyFriendly[yes]", "Aromi takes adults and children.", "", ""),
    ("name[Aromi], familyFriendly[yes]", "A family place not far from Aromi.", "", ""),
    ("name[Aromi]", "Aromi is family friendly.", "", "familyFriendly"),
    # Areas.
    ("name[Aromi], area[riverside]", "Aromi is by the river.", "", ""),
    ("name[Aromi], area[riverside]", "Aromi is driven well.", "area", ""),
    ("name[Aromi], area[city centre]", "Aromi is in the center of town.", "", ""),
    ("name[Aromi], area[city centre]", "Aromi is downtown, by the river.", "", "area"),
    ("name[Aromi], area[city centre]", "Aromi is in the city.", "area", ""),
]


@pytest.mark.parametrize(("attributes", "sentence", "missing", "invented"), CASES)
def test_coverage(attributes, sentence, missing, invented):
    slots = parse_attributes(attributes)
    got = coverage(slots, sentence)

    def listed(names):
        return {s for s in SLOTS if s in names} | ({"phone"} if "phone" in names else set())

    assert set(got.missing) == listed(missing)
    assert set(got.invented) == listed(invented)
    assert set(got.realised) == set(slots) - listed(missing)
    assert len(got.realised) + len(got.missing) == len(slots)


def test_every_kind_of_slot_is_missed_realised_and_invented_somewhere():
    def of(text):
        return {s for s in SLOTS if s in text}

    missing = set().union(*(of(m) for _, _, m, _ in CASES))
    invented = set().union(*(of(i) for *_, i in CASES))
    assert missing == set(SLOTS)
    assert invented == set(SLOTS) - {"name", "near"}


def test_share():
    assert Coverage(("name", "area"), ("near",), ("food",)).share == pytest.approx(2 / 3)
    assert Coverage((), ("near",), ()).share == 0.0
    assert Coverage((), (), ("food",)).share == 1.0


def test_an_empty_sentence_realises_nothing():
    slots = {"name": "Aromi", "food": "Thai", "familyFriendly": "yes", "phone": "1"}
    assert coverage(slots, "") == Coverage((), ("name", "phone", "food", "familyFriendly"), ())


@SEEDED
@given(
    order=st.permutations(
        ["name[The Mill]", "food[French]", "area[riverside]", "familyFriendly[no]", "near[Zizzi]"]
    )
)
def test_the_order_of_the_attributes_does_not_matter(order):
    got = coverage(parse_attributes(", ".join(order)), "The Mill, a pub by the river near Zizzi.")
    assert set(got.realised) == {"name", "area", "near"}
    assert set(got.missing) == {"food", "familyFriendly"}
    assert got.invented == ("eatType",)


def test_a_pattern_in_a_name_is_plain_text():
    slots = {"name": "C++ (.*)", "near": "A|B"}
    assert coverage(slots, "anything near B").realised == ()
    assert coverage(slots, "c++ (.*) near a|b").realised == ("name", "near")


@pytest.mark.parametrize(
    ("split", "rows", "share", "invented"),
    [("dev", 4672, 0.923, 0.065), ("test", 4693, 0.918, 0.093)],
)
def test_human_sentences(split, rows, share, invented):
    """Sentences that people wrote for these attributes, leaving out some and adding few.

    ``share`` is the mean share of values realised, ``invented`` the share of sentences that state
    a value not asked for, both as measured. A matcher that sees too little falls below the band
    of the first, one that sees things everywhere rises above the band of the second.
    """
    with gzip.open(DATA / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        data = [json.loads(line) for line in lines]
    assert len(data) == rows
    slots = [parse_attributes(row["mr"]) for row in data]
    own = [coverage(s, row["ref"]) for s, row in zip(slots, data, strict=True)]
    assert sum(c.share for c in own) / rows == pytest.approx(share, abs=0.005)
    assert sum(bool(c.invented) for c in own) / rows == pytest.approx(invented, abs=0.005)
    # Sentences about another restaurant, half the file away: the measure must tell the difference.
    other = [coverage(s, data[(i + rows // 2) % rows]["ref"]) for i, s in enumerate(slots)]
    assert sum(c.share for c in other) / rows < 0.3
    assert sum(bool(c.invented) for c in other) / rows > 0.9
