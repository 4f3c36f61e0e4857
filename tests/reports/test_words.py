import pytest

from equilign.reports.run import Estimate, read_run
from equilign.reports.words import duration, interval, method_summary, percent, share, verdict


def plain(text):
    return text.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0 %"),
        (0.5, "50 %"),
        (0.504, "50.4 %"),
        (0.4962, "49.6 %"),
        (0.628, "63 %"),
        (1.0, "100 %"),
    ],
)
def test_percent_never_rounds_to_one_half(value, words):
    assert plain(percent(value)) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "not recorded"),
        (4.26, "4.3 s"),
        (61, "1 min 1 s"),
        (119.7, "2 min 0 s"),
        (3600, "1 h 0 min"),
        (90_000, "25 h 0 min"),
    ],
)
def test_duration(seconds, words):
    assert plain(duration(seconds)) == words


def test_share_and_interval():
    assert plain(share(Estimate(0.65, 0.61, 0.69))) == "65 % (61–69 %)"
    assert plain(share(Estimate(0.65))) == "65 %"
    assert share(Estimate()) == "–"
    assert plain(interval(Estimate(0.53, 0.497, 0.56))) == "49.7–56 %"


CASES = [
    (0.63, 0.58, 0.68, "better", "The whole interval lies above 50 %"),
    (0.53, 0.47, 0.59, "open", "does not show that the trained model is better"),
    (0.5, 0.5, 0.5, "open", "does not show that the trained model is better"),
    (0.47, 0.41, 0.53, "open", "does not show that the trained model is better"),
    (0.4, 0.35, 0.45, "worse", "got worse than the start model"),
    (0.63, None, 0.68, "unknown", "No interval was recorded"),
]


@pytest.mark.parametrize(("rate", "low", "high", "kind", "sentence"), CASES)
def test_summary_claims_no_more_than_the_interval(rate, low, high, kind, sentence):
    final = {"win_rate": rate, "low": low, "high": high}
    run = read_run({"methods": {"x": {"title": "X", "final": final}}})
    (method,) = run.methods
    assert verdict(method.win) == kind
    words = plain(method_summary(method, run))
    assert sentence in words
    others = {other for *_, other in CASES if other != sentence}
    assert not [other for other in others if other in words]


def test_summary_without_numbers_says_so():
    run = read_run({"methods": {"sppo": {}}})
    assert method_summary(run.methods[0], run) == "No win rate was recorded for SPPO."


def test_one_round_is_singular():
    summary = {"methods": {"sppo": {"rounds": [{"win_rate": 0.6}]}}, "prompts": {"evaluation": 1}}
    run = read_run(summary)
    words = plain(method_summary(run.methods[0], run))
    assert words.startswith("After 1 round the SPPO model’s")
    assert "on 1 prompt it was" in words
