"""Optimistic gradient descent ascent (Wei et al. 2021, arXiv:2006.09517): OMWU's step in Euclid."""

from dataclasses import replace

from equilign.rules.mirror import Closing
from equilign.rules.omwu import OMWU

# pi_{t+1} = projection of pi_t + eta * (2 p_t - p_{t-1}).
OGDA = replace(
    OMWU,
    name="ogda",
    title="OGDA",
    paper="arXiv:2006.09517",
    converges_to="the unregularised Nash equilibrium set, last iterate, linear rate",
    closing=Closing.PROJECT,
)
