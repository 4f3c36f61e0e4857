"""What every claim of a reproduction is made of: a verdict with its evidence."""

from collections.abc import Iterable
from dataclasses import dataclass

from equilign.evaluation.spread import Spread


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


def said(found: Spread, digits: int = 3) -> str:
    """A mean with its interval over seeds and prompts; of one seed, over prompts alone."""
    low, high = found.told
    note = " over prompts, one seed" if len(found.by_seed) == 1 else ""
    return f"{found.value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f}{note})"


def sign(found: Spread, wanted: float = 1.0) -> bool | None:
    """Whether a difference has the wanted sign: True, False, or None where that is open."""
    low, high = sorted(wanted * end for end in found.both)
    return True if low > 0.0 else (False if high < 0.0 else None)
