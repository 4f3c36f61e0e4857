"""What is solved: preference games and their measures. No torch here."""

from equilign.games.bradley_terry import BradleyTerry, fit_bradley_terry, simulate_wins
from equilign.games.checks import check_policy, check_prefs
from equilign.games.measures import (
    CycleReport,
    condorcet_winner,
    cycle_report,
    cyclic_triples,
    duality_gap,
    exploitability,
    has_cycle,
)
from equilign.games.named import NAMED_GAMES, NamedGame, named_game
from equilign.games.preference_game import PreferenceGame
from equilign.games.regularised import regularised_log_policy
from equilign.games.solution import Solution
from equilign.games.solve import CONCEPTS, solve
from equilign.games.stackelberg import follower_policy, leader_values, refine, stackelberg_gap
from equilign.games.voting import smith_set, weak_condorcet_winners

__all__ = [
    "CONCEPTS",
    "NAMED_GAMES",
    "BradleyTerry",
    "CycleReport",
    "NamedGame",
    "PreferenceGame",
    "Solution",
    "check_policy",
    "check_prefs",
    "condorcet_winner",
    "cycle_report",
    "cyclic_triples",
    "duality_gap",
    "exploitability",
    "fit_bradley_terry",
    "follower_policy",
    "has_cycle",
    "leader_values",
    "named_game",
    "refine",
    "regularised_log_policy",
    "simulate_wins",
    "smith_set",
    "solve",
    "stackelberg_gap",
    "weak_condorcet_winners",
]
