"""Preference graphs of prompts: cycles, winners, ties and what is not judged."""

import numpy as np
import pytest

from equilign.errors import ConfigError
from equilign.evaluation.graphs import graph_report, one_graph, pooled, prompt_graphs
from equilign.evaluation.intervals import wilson
from equilign.oracles import CallableOracle, Panel
from equilign.oracles.panel import Attribute
from equilign.rollout import Completion, Group


def group(prompt, *texts):
    return Group(prompt, (1,), tuple(Completion((1,), t, True) for t in texts))


def game(size, wins):
    """Entries of 1/2 but for ``(i, j): p``."""
    found = np.full((size, size), 0.5)
    for (i, j), p in wins.items():
        found[i, j], found[j, i] = p, 1.0 - p
    return found


CYCLE = {(0, 1): 0.6, (1, 2): 0.7, (2, 0): 0.9}


def test_a_cycle_of_three():
    found = one_graph(game(3, CYCLE), "abc")
    assert (found.cycle, found.condorcet) == (True, False)
    assert (found.triples, found.cyclic_triples, found.pairs, found.ties) == (1, 1, 3, 0)


def test_a_winner_and_an_order():
    found = one_graph(game(3, {(0, 1): 0.6, (0, 2): 0.51, (1, 2): 0.9}), "abc")
    assert (found.cycle, found.condorcet, found.cyclic_triples) == (False, True, 0)


def test_a_longer_cycle_without_a_cyclic_triple():
    ring = {(0, 1): 0.6, (1, 2): 0.6, (2, 3): 0.6, (3, 0): 0.6}
    found = one_graph(game(4, ring), "abcd")
    assert found.cycle
    assert found.cyclic_triples == 0
    assert found.ties == 2


def test_a_tie_is_no_edge():
    found = one_graph(game(3, {(0, 1): 0.6, (1, 2): 0.7}), "abc")
    assert (found.cycle, found.condorcet, found.ties) == (False, False, 1)


def test_equal_texts_are_one_answer():
    """Two copies of a winner tie with each other, and yet it beats every other answer."""
    wins = game(3, {(0, 2): 0.8, (1, 2): 0.8})
    found = one_graph(wins, ["a", "a", "b"])
    assert (found.answers, found.condorcet, found.pairs, found.ties) == (2, True, 1, 0)
    alone = one_graph(np.full((2, 2), 0.5), ["a", "a"])
    assert (alone.answers, alone.condorcet, alone.cycle, alone.triples) == (1, True, False, 0)


def test_no_verdict_is_no_edge_and_no_tie():
    wins = game(3, CYCLE)
    wins[2, 0] = wins[0, 2] = np.nan
    found = one_graph(wins, "abc")
    assert (found.cycle, found.condorcet) == (False, False)
    assert (found.unjudged, found.ties) == (1, 0)


def test_a_panel_makes_a_cycle_that_no_voter_has():
    """Condorcet's paradox from three scores."""
    orders = ("abc", "bca", "cab")
    voters = [
        Attribute(order, lambda prompts, ys, order=order: np.array([-order.index(y) for y in ys]))
        for order in orders
    ]
    (together,) = prompt_graphs(Panel(voters), [group("p", "a", "b", "c")])
    assert together.cycle
    for order in orders:
        (alone,) = prompt_graphs(Panel(voters).weighted({order: 1.0}), [group("p", *"abc")])
        assert (alone.cycle, alone.condorcet) == (False, True)


def test_the_report_counts_prompts():
    graphs = [
        one_graph(game(3, CYCLE), "abc"),
        one_graph(game(3, {(0, 1): 0.6, (0, 2): 0.6}), "abc"),
        one_graph(game(2, {}), "ab"),
        one_graph(game(3, {(0, 1): np.nan}), "abc"),
    ]
    found = graph_report(graphs)
    assert (found.prompts, found.able) == (4, 3)
    assert found.answers == pytest.approx(11 / 4)
    assert found.cycle == wilson(1, 4)
    assert found.condorcet == wilson(1, 4)
    assert found.cyclic_triples == pytest.approx(1 / 3)
    assert found.ties == pytest.approx(4 / 9)
    assert found.unjudged == pytest.approx(1 / 10)
    with pytest.raises(ValueError, match="at least one trial"):
        graph_report([])


def test_one_answer_of_each_player():
    answers = {
        "x": [group("p", "a", "b"), group("q", "c")],
        "y": [group("p", "d"), group("q", "e")],
    }
    assert [[c.text for c in g.completions] for g in pooled(answers)] == [["a", "d"], ["c", "e"]]
    assert [c.text for c in pooled(answers, 2)[0].completions] == ["a", "b", "d"]
    with pytest.raises(ConfigError, match="x, z must answer the same prompts"):
        pooled({"x": answers["x"], "z": [group("p", "a"), group("other", "a")]})
    with pytest.raises(ConfigError, match="no player"):
        pooled({})


def test_prompts_are_judged_by_the_oracle_in_both_orders():
    """A judge that prefers whatever comes first has nothing but ties."""
    first = CallableOracle(lambda prompt, a, b: 1.0)
    (found,) = prompt_graphs(first, [group("p", "a", "b", "c")])
    assert (found.ties, found.cycle, found.condorcet) == (3, False, False)
