"""What every claim of a reproduction is made of: a verdict with its evidence."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One statement with its verdict.

    Attributes:
        claim: in words.
        holds: True, False, or None where this run does not decide.
        evidence: the numbers, and the rule that judged them.
        source: where the claim is from.
    """

    claim: str
    holds: bool | None
    evidence: str
    source: str = "paper"


def all_of(verdicts: Iterable[bool | None]) -> bool | None:
    """False if one is False, else None if one is None, else True."""
    found = list(verdicts)
    return False if False in found else (None if None in found else True)
