"""Reading a judge's reply: an exact grammar, or no verdict at all.

A reply is a verdict only as a whole. Nothing is searched for inside it, so that an "A" in a word,
or an answer that the judge quotes, is never taken for one.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

FIRST, TIE, SECOND = 1.0, 0.5, 0.0

_VALUES = {"A": FIRST, "B": SECOND, "tie": TIE, "Tie": TIE, "TIE": TIE}
_WORD = r"(A|B|tie|Tie|TIE)"
# The decorations that models put around one word, always in pairs; a full stop may follow.
_DECORATED = re.compile(
    rf'(?:\[\[{_WORD}\]\]|\[{_WORD}\]|\*\*{_WORD}\.?\*\*|"{_WORD}\.?"|`{_WORD}`|{_WORD})\.?'
)
_LINE = re.compile(
    r"(?:\*\*)?(?:Verdict|VERDICT|verdict)(?:\*\*)?\s*:\s*(?:\*\*)?\s*(.*?)(?:\*\*)?"
)
# What may stand between the verdict's token and the end of the reply.
_TAIL = re.compile(r"[\s.*\"`\]]*|<\|[^|]*\|>|</s>")
_THOUGHT = re.compile(r"\s*<think>.*?</think>", re.DOTALL)


def parse_verdict(reply: str, *, explain: bool = False, ties: bool = True) -> float | None:
    """Pr(the first answer wins) that a reply states: 1, 0.5 or 0; None if it states none.

    The grammar: the whole reply is ``A``, ``B`` or ``tie``, perhaps in quotes, brackets, stars or
    backticks, perhaps with a full stop. With ``explain``, the last line that is not empty must be
    ``Verdict:`` and such a word, and no other line may state another verdict. A leading
    ``<think>...</think>`` block is not part of the reply.

    Args:
        reply: the whole text of the judge.
        explain: whether reasons come first.
        ties: whether a tie is a verdict.
    """
    thought = _THOUGHT.match(reply)
    text = reply[thought.end() :] if thought else reply
    value = _from_lines(text) if explain else _word(text.strip())
    return None if value == TIE and not ties else value


def _word(text: str) -> float | None:
    match = _DECORATED.fullmatch(text)
    if match is None:
        return None
    return _VALUES[next(group for group in match.groups() if group)]


def _from_lines(text: str) -> float | None:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or (last := _LINE.fullmatch(lines[-1])) is None:
        return None
    value = _word(last.group(1).strip())
    # The judge may quote an answer that says "Verdict: A"; two statements are none.
    for line in lines[:-1]:
        other = _LINE.fullmatch(line)
        if other is not None and _word(other.group(1).strip()) != value:
            return None
    return value


def soft_verdict(
    tokens: Sequence[Mapping[str, Any]], *, ties: bool = True, min_mass: float = 0.9
) -> float | None:
    """Pr(the first answer wins) from the probabilities of the option tokens.

    ``(p_A + p_tie / 2) / (p_A + p_B + p_tie)`` at the token of the verdict.

    Args:
        tokens: ``choices[0].logprobs.content`` of a reply that `parse_verdict` accepts.
        ties: whether a tie is an option.
        min_mass: what the options must have together; with less, the judge hardly meant any.

    Returns:
        None when the verdict is no token by itself, the options have too little mass, or numbers
        are missing.
    """
    for token in reversed(tokens):
        text = str(token.get("token", "")) if isinstance(token, Mapping) else "?"
        if text.strip() in _VALUES:
            return _soft(token, ties, min_mass)
        if not _TAIL.fullmatch(text):
            return None
    return None


def _soft(token: Mapping[str, Any], ties: bool, min_mass: float) -> float | None:
    mass = {FIRST: 0.0, TIE: 0.0, SECOND: 0.0}
    seen: dict[str, float] = {}
    for entry in [token, *(token.get("top_logprobs") or ())]:
        if not isinstance(entry, Mapping):
            return None
        logprob = entry.get("logprob")
        if not isinstance(logprob, int | float) or math.isnan(logprob) or logprob > 1e-3:
            return None
        seen[str(entry.get("token", ""))] = math.exp(min(0.0, logprob))
    for text, probability in seen.items():
        value = _VALUES.get(text.strip())
        if value is not None and (ties or value != TIE):
            mass[value] += probability
    total = sum(mass.values())
    if not min_mass - 1e-9 <= total <= 1.0 + 1e-3:
        return None
    return (mass[FIRST] + 0.5 * mass[TIE]) / total
