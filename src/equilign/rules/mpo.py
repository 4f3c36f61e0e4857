"""Magnetic preference optimisation (Wang et al. 2024, arXiv:2410.16714)."""

from dataclasses import replace

from equilign.rules.mmd import MMD

# The magnet becomes the policy every inner_steps steps: a proximal point loop.
MPO = replace(
    MMD,
    name="mpo",
    title="MPO",
    paper="arXiv:2410.16714",
    converges_to="the unregularised Nash equilibrium, last iterate, as the magnet moves",
    moves_reference=True,
)
