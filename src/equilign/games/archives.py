"""Games in NumPy archives.

| array | shape | meaning |
|---|---|---|
| ``wins`` | ``(n, n)`` | weight of comparisons in which i was preferred to j, ties counted half |
| ``prefs`` | ``(n, n)`` | Pr(i beats j) |
| ``margin`` | ``(n, n)`` | ``2 * prefs - 1`` |
| ``names`` (or ``labels``) | ``(n,)`` | players |
| ``verdict`` | ``(n, n, X)`` | on prompt k with i shown first and j second: 1, -1, 0 tie, -9 none |
| ``prompt_ids`` | ``(X,)`` | names of those prompts |

The first of them that is there is the game; with ``verdict`` there are single comparisons too.
Several games in one file are told apart by ``FILE.npz:KEY``: KEY is the name of an array, or an
entry of an array of texts as long as the first axis of a stack of wins (``seasons`` for ``wins``,
``attributes`` for ``wins_per_attribute``).
"""

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from equilign.errors import DataError
from equilign.games.comparisons import Comparisons
from equilign.games.records import excerpt, explain_unreadable

_KINDS = ("wins", "prefs", "margin")
_NOT_JUDGED = -9


@dataclass(frozen=True, eq=False)
class Archive:
    """What an archive holds: exactly one of wins, prefs and comparisons is set.

    Attributes:
        labels: names of players, if any.
        wins: table of wins.
        prefs: win probabilities.
        comparisons: single verdicts.
        notes: plain sentences.
    """

    labels: tuple[str, ...] | None = None
    wins: Float[np.ndarray, "n n"] | None = None
    prefs: Float[np.ndarray, "n n"] | None = None
    comparisons: Comparisons | None = None
    notes: tuple[str, ...] = ()


def read_archive(path: Path, key: str | None = None) -> Archive:
    """A game from a ``.npz`` or ``.npy`` file.

    Args:
        path: the file.
        key: which game in it; needed where there are several.

    Raises:
        DataError: unreadable, no game in it, or several and no key; lists the keys.
    """
    arrays = _arrays(path)
    name, index = _pick(arrays, key, path)
    value = arrays[name] if index is None else arrays[name][index]
    if value.ndim != 2 or value.shape[0] != value.shape[1]:
        raise DataError(
            f"{path}: {name} has shape {value.shape}; a game needs a square matrix, one row and "
            "one column per player"
        )
    if value.dtype.kind not in "fiub":
        raise DataError(f"{path}: {name} holds {value.dtype}, not numbers")
    value = value.astype(np.float64)
    labels = _labels(arrays, len(value), index, path)
    if key is None and "verdict" in arrays:
        return Archive(comparisons=_verdicts(arrays["verdict"], labels, arrays, path))
    if name.startswith("wins"):
        return Archive(labels, wins=value)
    return Archive(labels, prefs=0.5 + value / 2.0 if name.startswith("margin") else value)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with explain_unreadable(path):
        try:
            # From memory: np.load leaves a damaged file open.
            loaded = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"prefs": loaded}
            with loaded:
                return {name: loaded[name] for name in loaded.files}
        except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, SyntaxError) as error:
            raise DataError(
                f"{path} is no readable NumPy file ({str(error)[:100]}); write it with "
                "numpy.savez(path, names=..., prefs=...)"
            ) from None


def _pick(arrays: dict[str, np.ndarray], key: str | None, path: Path) -> tuple[str, int | None]:
    """Name of the array that holds the game, and its place in a stack."""
    stacks = {
        str(entry): (name, i)
        for name, value in arrays.items()
        if value.ndim == 3 and name.startswith(_KINDS)
        for other in arrays.values()
        if other.ndim == 1 and other.dtype.kind == "U" and len(other) == len(value)
        for i, entry in enumerate(other)
    }
    tables = [n for n, v in arrays.items() if n.startswith(_KINDS) and v.ndim == 2]
    if key is not None:
        if key in stacks:
            return stacks[key]
        if key in arrays:
            return key, None
        games = [*tables, *stacks] or list(arrays)
        raise DataError(f"{path} has no {excerpt(key)}; it has: {', '.join(games[:40])}")
    for kind in _KINDS:
        if kind in tables:
            return kind, None
    if stacks:
        raise DataError(
            f"{path} holds {len(stacks)} games; take one of them with {path.name}:KEY, where KEY "
            f"is one of {', '.join(list(stacks)[:40])}"
        )
    single = [n for n, v in arrays.items() if v.ndim == 2 and v.dtype.kind in "fiu"]
    if len(single) == 1:
        return single[0], None
    for kind in _KINDS:
        if kind in arrays:
            return kind, None
    raise DataError(
        f"{path} holds {', '.join(list(arrays)[:20]) or 'nothing'}; a game needs an array "
        "prefs (win probabilities) or wins (counts), and names"
    )


def _labels(
    arrays: dict[str, np.ndarray], size: int, index: int | None, path: Path
) -> tuple[str, ...] | None:
    name = next((n for n in ("names", "labels") if n in arrays), None)
    if name is None:
        return None
    names = arrays[name]
    if names.ndim == 2 and index is not None:
        names = names[index]
    if names.shape != (size,):
        raise DataError(f"{path}: {name} has shape {names.shape}; {size} players need ({size},)")
    return tuple(str(v) for v in names)


def _verdicts(
    verdict: np.ndarray, labels: tuple[str, ...] | None, arrays: dict[str, np.ndarray], path: Path
) -> Comparisons:
    if verdict.ndim != 3 or labels is None or verdict.shape[:2] != (len(labels),) * 2:
        raise DataError(f"{path}: verdict has shape {verdict.shape}; needed: (n, n, prompts)")
    if not np.isin(verdict, (1, -1, 0, _NOT_JUDGED)).all():
        raise DataError(f"{path}: a verdict must be 1, -1, 0 (tie) or {_NOT_JUDGED} (none)")
    first, second, prompt = np.nonzero(verdict != _NOT_JUDGED)
    off = first != second
    first, second, prompt = first[off], second[off], prompt[off]
    given = arrays.get("prompt_ids", np.arange(verdict.shape[2]))
    if len(given) != verdict.shape[2]:
        raise DataError(f"{path}: {len(given)} prompt_ids for {verdict.shape[2]} prompts")
    none = np.full(len(first), -1, dtype=np.int64)
    return Comparisons(
        first=first,
        second=second,
        score=(verdict[first, second, prompt] + 1.0) / 2.0,
        weight=np.ones(len(first)),
        shown=np.ones(len(first), dtype=np.int64),
        prompt=prompt,
        annotator=none,
        attribute=none,
        players=labels,
        prompts=tuple(str(v) for v in given),
    )
