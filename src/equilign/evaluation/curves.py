"""What N answers are worth: the best of N independent ones, and the best of a refinement of N.

An answer has two numbers: a *choice* value by which it is picked (a reward, or its win rate
against some reference answers) and a *worth* by which the pick is judged (the same reward, or its
win rate against other answers than those that chose). Both belong to the answer alone, so that
the expected worth of the best of N can be estimated without bias from M >= N answers.
"""

import numpy as np

from equilign.errors import ConfigError


def best_of_weights(choice: np.ndarray, sizes: "list[int] | range") -> np.ndarray:
    """How probably each of M answers is the best of N of them drawn without replacement.

    The answer of rank r (1: the lowest) is the best of N with probability
    ``C(r - 1, N - 1) / C(M, N)``: the expectation over all subsets of size N, the unbiased
    estimator for the best of N independent draws. Equal values share theirs evenly.

    Args:
        choice: values that are maximised, shape ``(M,)``.
        sizes: the N.

    Returns:
        ``(len(sizes), M)``, rows sum to 1.

    Raises:
        ConfigError: N is below 1 or above M, or a value is not a number.
    """
    count = len(choice)
    if np.isnan(choice).any():
        raise ConfigError("the best of N needs a value for every answer; got nan")
    if min(sizes) < 1 or max(sizes) > count:
        raise ConfigError(f"sizes {list(sizes)} of {count} answers: each must be in 1 .. {count}")
    order = np.argsort(choice, kind="stable")
    ranks = np.arange(1, count + 1)
    law = np.zeros((len(sizes), count))
    for row, size in enumerate(sizes):
        # C(r - 1, N - 1) / C(M, N) as a ratio to the next rank: exact and never large.
        weight = size / count
        for rank in ranks[::-1]:
            law[row, order[rank - 1]] = weight
            weight *= max(rank - size, 0) / max(rank - 1, 1)
    _, place, number = np.unique(choice, return_inverse=True, return_counts=True)
    together = np.zeros((len(sizes), len(number)))
    np.add.at(together.T, place, law.T)
    return np.asarray((together / number)[:, place])


def independent_curve(
    worth: np.ndarray, choice: np.ndarray, sizes: "list[int] | range"
) -> np.ndarray:
    """Expected worth of the best of N independent answers, each prompt on its own.

    Args:
        worth: ``(prompts, M)``.
        choice: of the same shape.
        sizes: the N, at most M.

    Returns:
        ``(prompts, len(sizes))``.
    """
    rows = zip(worth, choice, strict=True)
    return np.stack([best_of_weights(c, sizes) @ w for w, c in rows])


def chain_curve(worth: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """Worth of the best of the first N answers of a refinement, mean over chains.

    An answer gives way to a later one only if that is better, so the first of equals stays.

    Args:
        worth: ``(prompts, chains, steps)``.
        choice: of the same shape.

    Returns:
        ``(prompts, steps)``, for N = 1 .. steps.
    """
    best = np.maximum.accumulate(choice, axis=2)
    fresh = np.ones(choice.shape, dtype=bool)
    fresh[:, :, 1:] = choice[:, :, 1:] > best[:, :, :-1]
    steps = np.arange(choice.shape[2])
    kept = np.maximum.accumulate(np.where(fresh, steps, 0), axis=2)
    return np.asarray(np.take_along_axis(worth, kept, axis=2).mean(axis=1))


def hit_chances(first: np.ndarray, step: np.ndarray, rounds: int) -> np.ndarray:
    """How probably a refinement of N answers contains each response, exactly.

    The chain is ``y_1 ~ first``, ``y_{i+1} ~ step[y_i]``. The chance that it has avoided response
    j so far is the mass of the chain with j's row and column taken out.

    Args:
        first: law of the first answer, shape ``(n,)``.
        step: law of the next answer, rows on the simplex, shape ``(n, n)``; rows equal to
            ``first`` are independent sampling: ``1 - (1 - first[j])^N``.
        rounds: the largest N.

    Returns:
        ``(rounds, n)``: for N = 1 .. rounds and each response.

    Raises:
        ConfigError: no round.
    """
    if rounds < 1:
        raise ConfigError(f"rounds = {rounds}; at least one answer is needed")
    size = len(first)
    found = np.zeros((rounds, size))
    for j in range(size):
        others = np.delete(np.arange(size), j)
        mass = first[others]
        for n in range(rounds):
            found[n, j] = 1.0 - mass.sum()
            mass = mass @ step[np.ix_(others, others)]
    return found
