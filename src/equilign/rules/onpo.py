"""Optimistic Nash policy optimisation (Zhang et al. 2025, arXiv:2502.16852)."""

from dataclasses import replace

from equilign.rules.omwu import OMWU_TWO_SEQUENCE

# Optimistic mirror descent with the last payoff as prediction: OMWU's two-sequence form.
ONPO = replace(
    OMWU_TWO_SEQUENCE,
    name="onpo",
    title="ONPO",
    paper="arXiv:2502.16852",
    converges_to="the unregularised Nash equilibrium: O(1/T) on average; last iterate if unique",
)
