import math

import numpy as np
import pytest

from equilign.fitting.baselines import fit_length_judge, label_entropy, length_margins
from equilign.fitting.measures import (
    best_factor,
    calibration,
    expected_calibration_error,
    log_losses,
    measure,
    per_prompt,
    prompt_weights,
    reliability,
    right_answers,
    squared_calibration,
)
from equilign.formats import PreferencePair


def logit(p):
    return np.log(np.asarray(p) / (1.0 - np.asarray(p)))


class TestAccuracyAndLoss:
    def test_by_hand(self):
        margins = np.array([2.0, -1.0, 0.0, 3.0, -0.5])
        labels = np.array([1.0, 1.0, 0.8, 0.5, 0.25])
        np.testing.assert_array_equal(right_answers(margins, labels), [1, 0, 0.5, np.nan, 1])
        q = 1 / (1 + np.exp(-margins))
        np.testing.assert_allclose(
            log_losses(margins, labels), -labels * np.log(q) - (1 - labels) * np.log(1 - q)
        )

    def test_every_prompt_counts_the_same(self):
        """Three right pairs of one prompt and a wrong one of another: one half, not 3/4."""
        found = measure([1.0, 1.0, 1.0, -1.0], [1.0] * 4, [0, 0, 0, 1])
        assert found.accuracy.value == 0.5
        expected = (math.log1p(math.exp(-1)) + math.log1p(math.exp(1))) / 2
        assert found.log_loss.value == pytest.approx(expected)
        assert (found.pairs, found.prompts, found.decided) == (4, 2, 4)

    def test_ties_are_left_out_of_the_accuracy_only(self):
        found = measure([1.0, 5.0], [1.0, 0.5], [0, 1])
        assert found.accuracy.value == 1.0
        assert found.decided == 1
        assert found.log_loss.value > 1.0

    def test_the_other_way_round(self):
        """Which answer is called the first does not matter."""
        rng = np.random.default_rng(0)
        margins, labels = rng.normal(size=50), rng.choice([0.0, 0.25, 0.5, 1.0], 50)
        prompts = rng.integers(12, size=50)
        flip = rng.random(50) < 0.5
        one = measure(margins, labels, prompts)
        two = measure(
            np.where(flip, -margins, margins), np.where(flip, 1 - labels, labels), prompts
        )
        assert one.accuracy == two.accuracy
        assert one.log_loss.value == pytest.approx(two.log_loss.value)
        assert one.calibration.value == pytest.approx(two.calibration.value)
        assert one.bins == two.bins

    def test_saturated_verdicts_are_finite(self):
        found = measure([1e4, -1e4, 0.0], [1.0, 1.0, 0.5], [0, 1, 2])
        assert math.isfinite(found.log_loss.value)
        assert math.isfinite(found.calibration.value)

    def test_only_ties(self):
        found = measure([1.0, -1.0], [0.5, 0.5], [0, 1])
        assert math.isnan(found.accuracy.value)
        assert (found.accuracy.low, found.accuracy.high) == (0.0, 1.0)

    def test_interval_widens_when_pairs_share_prompts(self):
        rng = np.random.default_rng(1)
        right = rng.random(60) < 0.7
        margins = np.where(right, 1.0, -1.0)
        apart = measure(margins, np.ones(60), np.arange(60)).accuracy
        # The same 60 answers, each ten times: not 600 independent observations.
        copies = measure(
            np.repeat(margins, 10), np.ones(600), np.repeat(np.arange(60), 10)
        ).accuracy
        assert (copies.low, copies.high) == pytest.approx((apart.low, apart.high))

    def test_per_prompt_drops_what_is_missing(self):
        values = np.array([1.0, np.nan, 3.0, np.nan])
        np.testing.assert_array_equal(per_prompt(values, np.array([0, 0, 2, 3])), [1.0, 3.0])


