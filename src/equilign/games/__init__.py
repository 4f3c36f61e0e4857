"""What is solved: preference games and their measures. No torch here."""

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
from equilign.games.preference_game import PreferenceGame
from equilign.games.solution import Solution
from equilign.games.solve import CONCEPTS, solve

__all__ = [
    "CONCEPTS",
    "CycleReport",
    "PreferenceGame",
    "Solution",
    "check_policy",
    "check_prefs",
    "condorcet_winner",
    "cycle_report",
    "cyclic_triples",
    "duality_gap",
    "exploitability",
    "has_cycle",
    "solve",
]
