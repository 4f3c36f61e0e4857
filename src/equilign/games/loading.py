"""Games and comparisons by name or from files."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from equilign.errors import ConfigError, DataError, EquilignError, PolicyError
from equilign.games.archives import Archive, read_archive
from equilign.games.build import prefs_from_counts
from equilign.games.comparisons import Comparisons
from equilign.games.preference_game import PreferenceGame
from equilign.games.reading import Players, is_comparisons, read_comparisons
from equilign.games.records import (
    Problems,
    csv_rows,
    csv_table,
    excerpt,
    parse_json,
    parse_jsonl,
    read_text,
    to_table,
)

ENDINGS = (".csv", ".json", ".jsonl", ".npz", ".npy")
"""Files that are read; all but the last two also with .gz."""


@dataclass(frozen=True, eq=False)
class GameData:
    """A game with what is known about the data behind it.

    Attributes:
        source: name or file it came from.
        labels: names of the players; of answers, where there is no one game.
        game: the pooled game, or None where every prompt is a game of its own.
        wins: weight of comparisons in which i was preferred to j, ties counted half; None where
            only win probabilities are known.
        ties: weight of ties per pair; None where unknown.
        comparisons: the single verdicts; None where only totals are known.
        notes: plain sentences about choices made when reading.
    """

    source: str
    labels: tuple[str, ...]
    game: PreferenceGame | None
    wins: Float[np.ndarray, "n n"] | None = None
    ties: Float[np.ndarray, "n n"] | None = None
    comparisons: Comparisons | None = None
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> Float[np.ndarray, "n n"] | None:
        """Comparisons per pair, where known."""
        return None if self.wins is None else self.wins + self.wins.T


def load_game(
    source: str | Path, *, beta: float = 0.0, ref: Float[np.ndarray, " n"] | None = None
) -> PreferenceGame:
    """The game in a file or of a name; comparisons are pooled by player.

    Args:
        source: as `load_data`.
        beta: KL weight in win probability per nat.
        ref: regularising policy, shape ``(n,)``; uniform when not given.

    Raises:
        DataError: as `load_data`, or every prompt of the comparisons is a game of its own.
        PolicyError, ConfigError: ``ref`` or ``beta`` do not fit the game.
    """
    data = load_data(source)
    if data.game is None:
        assert data.comparisons is not None  # noqa: S101 - no game only where comparisons are
        data.comparisons.wins()  # says why there is none
        raise DataError(f"{source} holds no one game")
    game = data.game
    if beta == 0.0 and ref is None:
        return game
    return PreferenceGame(game.prefs, ref, beta, game.mask, game.labels)


def load_data(source: str | Path, *, players: Players = "auto") -> GameData:
    """A game, with the comparisons behind it where there are any.

    Args:
        source: a file, or the name of a game in `equilign.games.named.NAMED_GAMES`; a file wins.
            ``.csv``: win probabilities, with or without a header and a column of names, or
            comparisons. ``.json``: a matrix, ``{"labels": [...], "prefs": [[...]]}`` (or
            ``wins``, or ``margin``), or a list of comparisons. ``.jsonl``: comparisons. Each
            also as ``.gz``. ``.npz``: see `equilign.games.archives`; ``FILE.npz:KEY`` takes one
            of several games in it. ``.npy``: a matrix.
        players: see `equilign.games.reading.read_comparisons`.

    Raises:
        DataError: no such file or name, or its content is no game; names the place and the cure.
        PreferenceMatrixError: a matrix that is not one of win probabilities.
    """
    path = Path(source)
    name = str(source)
    key = None
    if not path.exists() and ".npz:" in name:
        name, _, key = name.partition(".npz:")
        path = Path(name + ".npz")
    if not path.exists() and (found := _named(str(source))) is not None:
        return found
    try:
        return replace(_read(path, key, players), source=str(source))
    except EquilignError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from None


def _named(name: str) -> GameData | None:
    """A named game; None for what looks like a file that is missing."""
    from equilign.games.named import NAMED_GAMES, named_game

    if name not in NAMED_GAMES:
        if "/" in name or Path(name).suffix in (*ENDINGS, ".gz"):
            return None
        raise DataError(
            f"there is no file and no game {excerpt(name)}; the games are: {', '.join(NAMED_GAMES)}"
        )
    game = named_game(name)
    return GameData(name, game.names, replace(game, labels=game.names))


def _read(path: Path, key: str | None, players: Players) -> GameData:
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file in it")
    if kind in (".npz", ".npy"):
        return _from_archive(read_archive(path, key))
    if path.exists() and kind not in ENDINGS:
        raise DataError(
            f"{path}: unknown ending {kind or '(none)'}; readable are {', '.join(ENDINGS)}"
        )
    text = read_text(path)
    if kind == ".jsonl":
        return _from_comparisons(read_comparisons(parse_jsonl(text, path), players))
    if kind == ".json":
        return _from_json(parse_json(text, path), path, players)
    rows = csv_rows(text, path)
    if is_comparisons([name.strip() for name in rows[0][1]]):
        return _from_comparisons(read_comparisons(csv_table(rows, path), players))
    return _from_matrix(*_csv_matrix(rows, path))


def _from_comparisons(comparisons: Comparisons) -> GameData:
    c = comparisons
    if not c.pooled:
        return GameData("", c.players, None, comparisons=c, notes=c.notes)
    wins = c.wins()
    game = PreferenceGame(prefs_from_counts(wins), labels=c.players)
    return GameData("", c.players, game, wins, c.ties(), c, c.notes)


def _from_archive(archive: Archive) -> GameData:
    if archive.comparisons is not None:
        found = _from_comparisons(archive.comparisons)
        return replace(found, notes=(*found.notes, *archive.notes))
    labels = archive.labels
    if archive.wins is not None:
        return _from_wins(archive.wins, labels)
    assert archive.prefs is not None  # noqa: S101 - one of the three is there
    game = PreferenceGame(archive.prefs, labels=labels)
    _at_least_two(game.size)
    return GameData("", game.names, replace(game, labels=game.names))


def _from_wins(wins: np.ndarray, labels: tuple[str, ...] | None) -> GameData:
    wins = wins.astype(np.float64)
    prefs = prefs_from_counts(wins)
    _at_least_two(len(prefs))
    np.fill_diagonal(wins, 0.0)
    game = PreferenceGame(prefs, labels=labels)
    if not wins.any():
        raise DataError("all wins are zero; nothing was compared")
    return GameData("", game.names, replace(game, labels=game.names), wins)


def _from_json(value: Any, path: Path, players: Players) -> GameData:  # noqa: ANN401
    if isinstance(value, list) and value and isinstance(value[0], dict):
        for number, row in enumerate(value, 1):
            if not isinstance(row, dict):
                raise DataError(f"{path}: record {number} is {excerpt(row)}, no object")
        table = to_table(value, list(range(1, len(value) + 1)), path)
        return _from_comparisons(read_comparisons(table, players))
    if isinstance(value, list):
        value = {"prefs": value}
    kinds = ("prefs", "wins", "margin")
    kind = next((k for k in kinds if isinstance(value, dict) and k in value), None)
    if kind is None:
        raise DataError(
            f"{path} holds {excerpt(value)}; a game is "
            '{"labels": ["a", "b"], "prefs": [[0.5, 0.7], [0.3, 0.5]]} (or "wins" for counts), '
            "or the matrix alone"
        )
    matrix = _json_matrix(value[kind], kind)
    labels = value.get("labels", value.get("names"))
    if labels is not None:
        if not isinstance(labels, list):
            raise DataError(f"{path}: labels is {excerpt(labels)}; it must be a list of names")
        labels = tuple(labels)
    if kind == "margin":
        kind, matrix = "prefs", 0.5 + matrix / 2.0
    return _from_matrix(matrix, labels, kind)


def _json_matrix(rows: Any, name: str) -> np.ndarray:  # noqa: ANN401
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows) or not rows:
        raise DataError(f"{name} is {excerpt(rows)}; it must be a list of rows")
    for i, row in enumerate(rows):
        if len(row) != len(rows):
            raise DataError(
                f"{name} has {len(rows)} rows, but row {i} has {len(row)} entries; "
                "a game needs a square matrix, one row and one column per player"
            )
        for j, entry in enumerate(row):
            if isinstance(entry, bool) or not isinstance(entry, int | float):
                raise DataError(f"{name}[{i}, {j}] is {excerpt(entry)}, no number")
    try:
        return np.array(rows, dtype=np.float64)
    except OverflowError as error:
        raise DataError(f"{name} holds a number that is too large: {error}") from None


def _csv_matrix(
    rows: list[tuple[int, list[str]]], path: Path
) -> tuple[np.ndarray, tuple[str, ...] | None, str]:
    """Numbers, names and kind (prefs or wins) of a matrix in CSV."""
    header: list[str] | None = None
    first = [cell.strip() for cell in rows[0][1]]
    corner = not first[0] and len(first) == len(rows) > 1 and all(first[1:])  # as pandas does
    counted_off = first == [str(i) for i in range(len(first))] and len(rows) == len(first) + 1
    if corner or counted_off or not any(map(_is_number, first)):
        header, rows = first, rows[1:]
    named = bool(rows) and (corner or not any(_is_number(row[0]) for _, row in rows))
    numbers = _csv_numbers(rows, named, path)
    size = len(numbers)
    if not size or numbers.shape[1] != size:
        raise DataError(
            f"{path} has {size} rows and {numbers.shape[1]} columns of numbers; a game needs a "
            "square matrix, one row and one column per player. Comparisons need a header such as "
            "prompt,chosen,rejected"
        )
    names = tuple(row[0].strip() for _, row in rows) if named else None
    if header is not None:
        heads = tuple(header[-size:]) if len(header) in (size, size + named) else tuple(header)
        if names is not None and heads != names:
            i = next((k for k in range(min(len(heads), size)) if heads[k] != names[k]), 0)
            raise DataError(
                f"{path}: the header names {excerpt(heads[i : i + 1])} where the first column "
                f"names {excerpt(names[i : i + 1])}; rows and columns must be the same players "
                "in the same order"
            )
        names = heads
    counted = not numbers.diagonal().any() and numbers.max() > 1.0 and numbers.min() >= 0.0
    return numbers, names, "wins" if counted else "prefs"


def _csv_numbers(rows: list[tuple[int, list[str]]], named: bool, path: Path) -> np.ndarray:
    problems = Problems(str(path))
    width = len(rows[0][1]) if rows else 0
    found = []
    for line, row in rows:
        if len(row) != width:
            problems.add(line, f"{len(row)} entries, but line {rows[0][0]} has {width}")
            continue
        cells = row[named:]
        wrong = next((k for k, cell in enumerate(cells) if not _is_number(cell)), None)
        if wrong is not None:
            problems.add(
                line, f"{excerpt(cells[wrong])} in column {wrong + named + 1} is no number"
            )
            continue
        found.append([float(cell) for cell in cells])
    cure = "A matrix holds win probabilities; comparisons need a header: prompt,chosen,rejected"
    problems.check(len(rows), cure)
    return np.array(found, dtype=np.float64).reshape(len(rows), max(width - named, 0))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _from_matrix(matrix: np.ndarray, labels: tuple[str, ...] | None, kind: str) -> GameData:
    _at_least_two(len(matrix))
    if kind == "wins":
        return _from_wins(matrix, labels)
    game = PreferenceGame(matrix, labels=labels)
    return GameData("", game.names, replace(game, labels=game.names))


def _at_least_two(size: int) -> None:
    if size < 2:
        raise DataError("one player only; a game needs at least two")


def read_policy(text: str, labels: tuple[str, ...]) -> Float[np.ndarray, " n"]:
    """A policy from ``0.5,0.3,0.2``, or from a ``.json`` file: a list, or an object by label.

    Raises:
        DataError: unreadable, or names that are no players.
        ConfigError: not numbers.
        PolicyError: not one number per player.
    """
    if text.endswith(".json"):
        return _fits(_json_policy(text, labels), labels)
    try:
        policy = np.array([float(part) for part in text.split(",")])
    except ValueError:
        raise ConfigError(
            f"{excerpt(text)} is no policy; write probabilities as 0.5,0.3,0.2, or name a .json "
            "file"
        ) from None
    return _fits(policy, labels)


def _fits(policy: np.ndarray, labels: tuple[str, ...]) -> np.ndarray:
    if labels and len(policy) != len(labels):
        raise PolicyError(f"{len(policy)} probabilities for {len(labels)} players; give one each")
    return policy


def _json_policy(text: str, labels: tuple[str, ...]) -> np.ndarray:
    path = Path(text)
    value = parse_json(read_text(path), path)
    if isinstance(value, dict):
        if set(value) != set(labels):
            odd = sorted(set(value) ^ set(labels))[0]
            raise DataError(f"{path} must give one probability to each player; see {excerpt(odd)}")
        value = [value[name] for name in labels]
    if not isinstance(value, list) or not all(type(v) in (int, float) for v in value):
        raise DataError(f"{path} holds {excerpt(value)}; a policy is a list of numbers")
    return np.array(value, dtype=np.float64)
