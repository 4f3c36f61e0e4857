"""Lines of the output: the kept answers, and what the summary is made from."""

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from equilign.evaluation.refine import Chain
from equilign.experiments.refine.chunks import Desk, Refined
from equilign.experiments.refine.source import fingerprint, parse_line
from equilign.files import sync_folder


def output_row(desk: Desk, found: Refined) -> dict[str, Any]:
    """A prompt's line.

    The row's own columns stay. The kept answers are in the column that it had them in: `output`
    beside `instruction`; else `completion` where one answer is kept and `completions` where
    several are. `refinement` holds numbers, a list per chain, and says
    from which row they were made.
    """
    row, config = found.row, desk.config
    kept = [answer for i in range(len(found.chains)) for answer in _kept(config.keep, found, i)]
    result: dict[str, Any] = {} if row.alpaca else {"prompt": row.prompt}
    result |= row.columns
    if row.alpaca and len(kept) == 1:
        result["output"] = kept[0]
        if isinstance(result.get("generator"), str):
            result["generator"] += f", refined by {config.follower}"
    elif len(kept) == 1:
        result["completion"] = kept[0]
    else:
        result["completions"] = kept
    result["refinement"] = _numbers(desk, found)
    return result


def _kept(keep: str, found: Refined, index: int) -> list[str]:
    texts = found.chains[index].texts
    if keep == "all":
        return list(texts)
    picked = None
    if keep == "best" and found.verdicts is not None:
        picked = found.verdicts[index]["picked"]
    # Where the oracle said nothing at all, the last answer is as good a choice as any.
    return [texts[-1 if picked is None else picked]]


def _numbers(desk: Desk, found: Refined) -> dict[str, Any]:
    chains = found.chains
    numbers: dict[str, Any] = {
        "input": fingerprint([found.row]),
        "tokens": [[desk.count_tokens(t) for t in c.texts] for c in chains],
        "empty": [[not t.strip() for t in c.texts] for c in chains],
        "cut": [[not a.finished for a in c.answers] for c in chains],
        "unchanged": [_unchanged(c) for c in chains],
        "stopped": [c.stopped for c in chains],
    }
    if found.verdicts is not None:
        for name in found.verdicts[0]:
            numbers[name] = [v[name] for v in found.verdicts]
    return numbers


def _unchanged(chain: Chain) -> list[bool]:
    """Whether the Follower was asked in each round and gave back the answer that it was shown."""
    asked = chain.rounds if chain.stopped is None else chain.stopped - 1
    return [a == b and n < asked for n, (a, b) in enumerate(pairwise(chain.texts))]


class Lines:
    """A file of JSON lines that grows by whole lines and survives a kill at any byte.

    Args:
        path: made if missing; a last line that a kill has cut is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        sync_folder(path.parent)
        whole = whole_bytes(path)
        # Unbuffered: a write that failed must not be tried again by the next one or by close.
        self._handle = path.open("ab", buffering=0)
        self._handle.truncate(whole)
        self._end = whole

    def append(self, lines: Sequence[bytes]) -> None:
        """Write lines; all are on disk when this returns."""
        try:
            rest = memoryview(b"".join(lines))
            while rest:
                rest = rest[self._handle.write(rest) :]
            os.fsync(self._handle.fileno())
        except OSError:
            os.truncate(self.path, self._end)
            raise
        self._end = self.path.stat().st_size

    def close(self) -> None:
        """Close the file."""
        self._handle.close()


def whole_bytes(path: Path) -> int:
    """Length of the file up to its last line break; 0 if there is none."""
    if not path.exists():
        return 0
    size = path.stat().st_size
    with path.open("rb") as handle:
        for end in range(size, 0, -_BLOCK):
            begin = max(0, end - _BLOCK)
            handle.seek(begin)
            at = handle.read(end - begin).rfind(b"\n")
            if at >= 0:
                return begin + at + 1
    return 0


_BLOCK = 1 << 16


def written(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The whole lines of an output file, as they are and as objects.

    Raises:
        DataError: a line is no JSON object.
    """
    left = whole_bytes(path)
    if not left:
        return
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            left -= len(line)
            if left < 0:
                return
            yield line, parse_line(line.decode("utf-8"), f"{path}, line {number}")
