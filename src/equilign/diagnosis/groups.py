"""What is hidden in a pool: games of single prompts, and judges who disagree."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from equilign.diagnosis.significance import LEVEL, holm, majority_p_values
from equilign.games.comparisons import Comparisons
from equilign.games.measures import condorcet_winner, cyclic_triples, has_cycle
from equilign.games.voting import weak_condorcet_winners

_MOST_ENTRIES = 20_000_000


@dataclass(frozen=True)
class Prompts:
    """Games of single prompts.

    Attributes:
        count: prompts that are named.
        players: mean number of players on a prompt.
        with_three: prompts with three players or more; only they can have a cycle.
        complete: prompts among them on which every pair of their players was compared (of all
            players of the pool where players are systems).
        with_cycle: complete prompts with a strict majority cycle.
        with_condorcet_winner: complete prompts on which one player beats every other one.
        without_weak_winner: complete prompts on which everyone loses to someone.
        cyclic_triples: strict cycles of three, over complete prompts.
        strict_triples: triples that are decided, over complete prompts.
        significant_cycles: cycles that are more than noise, by Holm's rule over all of them.
        comparisons_per_pair: mean, over complete prompts.
    """

    count: int
    players: float
    with_three: int
    complete: int
    with_cycle: int
    with_condorcet_winner: int
    without_weak_winner: int
    cyclic_triples: int
    strict_triples: int
    significant_cycles: int
    comparisons_per_pair: float | None


def prompt_structure(comparisons: Comparisons) -> Prompts | None:
    """Describe the games of single prompts; None where no prompts are named."""
    c = comparisons
    if not c.prompts:
        return None
    named = c.prompt >= 0
    both = np.concatenate([c.first[named], c.second[named]])
    keys = np.unique(np.tile(c.prompt[named], 2) * len(c.players) + both)
    sizes = np.bincount(keys // len(c.players), minlength=len(c.prompts))
    used = sizes > 0
    games, tallies, p_values, hypotheses = 0, np.zeros(5, dtype=np.int64), [], 0
    compared, pairs = 0.0, 0
    for _, game in c.by_prompt(least=len(c.players) if c.pooled else 3):
        size = len(game.players)
        counts = game.counts
        if size < 3 or (counts + np.eye(size) == 0.0).any():
            continue
        games += 1
        prefs = game.wins / (counts + np.eye(size)) + np.eye(size) / 2.0
        triples = cyclic_triples(prefs)
        strict = (prefs > 0.5) | (prefs < 0.5)
        tallies += (
            has_cycle(prefs),
            condorcet_winner(prefs) is not None,
            not weak_condorcet_winners(prefs),
            triples,
            int(np.trace(np.linalg.matrix_power(strict.astype(np.int64), 3))) // 6,
        )
        compared += float(counts.sum()) / 2.0
        pairs += size * (size - 1) // 2
        hypotheses += size * (size - 1) * (size - 2) // 3
        if triples:
            p_values.append(_cycle_p_values(prefs, majority_p_values(game.wins, game.ties)))
    found = np.concatenate(p_values) if p_values else np.empty(0)
    return Prompts(
        count=int(used.sum()),
        players=float(sizes[used].mean()) if used.any() else 0.0,
        with_three=int((sizes >= 3).sum()),
        complete=games,
        with_cycle=int(tallies[0]),
        with_condorcet_winner=int(tallies[1]),
        without_weak_winner=int(tallies[2]),
        cyclic_triples=int(tallies[3]),
        strict_triples=int(tallies[4]),
        significant_cycles=int((holm(found, hypotheses) <= LEVEL).sum()),
        comparisons_per_pair=compared / pairs if pairs else None,
    )


def _cycle_p_values(prefs: np.ndarray, p_values: np.ndarray) -> np.ndarray:
    i, j = np.nonzero(prefs > 0.5)
    edge, k = np.nonzero((prefs[j] > 0.5) & (prefs[:, i].T > 0.5))
    i, j = i[edge], j[edge]
    once = (i < j) & (i < k)
    i, j, k = i[once], j[once], k[once]
    worst: np.ndarray = np.maximum(np.maximum(p_values[i, j], p_values[j, k]), p_values[k, i])
    return worst


@dataclass(frozen=True)
class Voters:
    """Annotators, or attributes, as voters.

    Attributes:
        count: how many there are.
        agreement: probability that two of them prefer the same on an item that both judged;
            None where no item was judged by two.
        alpha: Krippendorff's alpha of it: 1 is perfect, 0 is chance; None as well.
        items: items judged by two or more.
        repeated: items that the same one judged more than once.
        inconsistent: share of those on which it contradicted itself; None if there are none.
        transitive: voters without a cycle in their own majorities, among those with a decided
            triple.
        cyclic: voters with a cycle in their own majorities.
        majority_cycles: games (one for the pool, or one per prompt) in which the majority of
            voters has a cycle.
        paradoxes: games among them in which every single voter is transitive: the cycle comes
            from putting them together (Condorcet's paradox).
        games: games looked at; None where there are too many voters and players.
    """

    count: int
    agreement: float | None
    alpha: float | None
    items: int
    repeated: int
    inconsistent: float | None
    transitive: int
    cyclic: int
    majority_cycles: int
    paradoxes: int
    games: int | None


def voter_structure(comparisons: Comparisons, voters: np.ndarray, count: int) -> Voters | None:
    """Describe annotators or attributes as voters; None where fewer than two are named.

    Args:
        comparisons: the data.
        voters: who gave each verdict, -1 where unknown, shape ``(m,)``.
        count: how many voters there are.
    """
    keep = voters >= 0
    if count < 2 or len(np.unique(voters[keep])) < 2:
        return None
    c, who = comparisons.subset(keep), voters[keep]
    agreement, alpha, items, repeated, inconsistent = _agreement(c, who)
    games = transitive = cyclic = cycles = paradoxes = 0
    size = len(c.players)
    fits = not c.pooled or count * size * size <= _MOST_ENTRIES
    for part, voter, players in _games(c, who) if fits else ():
        own, together = _own_and_together(part, voter, players)
        games += 1
        transitive += own.count(False)
        cyclic += own.count(True)
        cycles += together
        paradoxes += together and True not in own
    return Voters(
        count=count,
        agreement=agreement,
        alpha=alpha,
        items=items,
        repeated=repeated,
        inconsistent=inconsistent,
        transitive=transitive,
        cyclic=cyclic,
        majority_cycles=cycles,
        paradoxes=paradoxes,
        games=games if fits else None,
    )


def _agreement(
    c: Comparisons, who: np.ndarray
) -> tuple[float | None, float | None, int, int, float | None]:
    """Agreement, alpha, items of several voters, repeated items, share of contradictions."""
    low, high = np.minimum(c.first, c.second), np.maximum(c.first, c.second)
    low_score = np.where(c.first == low, c.score, 1.0 - c.score)
    verdict = np.where(low_score > 0.5, 0, np.where(low_score < 0.5, 1, 2))
    columns = np.stack([c.prompt, low, high], axis=1)
    # Votes on different attributes are different questions, unless attributes are the voters.
    if c.attributes and not np.array_equal(who, c.attribute):
        columns = np.column_stack([columns, c.attribute])
    _, item = np.unique(columns, axis=0, return_inverse=True)
    votes, first, vote, number = np.unique(
        item.ravel() * (who.max() + 1) + who,
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    several = number > 1
    spread = np.zeros((len(votes), 3), dtype=bool)
    spread[vote.ravel(), verdict] = True
    decided_twice = several & (spread[:, :2].any(axis=1))
    inconsistent = spread[decided_twice, :2].all(axis=1)
    table = np.zeros((int(item.max()) + 1, 3))
    np.add.at(table, (item.ravel()[first], verdict[first]), 1.0)  # a voter's first verdict counts
    number = table.sum(axis=1)
    shared = table[number >= 2]
    repeated = int(decided_twice.sum())
    contradictions = float(inconsistent.mean()) if repeated else None
    if not len(shared):
        return None, None, 0, repeated, contradictions
    total = shared.sum(axis=1)
    pairs = (shared * (shared - 1.0)).sum(axis=1) / (total * (total - 1.0))
    agreement = float(pairs.mean())
    # Alpha weights items by their votes. Which player comes first means nothing: symmetrise.
    observed = float((total * (1.0 - pairs)).sum() / total.sum())
    tied = float(shared[:, 2].sum())
    votes_in_all = float(total.sum())
    share = np.array([(votes_in_all - tied) / 2.0] * 2 + [tied])
    expected = 1.0 - float((share * (share - 1.0)).sum()) / (votes_in_all * (votes_in_all - 1.0))
    alpha = 1.0 - observed / expected if expected > 0.0 else None
    return agreement, alpha, len(shared), repeated, contradictions


def _games(c: Comparisons, who: np.ndarray) -> Iterator[tuple[Comparisons, np.ndarray, np.ndarray]]:
    if c.pooled:
        yield c, who, np.arange(len(c.players))
        return
    for _, game in c.by_prompt(least=3):
        yield c.subset(game.rows), who[game.rows], game.players


def _own_and_together(
    c: Comparisons, who: np.ndarray, players: np.ndarray
) -> tuple[list[bool], bool]:
    """Whether each voter with a decided triple has a cycle, and whether their majority has."""
    size = len(players)
    names, voter = np.unique(who, return_inverse=True)
    first, second = np.searchsorted(players, c.first), np.searchsorted(players, c.second)
    flat = (voter * size + first) * size + second
    back = (voter * size + second) * size + first
    length = len(names) * size * size
    margin = np.bincount(flat, c.weight * (c.score - 0.5), length)
    margin = margin - np.bincount(back, c.weight * (c.score - 0.5), length)
    beats = np.sign(margin.reshape(len(names), size, size))
    edges = np.abs(beats)
    decided = np.einsum("vij,vji->v", edges @ edges, edges) > 0.0
    own = [has_cycle(0.5 + table / 2.0) for table in beats[decided]]
    return own, has_cycle(0.5 + np.sign(beats.sum(axis=0)) / 2.0)
