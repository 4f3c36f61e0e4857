"""The matrices and closed-form equilibria behind `equilign.games.named`."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from equilign.errors import ConfigError
from equilign.games.preference_game import PreferenceGame

ROCK_PAPER_SCISSORS = ("rock", "paper", "scissors")


def check_size(n: int, least: int = 1, odd: bool = False) -> int:
    """``n`` as a number of responses.

    Raises:
        ConfigError: not a whole number, below ``least``, or even where it must be odd.
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < least:
        raise ConfigError(f"n = {n!r}; a whole number of responses, at least {least}, is needed")
    if odd and n % 2 == 0:
        raise ConfigError(f"n = {n}; this game needs an odd number of responses")
    return int(n)


def check_win(win: float, name: str = "win") -> float:
    """``win`` as the probability with which a favourite wins, in (1/2, 1].

    Raises:
        ConfigError: it is outside.
    """
    if not 0.5 < win <= 1.0:
        raise ConfigError(f"{name} = {win}; the probability of the winner, in (0.5, 1], is needed")
    return float(win)


def generator(seed: int) -> np.random.Generator:
    """Random numbers of a seed.

    Raises:
        ConfigError: the seed is not a whole number ``>= 0``.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ConfigError(f"seed = {seed!r}; a whole number >= 0 is needed")
    return np.random.default_rng(int(seed))


def numbered(n: int) -> tuple[str, ...]:
    """Labels ``a1, a2, ...``."""
    return tuple(f"a{i + 1}" for i in range(n))


def cycle(
    margins: Sequence[float], labels: tuple[str, str, str], beaten_by_next: bool = False
) -> PreferenceGame:
    """Three responses, each of which beats the next one (or is beaten by it)."""
    skew = np.zeros((3, 3))
    for i, margin in enumerate(margins):
        skew[i, (i + 1) % 3] = -margin if beaten_by_next else margin
    return PreferenceGame(0.5 + skew - skew.T, labels=labels)


def rock_paper_scissors(*, win: float = 1.0) -> PreferenceGame:
    """Paper beats rock, scissors beat paper, rock beats scissors, each with ``win``."""
    return cycle([check_win(win) - 0.5] * 3, ROCK_PAPER_SCISSORS, beaten_by_next=True)


def weighted_rock_paper_scissors(
    *, paper: float = 0.9, scissors: float = 0.7, rock: float = 0.6
) -> PreferenceGame:
    """Each of the three wins its duel with a probability of its own."""
    wins = [check_win(paper, "paper"), check_win(scissors, "scissors"), check_win(rock, "rock")]
    return cycle([win - 0.5 for win in wins], ROCK_PAPER_SCISSORS, beaten_by_next=True)


def weighted_rock_paper_scissors_solution(
    *, paper: float = 0.9, scissors: float = 0.7, rock: float = 0.6
) -> Float[np.ndarray, " 3"]:
    """Each one as often as the margin of the duel between the other two says."""
    weights = np.array([scissors - 0.5, rock - 0.5, paper - 0.5])
    return weights / weights.sum()


def condorcet_cycle(*, win: float = 0.9) -> PreferenceGame:
    """A beats B, B beats C, C beats A, each with probability ``win``."""
    return cycle([check_win(win) - 0.5] * 3, ("A", "B", "C"))


def rock_paper_scissors_solution(*, win: float = 1.0) -> Float[np.ndarray, " 3"]:
    """Uniform, whatever ``win``."""
    check_win(win)
    return np.full(3, 1.0 / 3.0)


def condorcet_cycle_solution(*, win: float = 0.9) -> Float[np.ndarray, " 3"]:
    """Uniform, whatever ``win``."""
    check_win(win)
    return np.full(3, 1.0 / 3.0)


def comal() -> PreferenceGame:
    """P(b > a) = P(c > b) = 0.9, P(a > c) = 0.8."""
    return PreferenceGame(
        np.array([[0.5, 0.1, 0.8], [0.9, 0.5, 0.1], [0.2, 0.9, 0.5]]), labels=("a", "b", "c")
    )


def comal_solution() -> Float[np.ndarray, " 3"]:
    """(4, 3, 4) / 11."""
    return np.array([4.0, 3.0, 4.0]) / 11.0


def condorcet_winner() -> PreferenceGame:
    """``a`` beats both others."""
    return PreferenceGame(
        np.array([[0.5, 0.6, 0.7], [0.4, 0.5, 0.8], [0.3, 0.2, 0.5]]), labels=("a", "b", "c")
    )


def favourite_loses(*, narrow: float = 0.52, wide: float = 0.95) -> PreferenceGame:
    """``sound`` beats everyone narrowly; ``flashy`` loses to it and crushes the rest."""
    small, big = check_win(narrow, "narrow") - 0.5, check_win(wide, "wide") - 0.5
    skew = np.zeros((4, 4))
    skew[0, 1:] = small
    skew[1, 2:] = big
    return PreferenceGame(0.5 + skew - skew.T, labels=("sound", "flashy", "plain", "poor"))


def first_of(size: int) -> Float[np.ndarray, " n"]:
    """All mass on the first of ``size`` responses."""
    return np.eye(size)[0]


def bradley_terry(
    *, scores: Sequence[float] | None = None, n: int = 8, seed: int = 0
) -> PreferenceGame:
    """Scores in nats, or ``n`` standard normal ones."""
    return PreferenceGame.from_scores(
        drawn := _scores(scores, n, seed), labels=numbered(len(drawn))
    )


def bradley_terry_solution(
    *, scores: Sequence[float] | None = None, n: int = 8, seed: int = 0
) -> Float[np.ndarray, " n"]:
    """The highest score; equal ones in equal shares."""
    drawn = _scores(scores, n, seed)
    best = drawn == drawn.max()
    return best / best.sum()


def _scores(scores: Sequence[float] | None, n: int, seed: int) -> np.ndarray:
    if scores is not None:
        try:
            given = np.asarray(scores, dtype=np.float64)
        except (TypeError, ValueError):
            raise ConfigError(f"scores = {scores!r}; a list of numbers is needed") from None
        if given.ndim != 1 or given.size == 0:
            raise ConfigError(f"scores = {scores!r}; a list of numbers, one per response")
        return given
    return generator(seed).normal(size=check_size(n))


def majority_of_annotators(*, confidence: float = 1.0) -> PreferenceGame:
    """Three annotators rank ABC, BCA and CAB; each says so with probability ``confidence``."""
    sure = check_win(confidence, "confidence")
    annotators = [
        np.where(order[:, None] < order[None, :], sure, 1.0 - sure) for order in _ROTATIONS
    ]
    for prefs in annotators:
        np.fill_diagonal(prefs, 0.5)
    return PreferenceGame.from_annotators(annotators, labels=("A", "B", "C"))


_ROTATIONS = np.array([[0, 1, 2], [2, 0, 1], [1, 2, 0]])


def majority_solution(*, confidence: float = 1.0) -> Float[np.ndarray, " 3"]:
    """Uniform, whatever ``confidence``."""
    check_win(confidence, "confidence")
    return np.full(3, 1.0 / 3.0)


def rotational(*, n: int = 5, win: float = 1.0) -> PreferenceGame:
    """``n`` responses on a ring, odd; each beats the ``(n - 1) / 2`` that follow it."""
    size, margin = check_size(n, 3, odd=True), check_win(win) - 0.5
    ahead = (np.arange(size)[None, :] - np.arange(size)[:, None]) % size
    skew = np.where(ahead == 0, 0.0, np.where(ahead <= size // 2, margin, -margin))
    return PreferenceGame(0.5 + skew, labels=numbered(size))


def rotational_solution(*, n: int = 5, win: float = 1.0) -> Float[np.ndarray, " n"]:
    """Uniform: every response wins as often as it loses."""
    check_win(win)
    return np.full(check_size(n, 3, odd=True), 1.0 / n)


def clones(*, copies: int = 3, win: float = 1.0) -> PreferenceGame:
    """Rock-paper-scissors in which rock stands ``copies`` times."""
    count = check_size(copies, 1)
    kinds = np.array([0] * count + [1, 2])
    prefs = rock_paper_scissors(win=win).prefs[np.ix_(kinds, kinds)]
    rocks = tuple(f"rock {i + 1}" for i in range(count))
    return PreferenceGame(prefs, labels=(*rocks, "paper", "scissors"))


def clones_solution(*, copies: int = 3, win: float = 1.0) -> Float[np.ndarray, " n"]:
    """A third for each kind; the copies share theirs equally (any other split is one as well)."""
    check_win(win)
    count = check_size(copies, 1)
    return np.array([1.0 / (3 * count)] * count + [1.0 / 3.0] * 2)


def all_ties(*, n: int = 4) -> PreferenceGame:
    """Nobody is better than anybody."""
    return PreferenceGame(np.full((check_size(n), n), 0.5), labels=numbered(n))


def all_ties_solution(*, n: int = 4) -> Float[np.ndarray, " n"]:
    """Uniform, as any other policy."""
    return np.full(check_size(n), 1.0 / n)


def tournament(*, n: int = 9, win: float = 1.0, seed: int = 0) -> PreferenceGame:
    """Each pair's winner is drawn by a fair coin and wins with probability ``win``."""
    size, margin = check_size(n), check_win(win) - 0.5
    coin = np.where(generator(seed).random((size, size)) < 0.5, margin, -margin)
    lower = np.tril(coin, -1)
    return PreferenceGame(0.5 + lower - lower.T, labels=numbered(size))


