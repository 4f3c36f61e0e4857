"""How much of the experiment is run."""

from dataclasses import dataclass

from equilign.experiments.sizes import find_scale


@dataclass(frozen=True)
class Scale:
    """Sizes of every part.

    Attributes:
        select_games: games on which step sizes and KL weights are chosen.
        select_calls: oracle calls per method there.
        games: other games, on which everything is reported.
        calls: oracle calls per method there.
        linear_games: games of the study of the linear phase.
        linear_steps: OMWU's steps there.
        regrowth_steps: steps from exponentially small probabilities.
        regrowth_powers: the small probabilities are ten to minus these.
        etas: mirror steps tried, nats per unit of win probability.
        neural_responses: n of the networks' games.
        neural_games: games per family; the even ones choose the learning rate, the odd ones are
            reported.
        neural_calls: oracle calls per method.
        neural_rates: learning rates tried, one network per game.
        shared_rates: learning rates tried, one network for all games.
    """

    select_games: int
    select_calls: int
    games: int
    calls: int
    linear_games: int
    linear_steps: int
    regrowth_steps: int
    regrowth_powers: tuple[int, ...]
    etas: tuple[float, ...]
    neural_responses: int
    neural_games: int
    neural_calls: int
    neural_rates: tuple[float, ...]
    shared_rates: tuple[float, ...]


SCALES: dict[str, Scale] = {
    "tiny": Scale(
        select_games=3,
        select_calls=400,
        games=4,
        calls=1500,
        linear_games=4,
        linear_steps=20_000,
        regrowth_steps=2000,
        regrowth_powers=(5, 10),
        etas=(1.0, 4.0),
        neural_responses=12,
        neural_games=2,
        neural_calls=40,
        neural_rates=(1.0, 3.0),
        shared_rates=(0.1, 1.0),
    ),
    "quick": Scale(
        select_games=12,
        select_calls=20_000,
        games=40,
        calls=50_000,
        linear_games=32,
        linear_steps=1_000_000,
        regrowth_steps=20_000,
        regrowth_powers=(5, 10, 30, 100, 300),
        etas=(0.1, 0.3, 1.0, 2.0, 4.0, 8.0),
        neural_responses=100,
        neural_games=6,
        neural_calls=2000,
        neural_rates=(3.0, 10.0, 30.0),
        shared_rates=(0.03, 0.3, 3.0),
    ),
    "full": Scale(
        select_games=50,
        select_calls=200_000,
        games=200,
        calls=1_000_000,
        linear_games=200,
        linear_steps=10_000_000,
        regrowth_steps=100_000,
        regrowth_powers=(5, 10, 30, 100, 300),
        etas=(0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0),
        neural_responses=100,
        neural_games=10,
        neural_calls=30_000,
        neural_rates=(0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
        shared_rates=(0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    ),
}
"""``tiny`` is a smoke test: seconds, and too little of everything to decide a claim."""


def get_scale(name: str) -> Scale:
    """The sizes of that name.

    Raises:
        ConfigError: no such scale.
    """
    return find_scale(SCALES, name)
