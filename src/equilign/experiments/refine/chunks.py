"""One chunk of prompts, stage by stage: a stop loses at most the stage that it interrupts."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from equilign.evaluation.best_of_n import best_answer, spend_budgets
from equilign.evaluation.refine import Chain, Refiner, chain_games, start, wins_over_leader
from equilign.experiments.refine.config import RefineConfig
from equilign.experiments.refine.source import Row
from equilign.files import Journal
from equilign.oracles import Oracle, score_groups
from equilign.rollout import Completion, Group, Prompt, Sampler, prompt_text
from equilign.trainers.rounds import derive_seed

Tell = Callable[[str, bool], None]


@dataclass(frozen=True)
class Desk:
    """Everybody who works on a chunk.

    Attributes:
        config: what is done.
        refiner: the Follower.
        leader: who answers first; None where answers are given.
        oracle: who judges; None: nobody.
        count_tokens: length of a text.
    """

    config: RefineConfig
    refiner: Refiner
    leader: Sampler | None
    oracle: Oracle | None
    count_tokens: Callable[[str], int]


@dataclass(frozen=True)
class Refined:
    """A prompt's chains and what is known about them.

    Attributes:
        row: the prompt.
        chains: one per answer of the Leader.
        verdicts: for each chain what `_judge` found; None without an oracle.
    """

    row: Row
    chains: tuple[Chain, ...]
    verdicts: tuple[dict[str, Any], ...] | None


def refine_chunk(
    desk: Desk, rows: Sequence[Row], index: int, journal: Journal, tell: Tell
) -> list[Refined]:
    """The chains of a chunk of prompts.

    Args:
        desk: everybody who works on it.
        rows: the prompts.
        index: of the chunk; its seed is made from it.
        journal: finished stages, which are not done again.
        tell: called with a stage as it begins (False) and when it is done (True).
    """
    config = desk.config
    seed = derive_seed(config.seed, "chunk", index)

    def stage(key: int, words: str, make: Callable[[], list[Any]]) -> list[Any]:
        if key not in journal.entries:
            tell(words, False)
            journal.add(key, make())
            tell(words, True)
        found: list[Any] = journal.entries[key]
        return found

    led = stage(0, "leader answers", lambda: _lead(desk, rows, config.num_samples, seed))
    prompts = [row.prompt for row in rows]
    chains = start([_group(p, answers) for p, answers in zip(prompts, led, strict=True)])
    own = derive_seed(seed, "follower")
    for number in range(1, config.rounds + 1):

        def improve(current: list[Chain] = chains) -> list[Any]:
            return [_pack(c) for c in desk.refiner.step(current, own)]

        done = stage(number, f"refinement {number} of {config.rounds}", improve)
        chains = [_unpack(c, value) for c, value in zip(chains, done, strict=True)]
    verdicts: list[Any] | None = None
    if desk.oracle is not None:
        more: list[Any] = []
        if config.compare:
            count = config.num_samples * config.rounds + config.opponents
            again = derive_seed(seed, "again")
            more = stage(
                config.rounds + 1,
                "further answers of the leader",
                lambda: _lead(desk, rows, count, again),
            )
        verdicts = stage(config.rounds + 2, "judging", lambda: _judge(desk, chains, more))
    return _by_row(rows, [len(answers) for answers in led], chains, verdicts)


def _by_row(
    rows: Sequence[Row], sizes: Sequence[int], chains: list[Chain], verdicts: list[Any] | None
) -> list[Refined]:
    found, at = [], 0
    for row, size in zip(rows, sizes, strict=True):
        span = slice(at, at + size)
        judged = None if verdicts is None else tuple(verdicts[span])
        found.append(Refined(row, tuple(chains[span]), judged))
        at += size
    return found


# -- stages as JSON ------------------------------------------------------------------------


def _lead(desk: Desk, rows: Sequence[Row], count: int, seed: int) -> list[Any]:
    """``[text, finished]`` of each answer, row by row; given answers do not say if they are cut."""
    if desk.leader is None:
        return [[[text, True] for text in row.answers] for row in rows]
    groups = desk.leader.sample([row.prompt for row in rows], count, seed)
    return [[[c.text, c.finished] for c in group.completions] for group in groups]


def _group(prompt: Prompt, answers: Sequence[Sequence[Any]]) -> Group:
    return Group(prompt, (), tuple(Completion((), text, done) for text, done in answers))


def _pack(chain: Chain) -> list[Any]:
    return [chain.answers[-1].text, chain.answers[-1].finished, chain.stopped is not None]


def _unpack(chain: Chain, value: Sequence[Any]) -> Chain:
    text, finished, stopped = value
    return chain.stay() if stopped else chain.then(Completion((), text, finished))


# -- verdicts ------------------------------------------------------------------------------


def _judge(desk: Desk, chains: list[Chain], more: list[Any]) -> list[Any]:
    """For each chain ``wins`` over its Leader's answer, and what else was asked for."""
    config, oracle = desk.config, desk.oracle
    assert oracle is not None  # noqa: S101 - asked only where there is one
    if config.compare:
        return _judge_budgets(config, oracle, chains, more)
    if config.keep == "best":
        games = chain_games(oracle, chains)
        return [
            {"wins": _plain(g[1:, 0]), "picked": best_answer(g, c.texts)}
            for g, c in zip(games, chains, strict=True)
        ]
    return [{"wins": _plain(wins)} for wins in wins_over_leader(oracle, chains)]


def _judge_budgets(
    config: RefineConfig, oracle: Oracle, chains: list[Chain], more: list[Any]
) -> list[Any]:
    rounds, opponents = config.rounds, config.opponents
    texts = []
    for i, chain in enumerate(chains):
        further = [text for text, _ in more[i // config.num_samples]]
        place = (i % config.num_samples) * rounds
        texts.append((*chain.texts, *further[place : place + rounds], *further[-opponents:]))
    prompts = [prompt_text(c.prompt) for c in chains]
    found = []
    for game, chain, own in zip(score_groups(oracle, prompts, texts), chains, texts, strict=True):
        inner = game[: rounds + 1, : rounds + 1]
        budgets = spend_budgets(game, own, rounds, opponents)
        found.append(
            {
                "wins": _plain(inner[1:, 0]),
                "picked": best_answer(inner, chain.texts),
                "budgets": {name: _plain(values) for name, values in budgets.items()},
            }
        )
    return found


def _plain(values: np.ndarray) -> list[float | None]:
    """Numbers as JSON has them; no verdict is null."""
    return [None if math.isnan(v) else float(v) for v in values]
