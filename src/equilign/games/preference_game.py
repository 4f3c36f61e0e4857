"""Preference games: who beats whom, and how often."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from equilign.errors import ConfigError, PolicyError, PreferenceMatrixError

_TOLERANCE = 1e-6


def check_prefs(prefs: Float[np.ndarray, "n n"]) -> None:
    """Raise unless ``prefs[i, j]`` can be Pr(response i beats response j).

    Args:
        prefs: shape ``(n, n)``.

    Raises:
        PreferenceMatrixError: an entry is outside [0, 1] or not finite, or
            ``prefs + prefs.T == 1`` fails by more than 1e-6; names the worst entry and the cure.
    """
    bad = ~(np.isfinite(prefs) & (prefs >= 0.0) & (prefs <= 1.0))
    if bad.any():
        i, j = (int(k) for k in np.argwhere(bad)[0])
        raise PreferenceMatrixError(
            f"prefs[{i}, {j}] = {prefs[i, j]} is no probability; every entry must be "
            "Pr(i beats j) in [0, 1]. Divide counts by the number of comparisons first."
        )
    error = np.abs(prefs + prefs.T - 1.0)
    i, j = (int(k) for k in np.unravel_index(int(error.argmax()), error.shape))
    if error[i, j] > _TOLERANCE:
        raise PreferenceMatrixError(
            f"prefs[i, j] must be Pr(i beats j), so prefs + prefs.T == 1; worst pair is "
            f"({i}, {j}): {prefs[i, j]:g} + {prefs[j, i]:g}. A tie counts one half on both sides."
        )


def check_policy(policy: Float[np.ndarray, " n"], size: int) -> None:
    """Raise unless ``policy`` is a distribution over ``size`` responses.

    Raises:
        PolicyError: wrong length, a negative entry, or a sum off 1 by more than 1e-6.
    """
    if policy.shape != (size,):
        raise PolicyError(f"policy has shape {policy.shape}; the game has {size} responses")
    if not np.isfinite(policy).all() or policy.min() < 0.0:
        i = int(np.argmin(np.where(np.isfinite(policy), policy, -np.inf)))
        raise PolicyError(f"policy[{i}] = {policy[i]}; probabilities must be finite and >= 0")
    if abs(float(policy.sum()) - 1.0) > _TOLERANCE:
        raise PolicyError(f"policy sums to {policy.sum():.8g}, not 1; divide it by its sum")


@dataclass(frozen=True, eq=False)
class PreferenceGame:
    """Two players each name a response; the first wins with probability ``prefs[i, j]``.

    With ``beta > 0`` each player pays ``beta * KL(policy || ref)``
    (Munos et al. 2024, arXiv:2312.00886, the regularised preference).

    Attributes:
        prefs: Pr(i beats j), shape ``(n, n)``, with ``prefs + prefs.T == 1``.
        ref: regularising policy, shape ``(n,)``; uniform when not given.
        beta: KL weight in win probability per nat, ``>= 0``.

    Raises:
        PreferenceMatrixError, PolicyError, ConfigError: see `check_prefs`, `check_policy`.
    """

    prefs: Float[np.ndarray, "n n"]
    ref: Float[np.ndarray, " n"] | None = None
    beta: float = 0.0

    def __post_init__(self) -> None:
        prefs = np.asarray(self.prefs, dtype=np.float64)
        if prefs.ndim != 2 or prefs.shape[0] != prefs.shape[1] or prefs.shape[0] == 0:
            raise PreferenceMatrixError(
                f"prefs has shape {prefs.shape}; a game needs a square matrix, one row per response"
            )
        check_prefs(prefs)
        size = prefs.shape[0]
        ref = np.full(size, 1.0 / size) if self.ref is None else np.asarray(self.ref, np.float64)
        check_policy(ref, size)
        if not (np.isfinite(self.beta) and self.beta >= 0.0):
            raise ConfigError(f"beta = {self.beta}; the KL weight must be finite and >= 0")
        # The margin is made exactly skew, so that the value of the game is exactly 1/2.
        object.__setattr__(self, "prefs", 0.5 + (prefs - prefs.T) / 2.0)
        object.__setattr__(self, "ref", ref)

    @property
    def size(self) -> int:
        """Number of responses."""
        return int(self.prefs.shape[0])

    def win_rates(self, opponent: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Pr(each response beats a draw from ``opponent``), shape ``(n,)``."""
        return self.prefs @ opponent
