"""What a game and a policy must satisfy, and the messages when they do not."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from equilign.errors import DataError, PolicyError, PreferenceMatrixError

TOLERANCE = 1e-6
"""How far ``prefs + prefs.T`` and the sum of a policy may be off 1."""


def check_prefs(
    prefs: Float[np.ndarray, "*batch n n"],
    mask: Bool[np.ndarray, "x n"] | None = None,
    first: int = 0,
) -> None:
    """Raise unless ``prefs[..., i, j]`` can be Pr(response i beats response j).

    Args:
        prefs: shape ``(n, n)`` or ``(X, n, n)``.
        mask: which responses exist; entries off the mask are not looked at.
        first: number of the first game, for the message.

    Raises:
        PreferenceMatrixError: an entry is outside [0, 1] or not finite, or
            ``prefs + prefs.T == 1`` fails by more than 1e-6; names the entry and the cure.
    """
    bad = ~((prefs >= 0.0) & (prefs <= 1.0))  # nan fails both comparisons
    if mask is not None:
        bad &= mask[:, :, None] & mask[:, None, :]
    if bad.any():
        where = tuple(int(k) for k in np.argwhere(bad)[0])
        raise PreferenceMatrixError(
            f"{_entry(where, first)} = {prefs[where]} is no probability; every entry must be "
            "Pr(i beats j) in [0, 1]. Divide counts by the number of comparisons first."
        )
    error = np.abs(prefs + prefs.swapaxes(-1, -2) - 1.0)
    if mask is not None:
        error[~(mask[:, :, None] & mask[:, None, :])] = 0.0
    where = tuple(int(k) for k in np.unravel_index(int(error.argmax()), error.shape))
    if error[where] > TOLERANCE:
        i, j = where[-2:]
        game = f" in game {first + where[0]}" if prefs.ndim == 3 else ""
        other = prefs[(*where[:-2], j, i)]
        raise PreferenceMatrixError(
            f"prefs[i, j] must be Pr(i beats j), so prefs + prefs.T == 1; worst pair{game} is "
            f"({i}, {j}): {prefs[where]:g} + {other:g}. A tie counts one half on both sides."
        )


def _entry(where: tuple[int, ...], first: int) -> str:
    shown = (first + where[0], *where[1:]) if len(where) == 3 else where
    return f"prefs[{', '.join(str(k) for k in shown)}]"


def check_policy(
    policy: Float[np.ndarray, "*batch n"],
    shape: int | tuple[int, ...],
    mask: Bool[np.ndarray, "x n"] | None = None,
) -> None:
    """Raise unless ``policy`` is a distribution over the responses of each game.

    Args:
        policy: shape ``(n,)`` or ``(X, n)``.
        shape: the shape it must have; a number stands for ``(n,)``.
        mask: which responses exist.

    Raises:
        PolicyError: wrong shape, a negative entry, a sum off 1 by more than 1e-6, or mass on a
            response that does not exist.
    """
    wanted = (shape,) if isinstance(shape, int) else shape
    if policy.shape != wanted:
        size = f"{wanted[0]} responses" if len(wanted) == 1 else f"policies of shape {wanted}"
        raise PolicyError(f"policy has shape {policy.shape}; the game has {size}")
    bad = ~(np.isfinite(policy) & (policy >= 0.0))
    if bad.any():
        worst = np.where(np.isfinite(policy), policy, -np.inf).argmin()
        where = tuple(int(k) for k in np.unravel_index(worst, policy.shape))
        raise PolicyError(
            f"policy[{', '.join(map(str, where))}] = {policy[where]}; "
            "probabilities must be finite and >= 0"
        )
    if mask is not None and (policy[~mask] > 0.0).any():
        x, i = (int(k) for k in np.argwhere(~mask & (policy > 0.0))[0])
        raise PolicyError(f"policy[{x}, {i}] = {policy[x, i]}, but game {x} has no response {i}")
    error = np.abs(policy.sum(axis=-1) - 1.0)
    if error.max() > TOLERANCE:
        x = int(error.argmax())
        total = float(np.atleast_2d(policy)[x].sum())
        which = "policy" if policy.ndim == 1 else f"policy[{x}]"
        raise PolicyError(f"{which} sums to {total:.8g}, not 1; divide it by its sum")


def check_mask(mask: np.ndarray, prefs_shape: tuple[int, ...]) -> Bool[np.ndarray, "x n"]:
    """The mask as booleans.

    Raises:
        PreferenceMatrixError: it does not belong to a batch, has another shape, or leaves a game
            without responses.
    """
    if len(prefs_shape) != 3:
        raise PreferenceMatrixError(
            "a mask needs a batch, prefs of shape (X, n, n); a single game leaves responses out "
            "by having fewer rows and columns"
        )
    mask = np.asarray(mask)
    if mask.dtype != np.bool_ or mask.shape != prefs_shape[:2]:
        raise PreferenceMatrixError(
            f"mask has shape {mask.shape} and type {mask.dtype}; needed: {prefs_shape[:2]}, bool"
        )
    empty = np.flatnonzero(~mask.any(axis=1))
    if empty.size:
        raise PreferenceMatrixError(f"the mask leaves game {empty[0]} without a response")
    return mask


def check_labels(labels: Sequence[str], size: int) -> tuple[str, ...]:
    """The labels as a tuple.

    Raises:
        DataError: not one per response, one is empty or no text, or two are the same.
    """
    names = tuple(labels)
    if len(names) != size:
        raise DataError(f"{len(names)} labels for {size} responses; give one each")
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"label {i} is {name!r}; every response needs a name")
        if name in seen:
            raise DataError(f"labels {seen[name]} and {i} are both {name!r}; names must differ")
        seen[name] = i
    return names