def random(*, n: int = 10, seed: int = 0) -> PreferenceGame:
    """Win probabilities below the diagonal are uniform in [0, 1]."""
    size = check_size(n)
    lower = np.tril(generator(seed).random((size, size)) - 0.5, -1)
    return PreferenceGame(0.5 + lower - lower.T, labels=numbered(size))


def full_support(*, n: int = 11, seed: int = 0) -> PreferenceGame:
    """A random game in which every response is played at equilibrium."""
    x, rng = _interior(n, seed)
    noise = rng.normal(size=(n, n))
    project = np.eye(n) - np.outer(x, x) / (x @ x)
    skew = noise - noise.T
    for _ in range(2):  # what rounding leaves of the first projection grows with the scaling
        skew = project @ skew @ project
        skew /= 2.0 * np.abs(skew).max()
    return PreferenceGame(0.5 + (skew - skew.T) / 2.0, labels=numbered(n))


def full_support_solution(*, n: int = 11, seed: int = 0) -> Float[np.ndarray, " n"]:
    """The interior equilibrium the game was built around; for odd ``n`` the only one."""
    return _interior(n, seed)[0]


def _interior(n: int, seed: int) -> tuple[np.ndarray, np.random.Generator]:
    rng = generator(seed)
    return rng.dirichlet(np.full(check_size(n, 3), 5.0)), rng
