"""Pairs from a data set as token ids: whole, or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from equilign.errors import DataError
from equilign.formats import PreferencePair
from equilign.rollout import prompt_text
from equilign.rollout.encoding import encode_completion, encode_prompt
from equilign.trainers.judged import as_json
from equilign.trainers.pair_selection import LabelledPairs, PairChoice
from equilign.trainers.rounds import Row

Ids = tuple[int, ...]


@dataclass(frozen=True)
class GivenPairs:
    """A data set of pairs, and how long they may be.

    Attributes:
        pairs: the data.
        tokenizer: of the policy.
        ends: tokens that end an answer.
        max_prompt_length: in tokens.
        max_completion_length: in tokens, the end token included.
    """

    pairs: Sequence[PreferencePair]
    tokenizer: PreTrainedTokenizerBase
    ends: frozenset[int]
    max_prompt_length: int
    max_completion_length: int

    def check(self) -> None:
        """Encode all of them.

        Raises:
            DataError: one is too long; names it, the limit and the cure.
        """
        for number, pair in enumerate(self.pairs):
            problem = self._problem(*self._encode(pair))
            if problem:
                raise DataError(
                    f"pair {number + 1} ({prompt_text(pair.prompt)[:60]!r}): its {problem}. "
                    "Raise the limit, shorten the data, or leave such pairs out: too_long = 'drop'"
                )

    def row(self, member: int, labels: str, generator: np.random.Generator) -> Row:
        """Pair ``member`` as a row of a round; without a pair where it is too long."""
        pair = self.pairs[member]
        prompt_ids, answers = self._encode(pair)
        too_long = bool(self._problem(prompt_ids, answers))
        texts = [pair.chosen, pair.rejected]
        game = np.array([[0.5, pair.chosen_prob], [1.0 - pair.chosen_prob, 0.5]])
        labelled = PairChoice("all", labels).of(game, texts, (), generator)
        return {
            "prompt_index": member,
            "prompt": pair.prompt,
            "prompt_ids": list(prompt_ids),
            "completions": texts,
            "completion_ids": [list(ids) for ids in answers],
            "finished": [True, True],
            "prefs": as_json(game),
            **(LabelledPairs([], [], []) if too_long else labelled).fields(),
            "too_long": int(too_long),
        }

    def _encode(self, pair: PreferencePair) -> tuple[Ids, list[Ids]]:
        answers = [
            encode_completion(self.tokenizer, pair.prompt, text, self.ends)
            for text in (pair.chosen, pair.rejected)
        ]
        return encode_prompt(self.tokenizer, pair.prompt), answers

    def _problem(self, prompt_ids: Ids, answers: list[Ids]) -> str:
        """Which limit a pair exceeds, in words; empty if none."""
        if len(prompt_ids) > self.max_prompt_length:
            limit = f"max_prompt_length = {self.max_prompt_length}"
            return f"prompt has {len(prompt_ids)} tokens, more than {limit}"
        longest = max(map(len, answers))
        if longest > self.max_completion_length:
            limit = f"max_completion_length = {self.max_completion_length}"
            return f"longer answer has {longest} tokens, more than {limit}"
        return ""
