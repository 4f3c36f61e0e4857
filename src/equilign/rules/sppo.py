"""Self-play preference optimisation (Wu et al. 2024, arXiv:2405.00675)."""

from dataclasses import replace

from equilign.rules.mirror import Closing
from equilign.rules.mwu import MWU

# pi_{t+1} proportional to pi_t * exp(eta * P(y beats pi_t)): multiplicative weights by rounds.
SPPO = replace(
    MWU,
    name="sppo",
    title="SPPO",
    paper="arXiv:2405.00675",
    converges_to="the von Neumann winner, on average over the rounds",
)

# The same with log Z replaced by eta / 2, as the paper's loss has it. No policy satisfies the
# equation then; the loss picks the one with the least squared error under pi_t.
SPPO_CONSTANT = replace(
    SPPO,
    name="sppo-constant",
    title="SPPO, log Z = eta / 2",
    converges_to="no promise",
    closing=Closing.REGRESS,
)
