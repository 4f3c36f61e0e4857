"""Networks with 100 responses: the same comparison with parameters in between."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from equilign.experiments.omwu.contestants import Contestant
from equilign.experiments.omwu.curves import band, lasting_arrival, log_steps, plain, quantiles
from equilign.experiments.omwu.families import Family, draw_games
from equilign.experiments.omwu.scales import Scale
from equilign.games import PreferenceGame

NEURAL = 4
"""Stream of games."""

ETA = 1.0
"""With one gradient step per mirror step only ``eta * learning_rate`` matters when ``beta = 0``."""


@dataclass(frozen=True)
class NeuralContestant(Contestant):
    """A contestant whose steps are gradient steps on a network.

    Attributes:
        gradient_steps: on each stage's target.
        networks: ``own``, one per game, or ``shared`` by all games of a batch, as in EGPO's code.
    """

    gradient_steps: int = 1
    networks: str = "own"


NEURAL_CONTESTANTS: tuple[NeuralContestant, ...] = (
    NeuralContestant("omwu", "OMWU", "omwu"),
    NeuralContestant("omwu-average", "OMWU, average", "omwu", iterate="average"),
    NeuralContestant("mwu", "MWU = SPPO", "mwu"),
    NeuralContestant("mwu-average", "MWU = SPPO, average", "mwu", iterate="average"),
    NeuralContestant("omd", "OMD", "omd", beta=0.01, kind="regularised"),
    NeuralContestant("nash-md", "Nash-MD", "nash-md", beta=0.01, kind="regularised"),
    NeuralContestant("egpo", "EGPO", "egpo", beta=0.01, kind="regularised"),
    NeuralContestant("mpo", "MPO, 10 inner steps", "mpo", beta=0.1, kind="nested"),
    NeuralContestant("comal", "COMAL, 10 inner steps", "comal", beta=0.1, kind="nested"),
    NeuralContestant(
        "comal-fit",
        "COMAL, 10 inner x 10 gradient steps",
        "comal",
        beta=0.1,
        kind="nested",
        gradient_steps=10,
    ),
    NeuralContestant("mwu-fit", "SPPO, 10 gradient steps", "mwu", kind="nested", gradient_steps=10),
    NeuralContestant("omwu-shared", "OMWU, one network", "omwu", networks="shared"),
    NeuralContestant(
        "egpo-shared", "EGPO, one network", "egpo", beta=0.01, kind="regularised", networks="shared"
    ),
)
"""What is trained. Every method gets the same number of gradient steps, and pays for its calls."""


def study_networks(
    family: Family, scale: Scale, seed: int, tell: Callable[[int, int], None]
) -> dict[str, Any]:
    """Train every contestant with every learning rate; rates are chosen on every other game.

    Args:
        family: kind of game, taken with the scale's number of responses.
        scale: sizes.
        seed: of games and networks.
        tell: called with done and total.

    Returns:
        ``sweep`` (final gaps per learning rate, all games) and ``contestants`` (chosen rate, and
        results on the games that did not choose it).
    """
    game, _ = draw_games(family, scale.neural_games, seed, NEURAL, scale.neural_responses)
    sweep: list[dict[str, Any]] = []
    found: dict[str, dict[str, Any]] = {}
    trained: dict[tuple[Any, ...], tuple[np.ndarray, dict[str, np.ndarray]]] = {}
    for number, contestant in enumerate(NEURAL_CONTESTANTS):
        shared = contestant.networks == "shared"
        rates = scale.shared_rates if shared else scale.neural_rates
        # Both iterates of a method are read off one run.
        run = (contestant.rule, contestant.beta, contestant.gradient_steps, shared)
        if run not in trained:
            trained[run] = _train(game, contestant, rates, scale.neural_calls, seed)
        steps, gaps = trained[run]
        found[contestant.key] = _results(contestant, rates, steps, gaps, sweep)
        tell(number + 1, len(NEURAL_CONTESTANTS))
    return {
        "title": f"{family.title.split(',')[0]}, n = {scale.neural_responses}",
        "n": scale.neural_responses,
        "games": scale.neural_games,
        "gradient_steps": scale.neural_calls,
        "sweep": sweep,
        "contestants": found,
    }


def _train(
    game: PreferenceGame,
    contestant: NeuralContestant,
    rates: tuple[float, ...],
    budget: int,
    seed: int,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Gaps ``(rates, games, R)`` by iterate: one batch holds the games once per rate."""
    import torch  # only this part of the experiment needs it

    from equilign.neural import MLPPolicy, train_policy

    torch.set_num_threads(1)
    games, copies = len(game), len(rates)
    own = games if contestant.networks == "own" else 1
    policy = MLPPolicy(games * copies, game.size, seed=seed, networks=own * copies, starts=own)
    prefs = np.concatenate([game.prefs] * copies)
    per_step = contestant.gradient_steps * len(contestant.mirror_rule.stages)
    steps = max(1, budget // per_step)
    run = train_policy(
        policy,
        # As in EGPO's simulations the reference is the start policy.
        PreferenceGame(prefs, np.exp(policy.log_policy())),
        contestant.mirror_rule,
        steps=steps,
        eta=ETA,
        beta=contestant.beta,
        inner_steps=contestant.inner,
        gradient_steps=contestant.gradient_steps,
        learning_rate=np.repeat(rates, games),
        record=log_steps(steps, 60),
    )
    shape = (copies, games, -1)
    gaps = {
        "last": run.duality_gap.reshape(shape),
        "average": run.average_duality_gap.reshape(shape),
    }
    return run.steps * per_step, gaps


def _results(
    contestant: NeuralContestant,
    rates: tuple[float, ...],
    steps: np.ndarray,
    gaps: dict[str, np.ndarray],
    sweep: list[dict[str, Any]],
) -> dict[str, Any]:
    mine = gaps[contestant.iterate]
    for rate, of_rate in zip(rates, mine, strict=True):
        sweep.append(
            {
                "contestant": contestant.key,
                "learning_rate": rate,
                "final_gap": plain(quantiles(of_rate[:, -1])),
            }
        )
    chosen = min(range(len(rates)), key=lambda i: quantiles(mine[i, ::2, -1], (0.5,))[0])
    own = mine[chosen, 1::2]
    return {
        "method": contestant.method,
        "title": contestant.title,
        "kind": contestant.kind,
        "beta": contestant.beta,
        "iterate": contestant.iterate,
        "learning_rate": rates[chosen],
        "gradient_steps_per_target": contestant.gradient_steps,
        "final": plain(own[:, -1]),
        "final_quantiles": plain(quantiles(own[:, -1])),
        "start_quantiles": plain(quantiles(own[:, 0])),
        "arrival_quantiles": {
            f"{t:g}": plain(quantiles(lasting_arrival(steps, own, t))) for t in (1e-1, 1e-2, 1e-3)
        },
        "curve": {"steps": plain(steps), **band(own)},
    }
