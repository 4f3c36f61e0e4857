"""Values from YAML and flags as typed fields, and what is said when they do not fit."""

import dataclasses
import enum
from typing import Any, Literal

import pytest

from equilign.errors import ConfigError
from equilign.experiments.options import check_options


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Options:
    count: int = 1
    rate: float = 0.1
    flag: bool = False
    name: str = ""
    colour: Colour | str = "red"
    only: Colour = Colour.RED
    maybe: float | None = None
    loose: str | float = 0.0
    few: list[int] | None = None
    span: tuple[float, float] | None = None
    extra: dict[str, Any] | str | None = None
    kind: Literal["a", "b"] = "a"
    either: bool | Literal["auto"] = False
    learning_rate: float = 1.0


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("count", "3", 3),
        ("rate", "1e-6", 1e-6),
        ("rate", 2, 2.0),
        ("rate", "-.5", -0.5),
        ("flag", "yes", True),
        ("flag", "False", False),
        ("name", 12, "12"),
        ("colour", "green", "green"),
        ("only", "blue", "blue"),
        ("maybe", "1e-3", 1e-3),
        ("maybe", None, None),
        ("maybe", "null", None),
        ("loose", "1e-3", 1e-3),
        ("loose", "fast", "fast"),
        ("few", ["1", 2], [1, 2]),
        ("span", [0, "1e1"], (0.0, 10.0)),
        ("extra", {"a": 1}, {"a": 1}),
        ("extra", "file.json", "file.json"),
        ("kind", "b", "b"),
        ("either", "auto", "auto"),
        ("either", True, True),
        ("learning-rate", "5e-7", 5e-7),
    ],
)
def test_a_value_gets_the_type_of_its_field(name, value, expected):
    found = check_options(Options, {name: value}, "args")
    (key,) = found
    assert key == name.replace("-", "_")
    assert found[key] == expected
    assert type(found[key]) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("count", 3.5, r"args\.count is 3\.5; it must be a whole number"),
        ("count", "3.0", "a whole number"),
        ("count", True, "a whole number"),
        ("rate", "fast", "args.rate is 'fast'; it must be a number"),
        ("rate", [1], "a number"),
        ("rate", None, "a number"),
        ("flag", 1, "true or false"),
        ("flag", "maybe", "true or false"),
        ("name", True, "text"),
        ("name", ["x"], "text"),
        ("only", "green", "one of red, blue"),
        ("maybe", "x", "a number or null"),
        ("few", 3, "a list or null"),
        ("few", ["x"], "a list or null"),
        ("span", 0.5, "a list or null"),
        ("kind", "c", "one of a, b"),
        ("extra", 3.5j, "a mapping or text or null"),
    ],
)
def test_a_value_of_another_type_is_refused(name, value, words):
    with pytest.raises(ConfigError, match=words):
        check_options(Options, {name: value}, "args")


def test_an_unknown_key_gets_the_closest_one_and_the_list():
    with pytest.raises(ConfigError) as caught:
        check_options(Options, {"learning_rat": 1}, "args")
    text = str(caught.value)
    assert "'learning_rat' in args. Did you mean learning_rate?" in text
    assert "Allowed: learning_rate, either" in text
    with pytest.raises(ConfigError) as caught:
        check_options(Options, {"zzzz": 1}, "args")
    assert "Did you mean" not in str(caught.value)


def test_keys_that_are_set_elsewhere_say_where():
    instead = {"name": "--name"}
    with pytest.raises(ConfigError, match=r"args\.name is not set here: use --name"):
        check_options(Options, {"name": "x"}, "args", instead=instead)
    with pytest.raises(ConfigError, match="Did you mean --name"):
        check_options(Options, {"nam": "x"}, "args", instead=instead)
