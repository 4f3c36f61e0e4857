"""The whole diagnosis: honest on real data, right where the truth is known."""

import json
import math

import numpy as np
import pytest

from equilign.diagnosis import diagnose
from equilign.diagnosis.advice import Evidence, decide
from equilign.errors import ConfigError
from equilign.games import exploitability
from equilign.games.bradley_terry import simulate_wins
from equilign.games.loading import GameData, load_data
from tests.diagnosis.test_rating import random_ratings
from tests.diagnosis.test_significance import circle, even_counts
from tests.games.real_games import EXPECTED, NAMES, real

GAMES_OF_SKILL = {"rrps43", "soccer10"}


@pytest.fixture(scope="module")
def found():
    return {name: diagnose(real(name), bootstrap=60) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_real_data(found, name):
    diagnosis, expected = found[name], EXPECTED[name]
    values = diagnosis.to_json()
    if name in GAMES_OF_SKILL:
        assert diagnosis.verdict == "game"
        assert values["cycles"]["significant"] > 0
    else:
        assert values["cycles"]["significant"] == expected["significant_cycles"] == 0
        sport = name.startswith(("epl", "football"))
        assert diagnosis.verdict == ("too little data" if sport else "reward model")
    assert values["cycles"]["count"] == expected["cyclic_triples"]
    assert values["cycles"]["triples"] == expected["strict_triples"]
    assert values["condorcet_winner"] == expected["condorcet_winner"]
    assert exploitability(diagnosis.data.game, diagnosis.pool.lottery) <= 1e-9
    if expected["unique"]:
        for player, probability in values["lottery"].items():
            assert probability == pytest.approx(expected["support"].get(player, 0.0), abs=1e-6)
    assert values["lottery_unique"] == expected["unique"]


def test_what_was_rejected_but_is_practically_fine_is_called_so(found):
    diagnosis = found["minneapolis2013"]
    assert diagnosis.pool.rating.p_value < 0.02
    assert "is rejected" in diagnosis.recommendation
    assert "small flaws show" in diagnosis.recommendation
    assert diagnosis.verdict == "reward model"


def test_the_favourite_that_is_not_the_winner_is_named(found):
    text = found["wmt_mqm_ted_ende"].recommendation
    assert "The Condorcet winner is Facebook-AI, not Bradley-Terry's favourite" in text


def plain(value):
    """Whether a value is JSON with finite numbers only."""
    if isinstance(value, dict):
        return all(isinstance(k, str) and plain(v) for k, v in value.items())
    if isinstance(value, list):
        return all(map(plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or type(value) in (str, int, bool)


def test_json_is_plain_and_has_the_documented_keys(found):
    for diagnosis in found.values():
        assert plain(diagnosis.to_json())
    wanted = {
        "comparisons", "players", "condorcet_winner", "smith_set", "cycles", "bradley_terry",
        "lottery", "recommendation", "verdict", "coverage", "hodge", "position_bias", "prompts",
        "annotators", "attributes", "source", "notes", "reasons",
    }  # fmt: skip
    assert wanted <= set(found["qlora_oa7"].to_json())
    bare = diagnose(load_data("rock-paper-scissors")).to_json()
    assert plain(bare)
    assert set(bare) == set(found["qlora_oa7"].to_json())
    assert bare["cycles"]["significant"] is None
    assert bare["bradley_terry"]["p_value"] is None
    assert bare["comparisons"] is None


def from_wins(wins):
    return GameData("simulated", tuple(map(str, range(len(wins)))), _game(wins), wins)


def _game(wins):
    from equilign import PreferenceGame

    return PreferenceGame.from_counts(wins, labels=tuple(map(str, range(len(wins)))))


def verdicts(truth, number, runs, seed=0):
    rng = np.random.default_rng(seed)
    wins = simulate_wins(truth, even_counts(len(truth), number), rng, samples=runs)
    return [diagnose(from_wins(w), bootstrap=40).verdict for w in wins]


def test_ratings_with_much_data_are_never_called_a_game():
    for k in range(4):
        found = verdicts(random_ratings(k, 8), 400, 5)
        assert found == ["reward model"] * 5


def test_circles_with_much_data_are_a_game():
    assert verdicts(circle(5, 0.65), 400, 10) == ["game"] * 10


def test_circles_and_ratings_with_little_data_are_open():
    assert set(verdicts(circle(9, 0.6), 3, 8)) == {"too little data"}
    assert "game" not in verdicts(random_ratings(1, 9, 0.3), 3, 20)


def test_the_order_of_players_does_not_matter():
    rng = np.random.default_rng(0)
    wins = simulate_wins(circle(7, 0.7), even_counts(7, 40), rng)
    order = rng.permutation(7)
    first = diagnose(from_wins(wins), bootstrap=40).to_json()
    second = diagnose(from_wins(wins[np.ix_(order, order)]), bootstrap=40).to_json()
    for name, probability in first["lottery"].items():
        where = str(int(np.flatnonzero(order == int(name))[0]))
        assert second["lottery"][where] == pytest.approx(probability, abs=1e-7)
    for key in ("count", "significant", "triples"):
        assert first["cycles"][key] == second["cycles"][key]
    assert first["hodge"]["cyclic_share"] == pytest.approx(second["hodge"]["cyclic_share"])


def test_the_seed_decides_everything():
    data = real("pandalm5")
    first, same, other = (diagnose(data, seed=s, bootstrap=50).to_json() for s in (1, 1, 2))
    assert first == same
    assert first["hodge"]["under_bradley_terry"] != other["hodge"]["under_bradley_terry"]


def test_answers_of_prompts(tmp_path):
    path = tmp_path / "c.jsonl"

    def write(rows):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return diagnose(load_data(path))

    pairs = [{"prompt": f"p{k}", "chosen": f"a{k}", "rejected": f"b{k}"} for k in range(200)]
    only_pairs = write(pairs)
    assert only_pairs.verdict == "too little data"
    assert "No prompt has three answers" in only_pairs.recommendation
    values = only_pairs.to_json()
    assert (values["players"], values["lottery"], values["bradley_terry"]) == (None, None, None)
    assert values["cycles"] == {"count": 0, "significant": 0, "triples": 0}
    ranked = [
        {"prompt": f"p{k}", "chosen": f"{a}{k}", "rejected": f"{b}{k}"}
        for k in range(200)
        for a, b in ("xy", "xz", "yz")
    ]
    assert write(ranked).verdict == "reward model"
    around = [
        {"prompt": "p", "chosen": f"{a} p", "rejected": f"{b} p"}
        for a, b in ("xy", "yz", "zx")
        for _ in range(20)
    ]
    assert write(ranked + around).verdict == "game"


def evidence(**changed):
    given = {
        "favourite": "a", "opponent": "b", "loss": 0.0, "low": 0.0, "high": 0.2, "p_value": 0.5,
        "smallest_p": 0.002,
        "misfit": 0.0, "misfit_bound": 0.2, "significant_cycles": 0, "condorcet_winner": "a",
        "favourite_share": 1.0, "components": 1, "typical_count": 10.0,
    }  # fmt: skip
    return Evidence(**given | changed)


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, "too little data"),
        ({"high": 0.04}, "reward model"),
        ({"misfit_bound": 0.04}, "reward model"),
        ({"misfit_bound": 0.04, "components": 2}, "too little data"),
        ({"misfit_bound": 0.04, "loss": 0.06}, "too little data"),
        ({"loss": 0.06, "low": 0.01}, "game"),
        ({"loss": 0.04, "low": 0.01}, "too little data"),
        ({"misfit": 0.1, "p_value": 0.001, "favourite_share": 0.2, "significant_cycles": 3},
         "game"),
        ({"misfit": 0.1, "p_value": 0.05, "favourite_share": 0.2, "significant_cycles": 3,
          "smallest_p": 0.05}, "game"),
        ({"misfit": 0.1, "p_value": 0.001, "favourite_share": 0.2}, "too little data"),
        ({"misfit": 0.1, "p_value": 0.2, "favourite_share": 0.2, "significant_cycles": 3},
         "too little data"),
        ({"misfit": 0.01, "p_value": 0.001, "favourite_share": 0.2, "significant_cycles": 3},
         "too little data"),
        ({"misfit": 0.1, "p_value": 0.001, "significant_cycles": 3}, "too little data"),
        ({"misfit": 0.01, "p_value": 1e-9, "high": 0.02}, "reward model"),
    ],
)  # fmt: skip
def test_the_rules_of_the_verdict(changed, verdict):
    assert decide(evidence(**changed))[0] == verdict


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bootstrap": 5}, "bootstrap = 5; a p-value needs at least 20"),
        ({"tolerance": 0.0}, "tolerance = 0.0; it must lie between"),
        ({"tolerance": math.nan}, "tolerance = nan"),
        ({"seed": -1}, "seed = -1; it must be >= 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        diagnose(load_data("rock-paper-scissors"), **options)
