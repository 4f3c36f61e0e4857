"""Vertices of the equilibrium set by pivoting: the fastest exact solver of small games.

``max sum(y) : B y <= 1, y >= 0`` with ``B = 1/2 + A / (2 max|A|)`` needs no first phase, and its
solutions divided by their sum are the equilibria of the skew margin ``A``. The tableau is kept
condensed (non-basic columns only), so that what is left of it at the end contains the inverse of
the basis, with which the answer is refined on the original numbers.
"""

import numpy as np

from equilign.compiled import kernel, over_games, strict_kernel
from equilign.kernels import payoffs

Array = np.ndarray

NOT_UNIQUE, UNIQUE, FAILED = 0, 1, 2
"""What is known of a game after pivoting."""

_TIE = 1e-13
"""Weights, and slacks in units of the largest margin, below which they count as zero."""

_LEAST = 1e-11
"""Entries of the tableau below which they are taken for rounding."""


@strict_kernel
def _players(exist: Array, x: int, size: int, where: Array) -> int:
    """Write down the existing responses of game x; returns their number."""
    count = 0
    for i in range(size):
        if exist.shape[0] == 0 or exist[x, i]:
            where[count] = i
            count += 1
    return count


@strict_kernel
def _gather(prefs: Array, x: int, where: Array, margin: Array) -> float:
    """Exactly skew float64 margin of game x; returns its largest entry."""
    scale = 0.0
    for a in range(len(where)):
        i = where[a]
        margin[a, a] = 0.0
        for b in range(a):
            j = where[b]
            half = (np.float64(prefs[x, i, j]) - np.float64(prefs[x, j, i])) / 2.0
            margin[a, b] = half
            margin[b, a] = -half
            scale = max(scale, abs(half))
    return scale


@kernel
def _exchange(table: Array, row: int, column: int, pivot: Array) -> None:
    """One pivot of the condensed tableau; ``pivot`` is a buffer, so that loops become SIMD."""
    width = len(table)
    inverse = 1.0 / table[row, column]
    for j in range(width):
        pivot[j] = table[row, j]
    pivot[column] = 0.0
    for i in range(width):
        line = table[i]
        factor = line[column] * inverse
        if factor != 0.0:
            for j in range(width):
                line[j] -= factor * pivot[j]
        line[column] = -factor
    line = table[row]
    for j in range(width):
        line[j] = pivot[j] * inverse
    line[column] = inverse


@strict_kernel
def _entering(table: Array, columns: Array, careful: bool) -> int:
    best, chosen = -_LEAST, -1
    costs = table[len(columns)]
    for j in range(len(columns)):
        if careful:  # Bland: the lowest name among those that improve
            if costs[j] < -_LEAST and (chosen < 0 or columns[j] < columns[chosen]):
                chosen = j
        elif costs[j] < best:
            best, chosen = costs[j], j
    return chosen


@strict_kernel
def _leaving(table: Array, column: int, rows: Array, careful: bool) -> int:
    size = len(rows)
    best, chosen = np.inf, -1
    for i in range(size):
        entry = table[i, column]
        if entry <= _LEAST:
            continue
        ratio = max(table[i, size], 0.0) / entry
        if chosen < 0 or ratio < best - 1e-12:
            best, chosen = ratio, i
        elif ratio <= best + 1e-12:
            better = rows[i] < rows[chosen] if careful else entry > table[chosen, column]
            if better:
                best, chosen = min(best, ratio), i
    return chosen


@strict_kernel
def _optimum(margin: Array, scale: float, table: Array, names: Array, buffer: Array) -> bool:
    """Pivot to the optimum; False when that takes suspiciously long."""
    size = len(margin)
    rows, columns = names[0], names[1]
    for i in range(size):
        for j in range(size):
            table[i, j] = 0.5 + 0.5 * margin[i, j] / scale
        table[i, size] = 1.0
        table[size, i] = -1.0
        rows[i] = size + i
        columns[i] = i
    table[size, size] = 0.0
    for pivots in range(60 * size + 100):
        careful = pivots > 10 * size + 20  # from then on a cycle is impossible
        column = _entering(table, columns, careful)
        if column < 0:
            return True
        row = _leaving(table, column, rows, careful)
        if row < 0:
            return False
        _exchange(table, row, column, buffer)
        rows[row], columns[column] = columns[column], rows[row]
    return False


