"""Hodge's decomposition against least squares done by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equilign.errors import DataError
from equilign.games.hodge import corrected_cyclic_share, cyclic_shares, hodge


def random_margin(seed, size):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.uniform(-0.5, 0.5, (size, size)), 1)
    return upper - upper.T


def random_weights(seed, size, share=0.7):
    rng = np.random.default_rng(seed + 1)
    upper = np.triu(rng.integers(1, 9, (size, size)) * (rng.random((size, size)) < share), 1)
    return (upper + upper.T).astype(float)


def test_rock_paper_scissors_is_all_cycle_and_ratings_are_none():
    rps = np.array([[0, 0.5, -0.5], [-0.5, 0, 0.5], [0.5, -0.5, 0]])
    assert hodge(rps).cyclic_share == pytest.approx(1.0, abs=1e-12)
    ratings = np.array([0.3, 0.1, -0.4])
    split = hodge(ratings[:, None] - ratings[None, :])
    assert split.cyclic_share == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(split.ratings, ratings, atol=1e-12)


def test_a_triangle_by_hand():
    # Edges 1, 1, 1 around: ratings are the mean rows; with 2 on one edge the cycle sum is 4, and
    # least squares leaves a third of it on every edge.
    margin = np.array([[0.0, 2.0, -1.0], [-2.0, 0.0, 1.0], [1.0, -1.0, 0.0]])
    split = hodge(margin)
    assert split.cyclic[0, 1] == pytest.approx(4 / 3)
    assert split.cyclic[1, 2] == pytest.approx(4 / 3)
    assert split.cyclic[2, 0] == pytest.approx(4 / 3)
    assert split.cyclic_share == pytest.approx(3 * (4 / 3) ** 2 / 6)


@given(st.integers(0, 10_000), st.integers(2, 8))
def test_parts_add_up_are_orthogonal_and_match_plain_least_squares(seed, size):
    margin, weights = random_margin(seed, size), random_weights(seed, size)
    split = hodge(margin, weights)
    compared = weights > 0
    np.testing.assert_allclose(split.gradient + split.cyclic, np.where(compared, margin, 0.0))
    assert (weights * split.gradient * split.cyclic).sum() == pytest.approx(0.0, abs=1e-9)
    # divergence of the cyclic part vanishes at every player
    np.testing.assert_allclose((weights * split.cyclic).sum(axis=1), 0.0, atol=1e-9)
    pairs = [(i, j) for i, j in itertools.combinations(range(size), 2) if compared[i, j]]
    if not pairs:
        assert split.cyclic_share == 0.0
        return
    rows = np.zeros((len(pairs), size))
    target = np.zeros(len(pairs))
    for k, (i, j) in enumerate(pairs):
        root = weights[i, j] ** 0.5
        rows[k, i], rows[k, j], target[k] = root, -root, root * margin[i, j]
    rest = target - rows @ np.linalg.lstsq(rows, target, rcond=None)[0]
    assert split.cyclic_share == pytest.approx((rest @ rest) / (target @ target), abs=1e-9)
    hat = rows @ np.linalg.pinv(rows)
    for k, (i, j) in enumerate(pairs):
        assert split.leverage[i, j] == pytest.approx(hat[k, k], abs=1e-9)


@given(st.integers(0, 10_000), st.integers(3, 6))
def test_many_at_once_are_as_one_by_one(seed, size):
    compared = random_weights(seed, size) > 0
    margins = np.stack([random_margin(seed + k, size) for k in range(4)])
    shares = cyclic_shares(margins, compared)
    for share, margin in zip(shares, margins, strict=True):
        assert share == pytest.approx(hodge(margin, compared.astype(float)).cyclic_share, abs=1e-9)


def test_the_correction_takes_noise_off_on_average():
    rng = np.random.default_rng(0)
    ratings = rng.normal(size=12) * 0.1
    truth = ratings[:, None] - ratings[None, :] + 0.3 * random_margin(5, 12)
    wanted = hodge(truth).cyclic_share
    compared = ~np.eye(12, dtype=bool)
    variance = np.full((12, 12), 0.15**2)
    raw, corrected = [], []
    for _ in range(200):
        noise = np.triu(rng.normal(scale=0.15, size=(12, 12)), 1)
        margin = truth + noise - noise.T
        raw.append(hodge(margin).cyclic_share)
        corrected.append(corrected_cyclic_share(margin, variance, compared))
    assert np.mean(raw) > wanted + 0.1
    assert np.mean(corrected) == pytest.approx(wanted, abs=0.03)


def test_nothing_but_noise_has_no_corrected_share():
    margin = random_margin(3, 6) * 0.01
    assert corrected_cyclic_share(margin, np.full((6, 6), 0.25), np.ones((6, 6), bool)) is None


@pytest.mark.parametrize(
    ("margin", "weights", "message"),
    [
        (np.ones((2, 2)), None, "skew"),
        (np.array([[0.0, np.nan], [np.nan, 0.0]]), None, "finite"),
        (np.zeros((2, 2)), -np.ones((2, 2)), ">= 0"),
        (np.zeros((2, 2)), np.array([[0.0, 1.0], [2.0, 0.0]]), "symmetric"),
    ],
)
def test_bad_input_is_named(margin, weights, message):
    with pytest.raises(DataError, match=message):
        hodge(margin, weights)
