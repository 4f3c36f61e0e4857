"""Every real matrix of ``data/games`` against the reference values that came with the data."""

import json
from pathlib import Path

import numpy as np
import pytest

from equilign.games import PreferenceGame, exploitability
from equilign.games.nash import nash

DATA = Path(__file__).parents[2] / "data" / "games"
EXPECTED = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))


def load(name):
    folder, _, part = name.rpartition("/")
    if folder == "epl_seasons":
        with np.load(DATA / folder / "seasons.npz") as data:
            k = data["seasons"].tolist().index(part)
            wins, names = data["wins"][k], data["names"][k]
    elif folder == "summeval16":
        with np.load(DATA / folder / "game.npz") as data:
            k = data["attributes"].tolist().index(part)
            wins, names = data["wins_per_attribute"][k], data["names"]
    else:
        with np.load(DATA / name / "game.npz") as data:
            wins, names = data["wins"], data["names"]
    counts = wins + wins.T
    share = np.divide(wins, counts, out=np.full(wins.shape, 0.5), where=counts > 0)
    return PreferenceGame(share, labels=tuple(map(str, names)))


def test_there_are_31_games():
    assert len(EXPECTED) == 31
    assert sum(e["unique"] for e in EXPECTED.values()) == 18


@pytest.mark.parametrize("method", ["auto", "interior-point"])
@pytest.mark.parametrize("name", EXPECTED)
def test_support_and_uniqueness(name, method):
    game, expected = load(name), EXPECTED[name]
    for selection in ("center", "vertex"):
        solution = nash(game, method=method, selection=selection)
        assert exploitability(game, solution.policy) <= 1e-12
        assert solution.unique == expected["unique"]
        support = solution.support()
        if expected["unique"]:
            assert set(support) == set(expected["support"])
            for player, share in expected["support"].items():
                assert support[player] == pytest.approx(share, abs=2e-9)
