"""The questions of a tournament: what they cost, and their answers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from equilign.experiments.tournament.answers import Answer, Answers
from equilign.oracles import Oracle
from equilign.oracles.base import checked_compare
from equilign.oracles.build import spec_key
from equilign.oracles.cache import CachedOracle
from equilign.oracles.llm_config import LLMJudgeConfig
from equilign.oracles.verdict_store import content_key

VERDICTS = "verdicts.sqlite"
_BLOCK = 2048
"""Questions put to the judge between two reports of progress."""
_SAMPLE = 200
_CHARACTERS_PER_TOKEN = 4.0


@dataclass(frozen=True, eq=False)
class Schedule:
    """Every two answers of different players to a prompt, once, in the order of the prompts.

    Attributes:
        prompt: number of the prompt, shape ``(pairs,)``.
        left: number of the first player.
        right: number of the second one, which is larger.
        prompts: texts.
        a: answers of the first players.
        b: answers of the second ones.
    """

    prompt: np.ndarray
    left: np.ndarray
    right: np.ndarray
    prompts: Sequence[str]
    a: Sequence[str]
    b: Sequence[str]

    def __len__(self) -> int:
        return len(self.a)

    @property
    def asked(self) -> np.ndarray:
        """Pairs that go to the judge: equal texts tie by definition."""
        return np.array([x != y for x, y in zip(self.a, self.b, strict=True)], dtype=bool)

    def questions(self) -> Iterator[tuple[str, str, str]]:
        """Prompt and answers in the order shown: every asked pair in both orders."""
        for number, x, y in zip(self.prompt.tolist(), self.a, self.b, strict=True):
            if x != y:
                yield self.prompts[number], x, y
                yield self.prompts[number], y, x


def make_schedule(prompts: Sequence[str], players: Sequence[Answers]) -> Schedule:
    """Everybody against everybody on every prompt."""
    number: list[int] = []
    left: list[int] = []
    right: list[int] = []
    a: list[str] = []
    b: list[str] = []
    for row in range(len(prompts)):
        for one, other in combinations(range(len(players)), 2):
            for x in players[one][row]:
                for y in players[other][row]:
                    number.append(row)
                    left.append(one)
                    right.append(other)
                    a.append(x.text)
                    b.append(y.text)
    p, i, j = (np.array(values, dtype=np.int64) for values in (number, left, right))
    return Schedule(p, i, j, prompts, a, b)


def unwritten(prompts: int, samples: int, name: str) -> Answers:
    """Stand-ins for answers that are not there yet, no two of them equal."""
    return tuple(tuple(Answer(f"\0{name} {p} {k}") for k in range(samples)) for p in range(prompts))


# -- what it costs -------------------------------------------------------------------------


@dataclass(frozen=True)
class Preview:
    """What judging will take.

    Attributes:
        questions: different questions, both orders of every pair; equal texts are not asked.
        known: those of them whose verdict is stored.
        exact: whether all answers are there; otherwise ``questions`` is the most there can be.
        estimate: tokens and cost of a paid judge; None for any other.
    """

    questions: int
    known: int
    exact: bool
    estimate: dict[str, Any] | None

    @property
    def to_ask(self) -> int:
        """Questions that the judge will be asked."""
        return self.questions - self.known

    def words(self) -> str:
        """One line, two for a paid judge."""
        most = "" if self.exact else "at most "
        text = f"questions to ask: {most}{self.to_ask:,} ({self.known:,} already known)"
        e = self.estimate
        if e is None:
            return text
        cost = "" if e["cost"] is None else f", which cost about {e['cost']:.4g}"
        return (
            f"{text}\nabout {e['prompt_tokens']:,} prompt tokens (at "
            f"{_CHARACTERS_PER_TOKEN:.0f} characters a token) and at most "
            f"{e['completion_tokens']:,} tokens of replies{cost}"
        )

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "questions": self.questions,
            "known": self.known,
            "to_ask": self.to_ask,
            "exact": self.exact,
            "estimate": self.estimate,
        }


def preview(
    schedule: Schedule, oracle: CachedOracle | None, spec: Mapping[str, Any], guess: int | None
) -> Preview:
    """Count what is to be asked.

    Args:
        schedule: the pairs.
        oracle: whose stored verdicts count; None: there are none yet.
        spec: the judge's specification.
        guess: characters of an answer that is not there yet; None: all are there.
    """
    rows = {content_key(*row): row for row in schedule.questions()}
    known = [False] * len(rows)
    if oracle is not None:
        found = oracle.store.find(list(rows))
        known = [v is not None and not np.isnan(v) for v in found]
    new = [row for row, there in zip(rows.values(), known, strict=True) if not there]
    judges = paid_judges(spec)
    estimate = _estimate(judges, new, guess) if judges else None
    return Preview(len(rows), sum(known), guess is None, estimate)


def paid_judges(spec: Any) -> list[LLMJudgeConfig]:  # noqa: ANN401 - a part of a specification
    """The language models on servers in a specification, however deep they are."""
    if isinstance(spec, list):
        return [judge for item in spec for judge in paid_judges(item)]
    if not isinstance(spec, Mapping):
        return []
    if spec.get("kind") == "llm":
        options = {k: v for k, v in spec.items() if k not in ("kind", "cache")}
        return [LLMJudgeConfig.from_options(options)]
    return [judge for item in spec.values() for judge in paid_judges(item)]


_PATIENCE = (
    *("api_key_env", "concurrency", "timeout", "tries", "give_up_after"),
    *("max_requests", "max_total_tokens", "max_cost", "price_prompt", "price_completion"),
)
"""Options of a language model as the judge that change no verdict."""


def decisive(spec: Any) -> Any:  # noqa: ANN401 - a part of a specification
    """A specification without what changes no verdict, such as a budget that was raised."""
    if isinstance(spec, list):
        return [decisive(item) for item in spec]
    if not isinstance(spec, Mapping):
        return spec
    left_out = ("cache", *(_PATIENCE if spec.get("kind") == "llm" else ()))
    return {k: decisive(v) for k, v in spec.items() if k not in left_out}


def _estimate(
    judges: Sequence[LLMJudgeConfig], rows: Sequence[tuple[str, str, str]], guess: int | None
) -> dict[str, Any]:
    step = max(1, len(rows) // _SAMPLE)
    shown = rows[::step][:_SAMPLE]
    prompt_tokens = completion_tokens = 0
    cost, priced = 0.0, False
    for judge in judges:
        texts = [(x, _stand_in(a, guess), _stand_in(b, guess)) for x, a, b in shown]
        lengths = [len(judge.system) + len(judge.prompt.render(*row)) for row in texts]
        mean = sum(lengths) / max(len(lengths), 1) / _CHARACTERS_PER_TOKEN
        asked, replied = round(mean * len(rows)), judge.reply_limit * len(rows)
        prompt_tokens, completion_tokens = prompt_tokens + asked, completion_tokens + replied
        cost += judge.budget.cost(asked, replied)
        priced |= judge.price_prompt > 0.0 or judge.price_completion > 0.0
    return {
        "models": [judge.model for judge in judges],
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "cost": cost if priced else None,
    }


def _stand_in(answer: str, guess: int | None) -> str:
    return "x" * (guess or 0) if answer.startswith("\0") else answer


# -- asking --------------------------------------------------------------------------------


def recorded(oracle: Oracle, spec: Mapping[str, Any], base: Path, folder: Path) -> CachedOracle:
    """The oracle with every verdict stored by content, in its own cache or in the run's folder."""
    if isinstance(oracle, CachedOracle):
        return oracle
    return CachedOracle(oracle, folder / VERDICTS, spec_key(spec, base), batch_size=256)


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What the judge said; each ``(pairs,)`` in the order of the schedule.

    Attributes:
        forward: Pr(a wins) with a shown first; nan for no verdict, and where it was not asked.
        backward: Pr(b wins) with b shown first.
        win: Pr(a beats b), both orders averaged; 1/2 for equal texts; nan where an order has
            no verdict.
    """

    forward: np.ndarray
    backward: np.ndarray
    win: np.ndarray


def ask(schedule: Schedule, oracle: Oracle, tell: Callable[[int, int], None]) -> Verdicts:
    """Both orders of every pair; pairs of equal texts tie and are not asked.

    Args:
        schedule: the pairs.
        oracle: who judges.
        tell: called with the number of questions done, and of all.

    Raises:
        OracleError: an answer that is no probability.
        BudgetError: a paid judge may ask no more; what it said is stored.
    """
    asked = np.flatnonzero(schedule.asked)
    forward, backward = (np.full(len(schedule), np.nan) for _ in range(2))
    total = 2 * len(asked)
    tell(0, total)
    for start in range(0, len(asked), _BLOCK // 2):
        part = asked[start : start + _BLOCK // 2].tolist()
        texts = [schedule.prompts[schedule.prompt[k]] for k in part]
        a, b = [schedule.a[k] for k in part], [schedule.b[k] for k in part]
        # Both orders of a pair stand together, and so do all pairs of a prompt: a judge that
        # scores answers one by one meets each of them once in a batch.
        both = checked_compare(oracle, _twice(texts, texts), _twice(a, b), _twice(b, a))
        forward[part], backward[part] = both[::2], both[1::2]
        tell(2 * min(start + len(part), len(asked)), total)
    win = (forward + 1.0 - backward) / 2.0
    win[~schedule.asked] = 0.5
    return Verdicts(forward, backward, win)


def _twice(first: Sequence[str], second: Sequence[str]) -> list[str]:
    return [text for pair in zip(first, second, strict=True) for text in pair]


def per_prompt(schedule: Schedule, win: np.ndarray, prompts: int, players: int) -> np.ndarray:
    """Mean verdict of each pair of players on each prompt, ``(prompts, n, n)``; nan for none."""
    seen = ~np.isnan(win)
    flat = (schedule.prompt * players + schedule.left) * players + schedule.right
    size = prompts * players * players
    count = np.bincount(flat[seen], minlength=size)
    total = np.bincount(flat[seen], win[seen], minlength=size)
    upper = np.full(size, np.nan)
    np.divide(total, count, out=upper, where=count > 0)
    found = upper.reshape(prompts, players, players)
    found = np.where(np.isnan(found), 1.0 - found.swapaxes(1, 2), found)
    found[:, range(players), range(players)] = 0.5
    return found
