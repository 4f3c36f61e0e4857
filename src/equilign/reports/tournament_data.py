"""The games of many prompts, small enough to stand in a page.

Texts and verdicts become one JSON object of columns, which gzip shrinks several times; the page's
script unpacks it. Texts are cut at the longest length that fits.
"""

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from equilign.errors import DataError
from equilign.files import read_jsonl
from equilign.text import visible

MOST_DATA = 4_500_000
"""Bytes of packed data in a page."""
_CUTS = tuple(round(20_000 / 1.2**n) for n in range(31))
_SAMPLE = 400
_TIE = 1e-9


@dataclass(frozen=True, eq=False)
class Sheet:
    """All answers and verdicts of a tournament.

    Attributes:
        prompts: texts.
        answers: for each player a list of answers to each prompt.
        wins: Pr(i beats j) on each prompt, ``(prompts, n, n)``; nan for no verdict.
    """

    prompts: Sequence[str]
    answers: Sequence[Sequence[Sequence[str]]]
    wins: np.ndarray

    def part(self, rows: Sequence[int]) -> "Sheet":
        """Some prompts of it."""
        picked = [[player[p] for p in rows] for player in self.answers]
        return Sheet([self.prompts[p] for p in rows], picked, self.wins[list(rows)])


def read_sheet(path: Path, names: Sequence[str]) -> Sheet:
    """The sheet in a tournament's ``prompts.jsonl``.

    Args:
        path: one prompt per line, with ``prompt, answers, win_rate``.
        names: of the players, in order.

    Raises:
        DataError: it is no such file.
    """
    rows = read_jsonl(path)
    try:
        wins = np.array([row["win_rate"] for row in rows], dtype=np.float64)
        answers = [[row["answers"][name] for row in rows] for name in names]
        sheet = Sheet([row["prompt"] for row in rows], answers, wins)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} does not hold a tournament's prompts: {error!r}") from error
    if wins.shape != (len(rows), len(names), len(names)):
        raise DataError(f"{path} holds the prompts of another tournament")
    return sheet


@dataclass(frozen=True)
class Packed:
    """A sheet in a page.

    Attributes:
        data: base64 of gzip of JSON.
        prompts: how many prompts it holds, from the first.
        cut: characters at which texts are cut.
        texts_cut: how many texts are.
    """

    data: str
    prompts: int
    cut: int
    texts_cut: int


def pack_sheet(sheet: Sheet, most: int = MOST_DATA) -> Packed:
    """The sheet in at most ``most`` bytes: texts are cut first, and prompts left out last."""
    sheet = _shown(sheet)
    count = len(sheet.prompts)
    sample = sheet.part(range(0, count, max(1, count // _SAMPLE)))
    share = count / len(sample.prompts)
    lengths = np.array([len(text) for text in _texts(sheet)])
    keep = count
    # The longest cut that cuts something, or the first that cuts nothing.
    start = max(0, sum(cut >= lengths.max() for cut in _CUTS) - 1)
    for cut in _CUTS[start:]:
        # A sample shrinks a little less well than the whole.
        if cut != _CUTS[-1] and len(_pack(sample, cut)) * share > 1.05 * most:
            continue
        data = _pack(sheet, cut)
        while len(data) > most and cut == _CUTS[-1] and keep > 1:
            keep = max(1, min(keep - 1, int(0.95 * keep * most / len(data))))
            data = _pack(sheet.part(range(keep)), cut)
        if len(data) <= most:
            break
    longer = sum(len(text) > cut for text in _texts(sheet.part(range(keep))))
    return Packed(data, keep, cut, longer)


def _shown(sheet: Sheet) -> Sheet:
    """With hidden characters made visible."""
    answers = [[[visible(text) for text in row] for row in player] for player in sheet.answers]
    return Sheet([visible(text) for text in sheet.prompts], answers, sheet.wins)


def _texts(sheet: Sheet) -> list[str]:
    return [*sheet.prompts, *(t for player in sheet.answers for row in player for t in row)]


def _pack(sheet: Sheet, cut: int) -> str:
    columns = {
        "prompts": [_clip(text, cut) for text in sheet.prompts],
        "answers": [
            [[_clip(text, cut) for text in row] for row in player] for player in sheet.answers
        ],
        "wins": _verdicts(sheet.wins),
    }
    text = json.dumps(columns, ensure_ascii=False, separators=(",", ":"))
    raw = gzip.compress(text.encode(), compresslevel=6, mtime=0)
    return base64.b64encode(raw).decode()


def _clip(text: str, cut: int) -> str:
    return text if len(text) <= cut else f"{text[:cut]}… ({len(text) - cut:,} more characters)"


def _verdicts(wins: np.ndarray) -> list[list[int]]:
    """Per pair i < j a column of thousandths; -1 for no verdict, 500 for ties only."""
    size = wins.shape[1]
    found = []
    for i in range(size):
        for j in range(i + 1, size):
            column = wins[:, i, j]
            with np.errstate(invalid="ignore"):
                whole = np.rint(1000.0 * column)
                whole = np.where((whole == 500) & (column > 0.5 + _TIE), 501, whole)
                whole = np.where((whole == 500) & (column < 0.5 - _TIE), 499, whole)
            found.append(np.where(np.isnan(column), -1, whole).astype(int).tolist())
    return found
