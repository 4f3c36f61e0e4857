"""The rows of a sequential game: a Leader's answers to a prompt, and a Follower's replies to each.

A row holds ``prompt_index``, ``prompt``, ``leader`` and ``followers``, one for every leader answer.
Each of these is a *side*: what one player said to one prompt of its own. It holds ``prompt_ids``,
``completions``, ``completion_ids``, ``finished``, ``weights``, ``logps`` (of whole responses when
they were sampled, nats), ``ref_logps`` (of every token under the reference, nats) and
``advantages`` (null: no verdict); a Follower's also ``wins``, the win probabilities of the
Leader's answer over its replies (null: no verdict).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equilign.oracles import Oracle, compare_symmetric
from equilign.rollout import Group, prompt_text
from equilign.trainers.players import Role
from equilign.trainers.rounds import Row

Side = dict[str, Any]


def judge(
    oracle: Oracle, led: Sequence[Group], replied: Sequence[Sequence[Group]]
) -> list[list[list[float]]]:
    """Pr(leader answer beats reply) on the original prompt; ``nan``: no verdict.

    Both orders are asked and averaged, a pair of texts once per prompt, equal texts not at all.

    Args:
        oracle: the judge.
        led: the Leader's answers to every prompt.
        replied: per prompt and leader answer the Follower's replies.

    Returns:
        Indexed by prompt, leader answer, reply.
    """
    keys = [
        (prompt_text(group.prompt), answer.text, reply.text)
        for group, sides in zip(led, replied, strict=True)
        for answer, side in zip(group.completions, sides, strict=True)
        for reply in side.completions
    ]
    place = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    columns = [list(column) for column in zip(*place, strict=True)]
    verdicts = compare_symmetric(oracle, *columns) if place else np.zeros(0)
    flat = iter(float(verdicts[place[key]]) for key in keys)
    return [[[next(flat) for _ in side.completions] for side in sides] for sides in replied]


def side_of(group: Group) -> Side:
    """What a player said to one prompt."""
    return {
        "prompt_ids": list(group.prompt_ids),
        "completions": [c.text for c in group.completions],
        "completion_ids": [list(c.ids) for c in group.completions],
        "finished": [c.finished for c in group.completions],
        "weights": list(group.probabilities()),
    }


def make_rows(
    members: Sequence[int],
    led: Sequence[Group],
    replied: Sequence[Sequence[Group]],
    wins: Sequence[Sequence[Sequence[float]]],
) -> list[Row]:
    """Rows without log-probabilities and advantages."""
    return [
        {
            "prompt_index": member,
            "prompt": group.prompt,
            "leader": side_of(group),
            "followers": [
                {**side_of(side), "wins": nullable(won)}
                for side, won in zip(sides, verdicts, strict=True)
            ],
        }
        for member, group, sides, verdicts in zip(members, led, replied, wins, strict=True)
    ]


def nullable(values: Sequence[float]) -> list[float | None]:
    """As JSON has them."""
    return [None if math.isnan(v) else float(v) for v in values]


def sides(rows: Sequence[Row], role: Role) -> list[Side]:
    """All that ``role`` said, prompt by prompt."""
    if role == "leader":
        return [row["leader"] for row in rows]
    return [side for row in rows for side in row["followers"]]


def table(rows: Sequence[Row], role: Role, field: str) -> Tensor:
    """A number per response: ``(prompt, answer)`` of a Leader, ``(prompt, answer, reply)``.

    Args:
        rows: all with as many answers and replies.
        role: whose.
        field: of its sides; null becomes ``nan``.
    """
    values = [
        [math.nan if v is None else float(v) for v in side[field]] for side in sides(rows, role)
    ]
    found = torch.tensor(values, dtype=torch.float64)
    return found if role == "leader" else found.view(len(rows), -1, found.shape[-1])


def law(rows: Sequence[Row], role: Role) -> Tensor:
    """Probability of every response in its game, shaped as `table`; sums to 1 per prompt."""
    leads = table(rows, "leader", "weights")
    return leads if role == "leader" else leads[..., None] * table(rows, "follower", "weights")


def fill(rows: Sequence[Row], role: Role, field: str, values: Sequence[Any]) -> None:
    """Give every response of ``role`` its value, in the order of `responses`."""
    flat: Iterator[Any] = iter(values)
    for side in sides(rows, role):
        side[field] = [next(flat) for _ in side["completion_ids"]]


@dataclass(frozen=True)
class Responses:
    """Responses of one player, one after the other.

    Attributes:
        prompts: token ids of what the player was shown.
        completions: token ids.
    """

    prompts: list[list[int]]
    completions: list[list[int]]

    @property
    def pairs(self) -> list[tuple[list[int], list[int]]]:
        """Prompt and completion of each."""
        return list(zip(self.prompts, self.completions, strict=True))


def responses(rows: Sequence[Row], role: Role, *, original_prompt: bool = False) -> Responses:
    """Every response of ``role``.

    Args:
        rows: as in the module's description.
        role: whose.
        original_prompt: put what the Leader was shown in place of what the Follower was.
    """
    found = Responses([], [])
    for row in rows:
        mine = [row["leader"]] if role == "leader" else row["followers"]
        for side in mine:
            shown = row["leader"]["prompt_ids"] if original_prompt else side["prompt_ids"]
            found.prompts.extend([shown] * len(side["completion_ids"]))
            found.completions.extend(side["completion_ids"])
    return found


def summary(rows: Sequence[Row]) -> dict[str, float]:
    """Metrics of a round. What is not said to be the Follower's is the Leader's.

    Win rates are of each player against the other; KL divergences to the start, nats per response;
    lengths in tokens, shares of 1.
    """
    result: dict[str, float] = {}
    wins, chance = table(rows, "follower", "wins"), law(rows, "follower")
    judged = ~wins.isnan()
    result["unjudged_share"] = float((chance * ~judged).sum()) / len(rows)
    known = float((chance * judged).sum())
    if known > 0.0:
        won = float((chance * wins.nan_to_num(nan=0.0)).sum()) / known
        result |= {"leader_win_rate": won, "follower_win_rate": 1.0 - won}
    for role, prefix in (("leader", ""), ("follower", "follower_")):
        chance = law(rows, role)  # type: ignore[arg-type]
        for name, values in _measured(rows, role).items():  # type: ignore[arg-type]
            result[prefix + name] = float((chance * values).sum()) / len(rows)
    return result


def _measured(rows: Sequence[Row], role: Role) -> dict[str, Tensor]:
    shape = law(rows, role).shape
    lengths = [float(len(ids)) for side in sides(rows, role) for ids in side["completion_ids"]]
    return {
        "kl_to_reference_nats": log_ratios(rows, role),
        "completion_tokens": torch.tensor(lengths, dtype=torch.float64).view(shape),
        "finished_share": table(rows, role, "finished"),
    }


def log_ratios(rows: Sequence[Row], role: Role) -> Tensor:
    """Log-ratio of every whole response to the reference when it was sampled, nats, as `table`."""
    old = table(rows, role, "logps")
    sums = [math.fsum(tokens) for side in sides(rows, role) for tokens in side["ref_logps"]]
    return old - torch.tensor(sums, dtype=torch.float64).view(old.shape)
