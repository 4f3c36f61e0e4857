import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equilign.text import visible

ANY_TEXT = st.text(st.characters())  # every code point, lone surrogates included


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The Mill serves fish & chips for £20–25.",
        "naïve café, Ελληνικά, 日本語, العربية, עברית, हिन्दी",
        "e\u0301 combining, \u00a0 hard space, \u2009 thin space",
        "😀 \U0001f1eb\U0001f1f7 ❤\ufe0f",
        r"a backslash \ and a literal \x1b stay",
        "</script><b>&amp;",
    ],
)
def test_printable_text_is_unchanged(text):
    assert visible(text) == text


@pytest.mark.parametrize(
    ("character", "shown"),
    [
        ("\x00", r"\x00"),
        ("\x07", r"\x07"),
        ("\x08", r"\x08"),
        ("\r", r"\r"),
        ("\x1b", r"\x1b"),
        ("\x7f", r"\x7f"),
        ("\x80", r"\x80"),
        ("\x85", r"\x85"),
        ("\x9b", r"\x9b"),
        ("\u00ad", r"\xad"),
        ("\u061c", r"\u061c"),
        ("\u200b", r"\u200b"),
        ("\u200d", r"\u200d"),
        ("\u200f", r"\u200f"),
        ("\u2028", r"\u2028"),
        ("\u2029", r"\u2029"),
        ("\u202a", r"\u202a"),
        ("\u202e", r"\u202e"),
        ("\u2060", r"\u2060"),
        ("\u2064", r"\u2064"),
        ("\u2066", r"\u2066"),
        ("\u2069", r"\u2069"),
        ("\ufeff", r"\ufeff"),
        ("\uffff", r"\uffff"),
        ("\ud800", r"\ud800"),
        ("\udfff", r"\udfff"),
        ("\U0001ffff", r"\U0001ffff"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
@pytest.mark.parametrize("newlines", [True, False])
def test_hidden_characters_become_escapes(character, shown, newlines):
    assert visible(f"a{character}b", newlines) == f"a{shown}b"


def test_newlines_and_tabs_stay_unless_one_line_is_asked_for():
    assert visible("a\n\tb") == "a\n\tb"
    assert visible("a\n\tb", newlines=False) == r"a\n\tb"


def test_terminal_escape_sequence_is_disarmed():
    assert visible("\x1b[31mred\x1b[0m \x1b]0;title\x07") == r"\x1b[31mred\x1b[0m \x1b]0;title\x07"


def test_every_control_and_direction_character_is_covered():
    kept = {"\n", "\t"}
    directions = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        hidden = (
            unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}
            or unicodedata.bidirectional(character) in directions
        )
        if hidden and character not in kept:
            assert visible(character).startswith("\\"), hex(code)
            assert visible(character).isascii()


@given(ANY_TEXT, st.booleans())
def test_result_is_stable_and_encodable(text, newlines):
    once = visible(text, newlines)
    assert visible(once, newlines) == once
    once.encode("utf-8")
    assert len(once) >= len(text)
    if not newlines:
        assert "\n" not in once
        assert "\t" not in once


@given(ANY_TEXT, ANY_TEXT)
def test_characters_are_treated_one_by_one(left, right):
    assert visible(left) + visible(right) == "".join(map(visible, left + right))
