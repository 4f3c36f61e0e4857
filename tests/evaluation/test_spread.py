"""Means over seeds and prompts against textbook arithmetic and simulation."""

import numpy as np
import pytest
from scipy import stats

from equilign.evaluation.spread import RATE, spread


def test_intervals_over_each_alone_are_students():
    x = np.random.default_rng(0).normal(size=(5, 30))
    found = spread(x)
    assert found.value == pytest.approx(x.mean())
    for means, got in ((x.mean(axis=1), found.seeds), (x.mean(axis=0), found.prompts)):
        half = stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
        assert got == pytest.approx((means.mean() - half, means.mean() + half))
    np.testing.assert_allclose(found.by_seed, x.mean(axis=1))


def test_a_spread_of_one_kind_only_is_that_kinds():
    seeds = np.array([[0.1], [0.4], [0.2]]) * np.ones((1, 20))
    found = spread(seeds)
    assert found.both == pytest.approx(found.seeds)
    assert found.prompts == pytest.approx((found.value, found.value))
    turned = spread(seeds.T)
    assert turned.both == pytest.approx(turned.prompts)


@pytest.mark.parametrize(("of_seeds", "of_prompts"), [(0.0, 0.3), (0.3, 0.3), (0.2, 0.0)])
def test_both_covers_the_truth_as_often_as_it_says(of_seeds, of_prompts):
    """Five seeds, forty prompts, drawn anew each time; the truth is 0."""
    rng = np.random.default_rng(1)
    hits = {"both": 0, "prompts": 0}
    for _ in range(600):
        a, b = rng.normal(0, of_seeds, (5, 1)), rng.normal(0, of_prompts, (1, 40))
        found = spread(a + b + rng.normal(0, 0.5, (5, 40)))
        for name in hits:
            low, high = getattr(found, name)
            hits[name] += low <= 0.0 <= high
    assert 0.92 <= hits["both"] / 600 <= 0.995
    if of_seeds > 0.2:
        assert hits["prompts"] / 600 < 0.75, "prompts alone miss the spread of the trainings"


def test_degenerate_spreads():
    assert spread([[0.5, 0.5], [0.5, 0.5]]).both == (0.5, 0.5)
    one = spread([[0.2, 0.4]])
    assert one.seeds == one.both == (-np.inf, np.inf)
    for bad in ([], [[]], [1.0]):
        with pytest.raises(ValueError, match="seeds, prompts"):
            spread(np.array(bad))


def test_intervals_are_cut_to_the_range_of_the_quantity():
    wide = np.array([[0.0, 1.0], [1.0, 0.9]])
    assert spread(wide).both[0] < 0.0
    assert spread(wide).both[1] > 1.0
    found = spread(wide, RATE)
    assert found.both == found.seeds == (0.0, 1.0)
    assert found.value == pytest.approx(0.725)
    assert spread([[0.2, 0.4]], RATE).both == (0.0, 1.0)


def test_of_one_seed_the_interval_over_prompts_is_told():
    values = np.random.default_rng(0).random((3, 40))
    several, alone = spread(values), spread(values[:1])
    assert several.told == several.both != several.prompts
    assert alone.told == alone.prompts
    assert not np.isfinite(alone.both).any()
