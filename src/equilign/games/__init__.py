"""What is solved: preference games and their measures. No torch here."""

from equilign.games.measures import (
    CycleReport,
    condorcet_winner,
    cycle_report,
    cyclic_triples,
    duality_gap,
    exploitability,
    has_cycle,
)
from equilign.games.preference_game import PreferenceGame, check_policy, check_prefs

__all__ = [
    "CycleReport",
    "PreferenceGame",
    "check_policy",
    "check_prefs",
    "condorcet_winner",
    "cycle_report",
    "cyclic_triples",
    "duality_gap",
    "exploitability",
    "has_cycle",
]
