"""The pieces of the reproduction against independent arithmetic."""

import numpy as np
import pytest

from equilign.errors import ConfigError
from equilign.experiments.omwu.contestants import CONTESTANTS, calls_per_step, methods
from equilign.experiments.omwu.curves import (
    Curves,
    band,
    envelope,
    lasting_arrival,
    plain,
    quantiles,
    run,
)
from equilign.experiments.omwu.families import FAMILIES, draw_games
from equilign.experiments.omwu.linear_phase import fit_line, predicted_rate
from equilign.experiments.omwu.networks import NEURAL_CONTESTANTS
from equilign.experiments.omwu.regrowth import regrowth_line
from equilign.experiments.omwu.scales import SCALES, get_scale
from equilign.experiments.omwu.tabular import REPORT, SELECT, score
from equilign.games import PreferenceGame, solve
from equilign.games.named import named_game
from equilign.play import play
from equilign.rules import MIRROR_RULES, Step

RPS = named_game("rock-paper-scissors")


@pytest.mark.parametrize(
    ("rule", "calls"),
    [
        ("mwu", 1),
        ("omwu", 1),
        ("omwu-two-sequence", 1),
        ("omwu-extragradient", 2),
        ("omd", 1),
        ("nash-md", 1),
        ("egpo", 2),
        ("mpo", 1),
        ("comal", 1),
        ("ogda", 1),
    ],
)
def test_oracle_calls_per_step(rule, calls):
    assert calls_per_step(MIRROR_RULES[rule], Step(0.1, 0.1)) == calls


def test_every_method_of_the_paper_competes():
    """And no two contestants share a key."""
    assert {"omwu", "mwu", "omd", "egpo", "nash-md", "mpo", "comal"} <= set(methods())
    for contestants in (CONTESTANTS, NEURAL_CONTESTANTS):
        assert len({c.key for c in contestants}) == len(contestants)
    assert {c.inner for c in CONTESTANTS if c.kind == "nested"} == {10}


# -- curves -------------------------------------------------------------------------------------


def test_a_lasting_arrival_is_not_a_visit():
    calls = np.array([0, 10, 20, 30, 40])
    gaps = np.array(
        [
            [1.0, 0.1, 0.001, 0.5, 0.0001],  # visits at 20, stays from 40
            [1.0, 0.001, 0.001, 0.001, 0.001],
            [1.0, 1.0, 1.0, 1.0, 0.01],
            [1.0, 0.0001, np.nan, np.nan, np.nan],  # diverged
        ]
    )
    np.testing.assert_array_equal(lasting_arrival(calls, gaps, 1e-3), [40, 10, np.inf, np.inf])
    np.testing.assert_array_equal(envelope(gaps)[0], [1.0, 0.5, 0.5, 0.5, 0.0001])


def test_quantiles_count_never_as_the_largest():
    values = np.array([3.0, np.inf, 1.0, np.nan, 2.0])
    assert quantiles(values, (0.0, 0.5, 1.0)) == [1.0, 3.0, np.inf]
    assert quantiles(np.arange(11.0)) == [1.0, 5.0, 9.0]


def test_numbers_become_json():
    value = {"a": np.array([1.0, np.inf, np.nan]), "b": [np.int64(2), np.bool_(True)], 3: "x"}
    assert plain(value) == {"a": [1.0, None, None], "b": [2, True], "3": "x"}


def test_bands_are_quartiles_of_the_games():
    gaps = np.array([[4.0, 1.0], [2.0, np.nan], [3.0, 0.1], [1.0, 0.2], [5.0, 0.3]])
    found = band(gaps)
    assert found["median"] == [3.0, 0.3]
    assert found["low"] == [2.0, 0.2]
    assert found["high"] == [4.0, 1.0]


def test_settings_are_chosen_by_final_gap_then_by_speed():
    omwu = next(c for c in CONTESTANTS if c.key == "omwu")

    def curves(final, arrives):
        gaps = np.full((3, 5), 0.5)
        gaps[:, arrives:] = final
        return Curves(np.arange(5), gaps, gaps, np.ones((3, 2)) / 2)

    assert score(omwu, curves(1e-7, 3)) < score(omwu, curves(1e-3, 1))
    assert score(omwu, curves(1e-13, 2)) < score(omwu, curves(1e-16, 3)), "both are rounding"


def test_a_run_pays_for_its_calls():
    """Extragradient gets half the steps, and the last recorded moment is the whole budget."""
    game, start = draw_games(FAMILIES[0], 2, 0, REPORT)
    for contestant in CONTESTANTS:
        if contestant.key in ("omwu", "egpo:0.01", "comal:0.1"):
            curves = run(game, start, contestant, 1.0, 100)
            assert curves.calls[0] == 0
            assert curves.calls[-1] == 100
            steps = 100 // contestant.calls_per_step(1.0)
            by_hand = play(
                game,
                contestant.rule,
                steps=steps,
                eta=1.0,
                beta=contestant.beta,
                inner_steps=10,
                start=start,
                record=[steps],
            )
            np.testing.assert_allclose(curves.last[:, -1:], by_hand.duality_gap, rtol=1e-12)


