"""The preference graph of each prompt: who beats whom by majority, and where nobody beats all.

An edge a -> b says Pr(a beats b) > 1/2, strictly: a tie is no edge, and neither is a pair without
a verdict. A prompt is cyclic if its graph has a cycle of any length, and has a Condorcet winner if
one answer beats every other one. Some prompts have neither (ties).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from equilign.errors import ConfigError
from equilign.evaluation.intervals import Estimate, wilson
from equilign.games import condorcet_winner, cyclic_triples, has_cycle
from equilign.oracles import Oracle, score_groups
from equilign.rollout import Group, prompt_text


@dataclass(frozen=True)
class PromptGraph:
    """The graph of one prompt.

    Attributes:
        answers: different texts; equal ones are one answer.
        cycle: whether there is a strict majority cycle.
        condorcet: whether one answer beats every other one; so does an only one.
        triples: of answers.
        cyclic_triples: strict cycles of three among them.
        pairs: of answers.
        ties: pairs with verdict 1/2.
        unjudged: pairs without a verdict.
    """

    answers: int
    cycle: bool
    condorcet: bool
    triples: int
    cyclic_triples: int
    pairs: int
    ties: int
    unjudged: int


@dataclass(frozen=True)
class GraphReport:
    """All prompts' graphs together; intervals are Wilson's, over prompts, 95 %.

    Attributes:
        prompts: how many.
        able: prompts with three different answers or more; no other can be cyclic.
        answers: mean number of different answers to a prompt.
        cycle: share of the prompts that are cyclic.
        condorcet: share of the prompts with a Condorcet winner.
        cyclic_triples: share of the triples that are strict cycles; 0 where there is none.
        ties: share of the judged pairs of different answers that tie; 0 where there is none.
        unjudged: share of the pairs without a verdict.
    """

    prompts: int
    able: int
    answers: float
    cycle: Estimate
    condorcet: Estimate
    cyclic_triples: float
    ties: float
    unjudged: float


def one_graph(game: np.ndarray, texts: Sequence[str]) -> PromptGraph:
    """The graph of one prompt.

    Args:
        game: Pr(row beats column), shape ``(K, K)``; nan for no verdict.
        texts: the K answers.
    """
    places = list({text: i for i, text in enumerate(texts)}.values())
    small = game[np.ix_(places, places)]
    size = len(places)
    above = small[np.triu_indices(size, 1)]
    # A pair without a verdict has no edge, like a tie.
    edges = np.nan_to_num(small, nan=0.5)
    return PromptGraph(
        answers=size,
        cycle=has_cycle(edges),
        condorcet=condorcet_winner(edges) is not None,
        triples=size * (size - 1) * (size - 2) // 6,
        cyclic_triples=cyclic_triples(edges),
        pairs=len(above),
        ties=int((above == 0.5).sum()),
        unjudged=int(np.isnan(above).sum()),
    )


def prompt_graphs(oracle: Oracle, groups: Sequence[Group]) -> list[PromptGraph]:
    """The graph of each prompt, its answers judged in pairs in both orders."""
    texts = [[c.text for c in group.completions] for group in groups]
    games = score_groups(oracle, [prompt_text(g.prompt) for g in groups], texts)
    return [one_graph(game, row) for game, row in zip(games, texts, strict=True)]


def graph_report(graphs: Sequence[PromptGraph]) -> GraphReport:
    """Shares over prompts.

    Raises:
        ValueError: no graph.
    """
    count = len(graphs)
    triples, pairs = sum(g.triples for g in graphs), sum(g.pairs for g in graphs)
    unjudged = sum(g.unjudged for g in graphs)
    return GraphReport(
        prompts=count,
        able=sum(g.answers >= 3 for g in graphs),
        cycle=wilson(sum(g.cycle for g in graphs), count),
        condorcet=wilson(sum(g.condorcet for g in graphs), count),
        answers=float(np.mean([g.answers for g in graphs])),
        cyclic_triples=sum(g.cyclic_triples for g in graphs) / max(triples, 1),
        ties=sum(g.ties for g in graphs) / max(pairs - unjudged, 1),
        unjudged=unjudged / max(pairs, 1),
    )


def pooled(answers: Mapping[str, Sequence[Group]], count: int = 1) -> list[Group]:
    """The first ``count`` answers of every player to each prompt as one group.

    Raises:
        ConfigError: no player, or players answered other prompts.
    """
    if not answers:
        raise ConfigError("there is no player whose answers could be put together")
    names = list(answers)
    groups = []
    for row in zip(*answers.values(), strict=True):
        prompts = {prompt_text(g.prompt) for g in row}
        if len(prompts) > 1:
            raise ConfigError(f"{', '.join(names)} must answer the same prompts in the same order")
        texts = tuple(c for g in row for c in g.completions[:count])
        groups.append(Group(row[0].prompt, row[0].prompt_ids, texts))
    return groups
