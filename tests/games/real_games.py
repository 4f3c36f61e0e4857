"""The matrices under data/games with their reference values."""

import json
from pathlib import Path

from equilign.games.loading import GameData, load_data

FOLDER = Path(__file__).resolve().parents[2] / "data" / "games"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
NAMES = tuple(EXPECTED)


def source(name: str) -> str:
    """What to load for a name of expected.json."""
    folder, _, part = name.partition("/")
    if folder == "epl_seasons":
        return f"{FOLDER / folder / 'seasons.npz'}:{part}"
    if folder == "summeval16" and part:
        return f"{FOLDER / folder / 'game.npz'}:{part}"
    return str(FOLDER / name / "game.npz")


def real(name: str) -> GameData:
    return load_data(source(name))
