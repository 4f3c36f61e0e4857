"""Who improves whose answers: every Follower shown the very answers that its replies then play."""

from collections.abc import Mapping, Sequence

import numpy as np

from equilign.evaluation.refine import Refiner
from equilign.oracles import Oracle, compare_symmetric
from equilign.rollout import Group, prompt_text


def reply(refiner: Refiner, led: Sequence[Group], seed: int) -> list[Group]:
    """One reply to every answer, in the order of the answers.

    The groups have the Leader's prompts, so that they can be compared with anybody's answers; an
    answer that the Follower cannot be shown stays.
    """
    rows = refiner.chain(led, 1, seed)
    return [
        Group(group.prompt, group.prompt_ids, tuple(c.answers[1] for c in row))
        for group, row in zip(led, rows, strict=True)
    ]


def correction(oracle: Oracle, replies: Sequence[Group], led: Sequence[Group]) -> np.ndarray:
    """How often a reply beats the answer that it was shown, mean per prompt, shape ``(prompts,)``.

    Both orders are asked and averaged, equal texts tie; nan where no pair has a verdict.

    Raises:
        ValueError: the replies do not fit the answers.
    """
    prompts, better, worse = [], [], []
    for mine, theirs in zip(replies, led, strict=True):
        for a, b in zip(mine.completions, theirs.completions, strict=True):
            prompts.append(prompt_text(theirs.prompt))
            better.append(a.text)
            worse.append(b.text)
    verdicts = compare_symmetric(oracle, prompts, better, worse)
    ends = np.cumsum([len(g.completions) for g in led])[:-1]
    means = []
    for part in np.split(verdicts, ends):
        seen = part[~np.isnan(part)]
        means.append(float(seen.mean()) if seen.size else float("nan"))
    return np.array(means)


def correction_matrix(
    oracle: Oracle,
    replies: Mapping[str, Mapping[str, Sequence[Group]]],
    led: Mapping[str, Sequence[Group]],
) -> dict[str, dict[str, np.ndarray]]:
    """`correction` of every Follower on every Leader.

    Args:
        oracle: who judges.
        replies: Follower -> Leader -> its replies.
        led: Leader -> the answers that were shown.

    Returns:
        Follower -> Leader -> win rates of the replies per prompt.
    """
    return {
        follower: {leader: correction(oracle, mine[leader], led[leader]) for leader in mine}
        for follower, mine in replies.items()
    }