@strict_kernel
def _normalise(policy: Array, least: float) -> None:
    total = 0.0
    for i in range(len(policy)):
        if policy[i] < least:
            policy[i] = 0.0
        total += policy[i]
    for i in range(len(policy)):
        policy[i] /= total


@kernel
def _correct(table: Array, names: Array, policy: Array, step: Array) -> None:
    """``policy -= inverse of the basis @ step``, where ``step`` belongs to the tight rows."""
    rows, columns = names[0], names[1]
    size = len(rows)
    for i in range(size):
        if rows[i] < size:
            line = table[i]
            change = 0.0
            for j in range(size):
                if columns[j] >= size:
                    change += line[j] * step[columns[j] - size]
            policy[rows[i]] -= change


@strict_kernel
def _refine(margin: Array, scale: float, table: Array, names: Array, vectors: Array) -> None:
    """The vertex of this basis from the original margin: tight rows are driven to payoff 0."""
    size = len(margin)
    policy, payoff, step = vectors[0], vectors[1], vectors[2]
    policy[:] = 0.0
    for i in range(size):
        if names[0, i] < size:
            policy[names[0, i]] = table[i, size]
    _normalise(policy, 0.0)
    for _ in range(2):
        payoffs(margin, policy, payoff)
        for i in range(size):
            step[i] = payoff[i] * 0.5 / scale
        _correct(table, names, policy, step)
        _normalise(policy, 0.0)
    _normalise(policy, _TIE)
    payoffs(margin, policy, payoff)


@strict_kernel
def _verdict(scale: float, policy: Array, payoff: Array) -> int:
    """Unique if and only if every response outside the support loses strictly (a vertex)."""
    verdict = UNIQUE
    for i in range(len(policy)):
        if not payoff[i] <= _TIE * scale:
            return FAILED
        if policy[i] == 0.0 and payoff[i] > -_TIE * scale:
            verdict = NOT_UNIQUE
    return verdict


@strict_kernel
def _solve(
    prefs: Array,
    exist: Array,
    games: Array,
    span: tuple[int, int],
    out: tuple[Array, Array, Array],
) -> None:
    most = prefs.shape[1]
    squares, table_space = np.empty(most * most), np.empty((most + 1) * (most + 1))
    where, labels = np.empty(most, np.int64), np.empty(2 * most, np.int64)
    lines, buffer = np.empty(3 * most), np.empty(most + 1)
    policies, gains, verdicts = out
    for k in range(span[0], span[1]):
        size = _players(exist, games[k], most, where)
        margin = squares[: size * size].reshape(size, size)
        table = table_space[: (size + 1) * (size + 1)].reshape(size + 1, size + 1)
        names, vectors = labels[: 2 * size].reshape(2, size), lines[: 3 * size].reshape(3, size)
        scale = _gather(prefs, games[k], where[:size], margin)
        if scale == 0.0:  # nothing beats anything: the first response is a vertex
            vectors[:] = 0.0
            vectors[0, 0] = 1.0
            verdict = UNIQUE if size == 1 else NOT_UNIQUE
        else:
            solved = _optimum(margin, scale, table, names, buffer)
            _refine(margin, scale, table, names, vectors)
            verdict = _verdict(scale, vectors[0], vectors[1]) if solved else FAILED
        policies[k] = 0.0
        gains[k], verdicts[k] = max(vectors[1].max(), 0.0), verdict
        for i in range(size):
            policies[k, where[i]] = vectors[0, i]


def vertices(prefs: Array, exist: Array, games: Array) -> tuple[Array, Array, Array]:
    """A vertex of the equilibrium set of each of the numbered games.

    Args:
        prefs: shape ``(X, n, n)``, float32 or float64, not copied.
        exist: which responses exist, shape ``(X, n)``, or ``(0, n)`` for all of them.
        games: numbers of the games to solve, shape ``(G,)``.

    Returns:
        Policies ``(G, n)``; what a best response gains against each, ``(G,)``; and `UNIQUE`,
        `NOT_UNIQUE` or `FAILED` for each, ``(G,)``.

    References:
        Dantzig 1951, "A proof of the equivalence of the programming problem and the game
        problem"; uniqueness by strict complementarity, Goldman and Tucker 1956.
    """
    size = prefs.shape[1]
    out = np.empty((len(games), size)), np.empty(len(games)), np.empty(len(games), dtype=np.int8)

    def work(start: int, stop: int) -> None:
        _solve(prefs, exist, games, (start, stop), out)

    over_games(work, len(games), least=max(1, 20_000 // size**3))
    return out
