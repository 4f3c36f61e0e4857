"""How far a policy is from the model that it started from: KL(policy || start) per completion.

Completions ``y ~ pi(. | x)`` are sampled from the policy at temperature 1 and top-p 1. By the
chain rule, with the end token among the tokens,

    KL(pi(. | x) || ref(. | x)) = E_y[sum_t KL(pi(. | x, y_<t) || ref(. | x, y_<t))],

where ``t`` runs over the tokens of ``y``; a completion that is cut at the length limit stops
there, and the number is the KL of the cut processes. Two unbiased estimators follow. ``k1`` is the
mean of ``log pi(y) - log ref(y)``. The other one adds up the inner KL, which is exact, over the
positions that were visited: that is ``k1`` with every token's term replaced by its expectation
given what precedes it (Rao-Blackwell), never negative, and of less variance in practice (Amini,
Vieira & Cotterell 2025, arXiv:2504.10637).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from equilign.errors import ModelError
from equilign.evaluation.intervals import Estimate, clustered_mean
from equilign.losses.logps import CHUNK_ELEMENTS, DEVICE_CHUNK_ELEMENTS
from equilign.rollout import Group
from equilign.rollout.generate import eval_mode
from equilign.rollout.next_tokens import NextTokens, next_tokens
from equilign.rollout.scoring import batching_order

Playing = Callable[[], AbstractContextManager[nn.Module]]
"""A context within which a module is a policy; two policies may be adapters of one module."""


@dataclass(frozen=True)
class Divergence:
    """What one sampled completion says.

    Attributes:
        logp: log-probability of the completion to the policy, nats.
        start_logp: the same to the start model.
        exact: sum over its tokens of the exact KL between the two next-token distributions.
        tokens: its length, end token included.
        finished: whether the policy ended it.
    """

    logp: float
    start_logp: float
    exact: float
    tokens: int
    finished: bool

    @property
    def log_ratio(self) -> float:
        """The term of ``k1``."""
        return self.logp - self.start_logp


@dataclass(frozen=True)
class Distance:
    """How far a policy is from the start model, with intervals clustered by prompt.

    Attributes:
        kl: KL per completion in nats, from exact next-token KL.
        k1: the same from log-probabilities of whole completions.
        per_token: KL per token in nats: mean KL over mean length.
        tokens: mean length, end token included.
        finished: share of completions that the policy ended.
    """

    kl: Estimate
    k1: Estimate
    per_token: Estimate
    tokens: Estimate
    finished: float


def token_divergences(
    policy: NextTokens, start: NextTokens, ids: Tensor, chunk_elements: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each position: log-probability of the token to both, and the exact KL between them.

    Some positions at a time, in float64 where the device has it; arrays of all positions times
    the vocabulary never exist.

    Args:
        policy: distributions at some positions.
        start: at the same positions.
        ids: the tokens that were drawn there, ``(positions,)``.
        chunk_elements: numbers in an array at a time, one position's at the least.

    Returns:
        Three arrays ``(positions,)`` in nats: to the policy, to the start model, KL.

    Raises:
        ModelError: the two tell apart different numbers of tokens.
    """
    if policy.vocabulary != start.vocabulary:
        raise ModelError(other_vocabulary(policy.vocabulary, start.vocabulary))
    device = ids.device.type
    wide = torch.float32 if device == "mps" else torch.float64
    if chunk_elements is None:
        # Numbers of twice the size, of two models; the accelerator's share was not measured.
        chunk_elements = CHUNK_ELEMENTS // 2 if device == "cpu" else DEVICE_CHUNK_ELEMENTS // 4
    rows = max(1, chunk_elements // policy.vocabulary)
    # Made at once: small results between large arrays would keep those from being given back.
    found = torch.empty(3, len(ids), dtype=wide, device=ids.device)
    for at in range(0, len(ids), rows):
        part = slice(at, at + rows)
        _look(policy.log_probs(part, wide), start.log_probs(part, wide), ids[part], found[:, part])
    return found[0], found[1], found[2]


def _look(mine: Tensor, theirs: Tensor, ids: Tensor, out: Tensor) -> None:
    out[0] = mine.gather(1, ids[:, None])[:, 0]
    out[1] = theirs.gather(1, ids[:, None])[:, 0]
    out[2] = _exact(mine, theirs)


def _exact(mine: Tensor, theirs: Tensor) -> Tensor:
    """KL of rows of log-probabilities; ``theirs`` is written over."""
    chances = mine.exp()
    # A token of no probability counts nothing, whatever the other model says.
    gaps = torch.sub(mine, theirs, out=theirs).masked_fill_(chances == 0.0, 0.0)
    return chances.mul_(gaps).sum(-1).clamp_(min=0.0)  # below 0 is rounding


def other_vocabulary(mine: int, theirs: int) -> str:
    """What a user is told of models that cannot be compared."""
    return (
        f"it tells apart {mine} tokens and the start model {theirs}, so no distance is defined. "
        "Give as --start the model that it was trained from, or one with the same vocabulary"
    )


@torch.no_grad()
def divergences(
    policy: Playing,
    start: Playing,
    groups: Sequence[Group],
    *,
    pad_id: int,
    batch_size: int = 64,
    chunk_elements: int | None = None,
) -> list[list[Divergence]]:
    """Both models on the policy's own completions, one list per group.

    Both see the very same tokens: those of ``prompt_ids`` and of the completion.

    Args:
        policy: who sampled the completions.
        start: whom it is compared with; has the same vocabulary.
        groups: prompts with completions.
        pad_id: token to pad with.
        batch_size: completions read together.
        chunk_elements: see `token_divergences`.
    """
    flat = [(g.prompt_ids, c) for g in groups for c in g.completions]
    prompts, answers = [p for p, _ in flat], [c.ids for _, c in flat]
    order = batching_order(prompts, answers)
    found: dict[int, Divergence] = {}
    for begin in range(0, len(order), batch_size):
        rows = order[begin : begin + batch_size]
        both = []
        for playing in (policy, start):
            with playing() as model, eval_mode(model):
                mine = [prompts[i] for i in rows], [answers[i] for i in rows]
                both.append(next_tokens(model, *mine, pad_id=pad_id))
        ids = torch.tensor([t for i in rows for t in answers[i]], device=both[0].states.device)
        numbers = token_divergences(both[0], both[1], ids, chunk_elements)
        lengths = [len(answers[i]) for i in rows]
        sums = [[float(p.sum()) for p in torch.split(x, lengths)] for x in numbers]
        for i, length, logp, start_logp, exact in zip(rows, lengths, *sums, strict=True):
            found[i] = Divergence(logp, start_logp, exact, length, flat[i][1].finished)
    values = iter(found[i] for i in range(len(flat)))
    return [[next(values) for _ in g.completions] for g in groups]


def distance(
    found: Sequence[Sequence[Divergence]],
    weights: Sequence[Sequence[float]] | None = None,
    longest: float = np.inf,
) -> Distance:
    """Means over prompts, with 95 % intervals clustered by prompt.

    Args:
        found: of each prompt its completions, at least one.
        weights: of the completions of each prompt, summing to 1; equal by default.
        longest: the length limit.

    Raises:
        ValueError: no prompt.
    """
    if weights is None:
        weights = [[1.0 / len(row)] * len(row) for row in found]

    def means(of: Callable[[Divergence], float]) -> np.ndarray:
        rows = zip(found, weights, strict=True)
        return np.array([sum(w * of(d) for d, w in zip(*row, strict=True)) for row in rows])

    kl, tokens = means(lambda d: d.exact), means(lambda d: d.tokens)
    k1 = clustered_mean(means(lambda d: d.log_ratio), bounds=(-np.inf, np.inf))
    rate = kl.mean() / tokens.mean()
    # Linearised: the spread of a ratio of means is that of kl - rate * tokens.
    per_token = clustered_mean(rate + (kl - rate * tokens) / tokens.mean(), bounds=(0.0, np.inf))
    return Distance(
        clustered_mean(kl, bounds=(0.0, np.inf)),
        k1,
        per_token,
        clustered_mean(tokens, bounds=(0.0, longest)),
        float(means(lambda d: float(d.finished)).mean()),
    )