# -- games --------------------------------------------------------------------------------------


def test_families_are_what_they_say():
    for family in FAMILIES:
        game, start = draw_games(family, 5, 7, SELECT)
        assert game.prefs.shape == (5, family.n, family.n)
        np.testing.assert_allclose(start.sum(axis=1), 1.0)
        np.testing.assert_array_equal(game.reference, start)
        support = (solve(PreferenceGame(game.prefs), "nash").policy > 1e-9).sum(axis=1)
        assert (support == family.n).all() == family.assumption
        if not family.assumption:
            assert (support % 2 == 1).all(), "a generic equilibrium has odd support"


def test_parts_share_no_game_and_seeds_decide():
    family = FAMILIES[2]
    first = draw_games(family, 3, 0, SELECT)[0].prefs
    np.testing.assert_array_equal(first, draw_games(family, 3, 0, SELECT)[0].prefs)
    for other in (draw_games(family, 3, 0, REPORT), draw_games(family, 3, 1, SELECT)):
        for a in first:
            assert all(np.abs(a - b).max() > 0.1 for b in other[0].prefs)
    assert draw_games(family, 2, 0, SELECT, 31)[0].size == 31


def test_scales():
    assert SCALES["quick"].calls < SCALES["full"].calls
    with pytest.raises(ConfigError, match="no scale 'huge'; there are: tiny, quick, full"):
        get_scale("huge")


# -- the linear phase ---------------------------------------------------------------------------


def test_a_geometric_curve_is_fitted_exactly():
    steps = np.arange(0.0, 4000.0, 5.0)
    gaps = 0.3 * 0.99**steps
    fit = fit_line(steps, gaps)
    assert fit["rate"] == pytest.approx(0.99, abs=1e-9)
    assert fit["r_squared"] == pytest.approx(1.0, abs=1e-9)
    assert fit["halves"] == pytest.approx(1.0, abs=0.02)
    assert fit["burn_in"] == pytest.approx(np.log(0.3 / 1e-4) / -np.log(0.99), abs=5.0)
    assert fit["end"] == pytest.approx(np.log(0.3 / 1e-10) / -np.log(0.99), abs=5.0)


def test_a_sublinear_curve_is_told_from_a_line():
    steps = np.geomspace(1.0, 1e11, 3000)
    fit = fit_line(steps, 1.0 / steps)
    assert fit["halves"] == pytest.approx(1000.0, rel=0.05)
    assert fit["r_squared"] < 0.9


def test_oscillation_and_a_late_return_do_not_fool_the_fit():
    steps = np.arange(0.0, 6000.0, 3.0)
    gaps = 0.3 * 0.99**steps * (1e-6 + np.cos(steps / 7.0) ** 2)
    assert fit_line(steps, gaps)["rate"] == pytest.approx(0.99, abs=1e-4)
    gaps[-1] = 0.01
    assert fit_line(steps, gaps)["rate"] is None


def test_curves_that_do_not_get_through_have_no_rate():
    steps = np.arange(100.0)
    assert set(fit_line(steps, np.full(100, 1e-6)).values()) == {None}
    assert set(fit_line(steps, np.full(100, np.nan)).values()) == {None}


@pytest.mark.parametrize("eta", [0.2, 0.5, 0.8])
def test_the_predicted_rate_is_the_measured_one(eta):
    """Interior equilibrium: rock-paper-scissors with unequal odds."""
    game = named_game("weighted-rock-paper-scissors")
    run = play(game, "omwu", steps=400_000, eta=eta, start=np.array([0.2, 0.5, 0.3]), record=20)
    fit = fit_line(run.steps.astype(float), run.duality_gap)
    predicted = predicted_rate(game.margin, solve(game, "nash").policy, eta)
    assert 1.0 - fit["rate"] == pytest.approx(1.0 - predicted, rel=0.02)
    assert fit["r_squared"] > 0.99


def test_the_predicted_rate_outside_the_support():
    """A Condorcet winner: the others shrink by what they lose, whatever happens inside."""
    game = named_game("condorcet-winner")
    predicted = predicted_rate(game.margin, np.array([1.0, 0.0, 0.0]), 0.5)
    assert predicted == pytest.approx(np.exp(-0.5 * 0.1))


def test_a_step_that_is_too_large_is_predicted_to_fail():
    """eta w > 1/sqrt(3); for rock-paper-scissors w = sqrt(3)/6, so the limit is 2."""
    uniform = np.full(3, 1 / 3)
    assert (
        predicted_rate(RPS.margin, uniform, 1.98) < 1.0 < predicted_rate(RPS.margin, uniform, 2.02)
    )


# -- regrowth -----------------------------------------------------------------------------------


def test_the_line_of_regrowth():
    runs = [
        {"rule": "a", "power": k, "regrown_at": 7 + 3 * k if k < 40 else None}
        for k in (5, 10, 30, 50)
    ]
    line = regrowth_line({"runs": runs}, "a")
    assert line["steps_per_decade"] == pytest.approx(3.0)
    assert line["r_squared"] == pytest.approx(1.0)
    assert regrowth_line({"runs": runs[:2]}, "a") is None