class TestCalibration:
    def test_by_hand(self):
        """40 pairs, two bins of 20: gaps 0.5 - 0.62 and 1 - 0.92."""
        margins = np.repeat(logit([0.62, 0.92]), 20)
        margins[:10] *= -1.0
        labels = np.ones(40)
        assert expected_calibration_error(margins, labels, np.ones(40)) == pytest.approx(0.1)
        heavy = np.repeat([3.0, 1.0], 20)
        assert expected_calibration_error(margins, labels, heavy) == pytest.approx(0.11)
        bins = reliability(margins, labels, np.arange(40))
        assert [(b.pairs, b.right) for b in bins] == [(20, 0.5), (20, 1.0)]
        assert [b.confidence for b in bins] == pytest.approx([0.62, 0.92])
        assert [b.high for b in bins] == pytest.approx([0.77, 0.92])

    def test_mean_square_gap_by_hand(self):
        """Every prompt's pairs are alike, so resampling prompts within a bin changes nothing."""
        margins = np.tile(np.repeat(logit([0.62, 0.92]), 2), 20)
        labels = np.ones(80)
        labels[0::4] = 0.0
        prompts = np.repeat(np.arange(40), 2)
        found = squared_calibration(margins, labels, prompts, 0)
        expected = (0.12**2 + 0.08**2) / 2
        assert found.value == pytest.approx(expected, rel=0.02)

    def test_weights_of_pairs(self):
        np.testing.assert_allclose(
            prompt_weights(np.array([7, 7, 7, 2])), [1 / 6, 1 / 6, 1 / 6, 1 / 2]
        )

    def test_correction_removes_the_noise_of_a_perfect_judge(self):
        """60 data sets from the judge's own probabilities: unbiased about 0."""
        plug, fixed, covered = [], [], 0
        for seed in range(60):
            rng = np.random.default_rng(seed)
            p = rng.uniform(0.5, 0.95, 250)
            labels = (rng.random(250) < p).astype(float)
            found = squared_calibration(logit(p), labels, np.arange(250), seed)
            plug.append(expected_calibration_error(logit(p), labels, np.ones(250)) ** 2)
            fixed.append(found.value)
            covered += found.low <= 0.0 <= found.high
        assert np.mean(plug) > 0.004
        assert abs(np.mean(fixed)) < 3.0 * np.std(fixed) / np.sqrt(60)
        assert abs(np.mean(fixed)) < 0.2 * np.mean(plug)
        assert covered >= 50

    def test_prompts_are_the_units_of_its_noise(self):
        """Five copies of each prompt's pair: the noise of 100 prompts, not of 500 pairs."""
        values = []
        for seed in range(40):
            rng = np.random.default_rng(seed)
            p = rng.uniform(0.5, 0.95, 100)
            labels = (rng.random(100) < p).astype(float)
            several = (np.repeat(x, 5) for x in (logit(p), labels, np.arange(100)))
            values.append(squared_calibration(*several, seed).value)
        assert abs(np.mean(values)) < 3.0 * np.std(values) / np.sqrt(40)

    def test_overconfidence_is_found(self):
        """Right 65 % of the time at a confidence of 90 %: the error is 1/4."""
        inside = 0
        for seed in range(20):
            rng = np.random.default_rng(seed)
            labels = (rng.random(400) < 0.65).astype(float)
            found = calibration(np.full(400, logit(0.9)), labels, np.arange(400), seed)
            inside += found.low <= 0.25 <= found.high
            assert found.value == pytest.approx(0.25, abs=0.08)
            assert found.high - found.low < 0.13
        assert inside >= 17

    def test_underconfidence_counts_as_well(self):
        found = measure(np.full(300, logit(0.6)), np.ones(300), np.arange(300))
        assert found.calibration.value == pytest.approx(0.4, abs=1e-6)
        assert found.ece == pytest.approx(0.4)

    def test_one_prompt_tells_nothing(self):
        found = measure([1.0, 2.0], [1.0, 1.0], [0, 0]).calibration
        assert (found.low, found.high) == (0.0, 1.0)

    def test_equal_confidences_share_a_bin(self):
        found = reliability(np.zeros(100), np.ones(100), np.arange(100))
        assert [(b.pairs, b.confidence, b.right) for b in found] == [(100, 0.5, 0.5)]


class TestScale:
    @pytest.mark.parametrize("true", [0.2, 1.0, 5.0])
    def test_recovers_the_factor(self, true):
        margins = np.random.default_rng(0).normal(size=400)
        labels = 1 / (1 + np.exp(-true * margins))  # exact soft labels
        assert best_factor(margins, labels) == pytest.approx(true, rel=0.06)

    def test_a_few_pairs_that_agree_do_not_make_it_sure(self):
        """Ten pairs of margin 1, all right: Platt's target is 11/12, not 1."""
        factor = best_factor(np.ones(10), np.ones(10))
        assert factor == pytest.approx(math.log(11.0), rel=1e-3)

    def test_a_judge_that_is_wrong_is_silenced(self):
        margins = np.random.default_rng(0).normal(size=100)
        assert best_factor(margins, (margins < 0).astype(float)) < 2e-3


class TestBaselines:
    pairs = (
        PreferencePair("x", "a" * 9, "a", 1.0),
        PreferencePair("y", "a", "a" * 9, 0.8),
        PreferencePair("z", "aaa", "aab", 0.5),
    )

    def test_length(self):
        np.testing.assert_allclose(length_margins(self.pairs), [math.log(5), -math.log(5), 0.0])

    def test_fitted_to_the_side_that_wins(self):
        assert fit_length_judge(self.pairs[:1]).weight > 10
        assert fit_length_judge(self.pairs[1:2]).weight == pytest.approx(
            -math.log(4) / math.log(5), rel=1e-3
        )
        assert fit_length_judge(self.pairs[2:]).weight == 0.0

    def test_entropy(self):
        expected = [0.0, -0.8 * math.log(0.8) - 0.2 * math.log(0.2), math.log(2)]
        np.testing.assert_allclose(label_entropy(self.pairs), expected)
