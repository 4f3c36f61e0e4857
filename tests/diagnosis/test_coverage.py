"""Coverage counted by hand."""

import numpy as np

from equilign.diagnosis.coverage import count_components, coverage


def test_by_hand():
    counts = np.zeros((5, 5))
    for i, j, number in ((0, 1, 2), (1, 2, 4), (3, 4, 10)):
        counts[i, j] = counts[j, i] = number
    ties = np.zeros((5, 5))
    ties[3, 4] = ties[4, 3] = 4
    found = coverage(counts, ties, 5)
    assert (found.pairs_compared, found.pairs, found.components) == (3, 10, 2)
    assert found.per_pair == {
        "least": 2.0,
        "lower_quartile": 3.0,
        "median": 4.0,
        "upper_quartile": 7.0,
        "most": 10.0,
    }
    assert found.per_player == {"least": 2.0, "most": 10.0}
    assert found.ties == 0.25  # 4 of 16


def test_a_matrix_alone_is_complete():
    found = coverage(None, None, 4)
    assert (found.pairs_compared, found.pairs, found.components) == (6, 6, 1)
    assert found.per_pair is found.per_player is found.ties is None


def test_components():
    assert count_components(np.zeros((3, 3), dtype=bool)) == 3
    assert count_components(np.ones((3, 3), dtype=bool)) == 1
