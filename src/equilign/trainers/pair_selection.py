"""From the verdicts on a prompt's answers to labelled pairs; no verdict is ever made up."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

SELECTIONS = ("best_worst", "random", "all")
LABELS = ("hard", "sampled", "soft")


@dataclass(frozen=True)
class LabelledPairs:
    """Pairs of one prompt's answers to train on.

    Attributes:
        pairs: indices of the two answers, the likelier winner by its label first.
        win_probs: label of each pair: probability that the first is preferred, in [1/2, 1].
        pair_weights: of each pair in the prompt's loss; they sum to 1 less what was left out.
        no_verdict: pairs left out because the oracle gave none.
        tied: pairs left out because there is nothing to learn from them: equal texts, or a best
            answer that is no better than the worst.
    """

    pairs: list[list[int]]
    win_probs: list[float]
    pair_weights: list[float]
    no_verdict: int = 0
    tied: int = 0

    def fields(self) -> dict[str, Any]:
        """As fields of a row."""
        return dict(vars(self))


@dataclass(frozen=True)
class PairChoice:
    """Which pairs of K answers are trained on, and how they are labelled.

    Attributes:
        selection: ``"all"`` pairs of different answers; ``"random"`` ones; ``"best_worst"``: the
            answers with the highest and the lowest mean win rate (Wu et al. 2024,
            arXiv:2405.00675, section 4), the first of equals.
        labels: ``"soft"``: the verdict itself; ``"hard"``: who it favours, and with
            ``"best_worst"`` the best; ``"sampled"``: a draw from it.
        count: pairs per prompt, for ``"random"``.
    """

    selection: str
    labels: str
    count: int = 1

    def of(
        self,
        game: np.ndarray,
        texts: Sequence[str],
        law: Sequence[float],
        generator: np.random.Generator,
    ) -> LabelledPairs:
        """The pairs of one prompt.

        Left-out pairs keep their share of the weight: the loss stays the mean over the pairs asked
        for, and one that is the same text twice has no gradient.

        Args:
            game: ``(K, K)`` win probabilities, nan for no verdict.
            texts: the K answers.
            law: probabilities of the answers where they are listed rather than sampled (a pair
                then weighs what two independent draws give it); empty for samples.
            generator: for random pairs and sampled labels.
        """
        kept, no_verdict, tied = [], 0, 0
        for i, j, weight in self._candidates(game, law, generator):
            if i == j or texts[i] == texts[j]:
                tied += 1
            elif np.isnan(game[i, j]):
                no_verdict += 1
            else:
                kept.append((*self._label(i, j, float(game[i, j]), generator), weight))
        return LabelledPairs(
            pairs=[[i, j] for i, j, _, _ in kept],
            win_probs=[p for _, _, p, _ in kept],
            pair_weights=[w for _, _, _, w in kept],
            no_verdict=no_verdict,
            tied=tied,
        )

    def _candidates(
        self, game: np.ndarray, law: Sequence[float], generator: np.random.Generator
    ) -> list[tuple[int, int, float]]:
        if self.selection == "best_worst":
            # As in the paper an answer also meets itself, which counts one half.
            rates = np.nanmean(game, axis=1)
            best, worst = int(rates.argmax()), int(rates.argmin())
            return [(best, worst if rates[best] > rates[worst] else best, 1.0)]
        pairs = list(combinations(range(len(game)), 2))
        weights = [2.0 * law[i] * law[j] if law else 1.0 / len(pairs) for i, j in pairs]
        if self.selection == "all":
            return [(i, j, w) for (i, j), w in zip(pairs, weights, strict=True)]
        count = min(self.count, len(pairs))
        shares = np.array(weights) / sum(weights)
        drawn = generator.choice(len(pairs), size=count, replace=False, p=shares)
        return [(*pairs[k], 1.0 / count) for k in sorted(drawn.tolist())]

    def _label(
        self, i: int, j: int, verdict: float, generator: np.random.Generator
    ) -> tuple[int, int, float]:
        prob = verdict
        if self.labels == "sampled":
            prob = float(generator.random() < verdict)
        elif self.labels == "hard":
            ranked = self.selection == "best_worst"
            prob = 1.0 if ranked else 0.5 + 0.5 * float(np.sign(verdict - 0.5))
        return (i, j, prob) if prob >= 0.5 else (j, i, 1.0 - prob)
