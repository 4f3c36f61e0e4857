"""Convergent meta alignment (Liu et al. 2024, arXiv:2410.23223)."""

from dataclasses import replace

from equilign.rules.inpo import INPO

# INPO inside; outside, the reference becomes the policy every inner_steps steps. Another inner
# rule is one more line like this.
COMAL = replace(
    INPO,
    name="comal",
    title="COMAL",
    paper="arXiv:2410.23223",
    converges_to="the unregularised Nash equilibrium, last iterate, as the reference moves",
    moves_reference=True,
)
