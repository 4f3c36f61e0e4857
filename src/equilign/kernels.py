"""Compiled pieces that several packages share."""

import math

import numpy as np

from equilign.compiled import kernel, strict_kernel

Array = np.ndarray

LEAST = -690.0
"""Exponents are raised to this: below it exp is denormal, slow, and soon exactly 0."""

_LOG2E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10


@strict_kernel
def exp(x: float) -> float:
    """``exp(x)`` for ``-690 <= x <= 0``, to about one ulp, as straight code that becomes SIMD."""
    k = math.floor(x * _LOG2E + 0.5)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = (p * r) * r + r + 1.0
    return p * np.int64((np.int64(k) + 1023) << 52).view(np.float64)


@kernel
def payoffs(margin: Array, policy: Array, payoff: Array) -> None:
    """``payoff = margin @ policy`` of one game."""
    for i in range(len(margin)):
        line = margin[i]
        total = 0.0
        for j in range(len(margin)):
            total += line[j] * policy[j]
        payoff[i] = total
