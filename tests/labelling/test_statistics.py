"""Agreement against hand computation."""

import numpy as np
import pytest

from equilign.labelling.statistics import label_statistics
from equilign.labelling.tables import Answer


def answers(*rows):
    """Rows of (annotator, pair, value, a_left, seconds)."""
    return [
        Answer(f"k{i}", n, b"p%d" % n, b"a%d" % n, b"b%d" % n, who, value, 1, left, s, 0.0, None)
        for i, (who, n, value, left, s) in enumerate(rows)
    ]


def alpha_by_hand(table):
    """Krippendorff's alpha from its coincidence matrix; sides mean nothing, so symmetrised."""
    kinds = [1.0, 0.0, 0.5]
    matrix = np.zeros((3, 3))
    for votes in table.values():
        for i, one in enumerate(votes):
            for j, other in enumerate(votes):
                if i != j:
                    matrix[kinds.index(one), kinds.index(other)] += 1 / (len(votes) - 1)
    matrix = (matrix + matrix[np.ix_([1, 0, 2], [1, 0, 2])]) / 2
    n = matrix.sum()
    count = matrix.sum(axis=1)
    observed = 1 - np.trace(matrix) / n
    expected = 1 - (count * (count - 1)).sum() / (n * (n - 1))
    return 1 - observed / expected


def test_agreement_and_alpha():
    table = {1: [1.0, 1.0, 0.0], 2: [0.0, 0.0], 3: [0.5, 0.5, 1.0], 4: [1.0], 5: [1.0, 0.0]}
    rows = [
        (who, pair, value, None, None)
        for pair, votes in table.items()
        for who, value in zip("xyz", votes, strict=False)
    ]
    found = label_statistics(answers(*rows))
    assert (found.answers, found.comparisons, found.shared) == (11, 5, 4)
    # Pairs of people: items 1 and 3 agree in one of three pairs, item 2 agrees, item 5 does not.
    assert found.agreement == pytest.approx((1 / 3 + 1 + 1 / 3 + 0) / 4)
    assert found.alpha == pytest.approx(alpha_by_hand(table))
    shares = {(a.first, a.second): (a.pairs, a.share) for a in found.agreements}
    assert shares == {
        ("x", "y"): (4, 0.75),
        ("x", "z"): (2, 0.0),
        ("y", "z"): (2, 0.0),
    }


def test_perfect_agreement_is_one_and_noise_is_about_zero():
    rng = np.random.default_rng(0)
    rows = [(w, i, float(i % 2), None, None) for i in range(50) for w in "xy"]
    assert label_statistics(answers(*rows)).alpha == pytest.approx(1.0)
    rows = [(w, i, float(rng.integers(2)), None, None) for i in range(2000) for w in "xy"]
    assert abs(label_statistics(answers(*rows)).alpha) < 0.07


def test_position_bias_and_times():
    rows = [("l", i, 1.0 if i % 2 else 0.0, bool(i % 2), 2.0 + i) for i in range(20)]  # always left
    rows += [("f", i, float(i < 10), bool(i % 2), None) for i in range(20)]
    rows += [("f", 30, 0.5, True, None), ("f", 31, None, True, None)]
    found = label_statistics(answers(*rows))
    left, fair = found.annotators["l"], found.annotators["f"]
    assert left.bias.left_share == 1.0
    assert left.bias.p_value < 1e-5
    assert left.bias.low > 0.8
    assert left.median_seconds == 11.5
    assert fair.bias.left_share == 0.5
    assert fair.bias.low < 0.5 < fair.bias.high
    assert (fair.answers, fair.ties, fair.skips, fair.median_seconds) == (21, 1, 1, None)
    assert found.bias.decided == 40
    assert found.bias.left_share == 0.75


def test_nothing_and_one_person():
    empty = label_statistics([])
    assert (empty.answers, empty.alpha, empty.bias.left_share) == (0, None, None)
    one = label_statistics(answers(("x", 1, 1.0, True, 1.0)))
    assert one.agreement is None
    assert one.agreements == ()
    skipped = label_statistics(answers(("x", 1, None, True, 1.0)))
    assert skipped.annotators["x"].skips == 1
