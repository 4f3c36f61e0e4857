"""Log-probabilities of stored responses token by token, and the states that a critic reads.

The conventions are those of `equilign.rollout.scoring`: one row ``prompt + completion`` per pair,
the prompt and all padding masked, the one end token counted.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from equilign.rollout import completion_token_logps
from equilign.rollout.generate import eval_mode
from equilign.rollout.scoring import batching_order


@dataclass(frozen=True)
class TokenScores:
    """Tokens of ``n`` completions, padded to one width.

    Attributes:
        logps: log-probability of each token, nats (grad); 0 where the mask is off.
        mask: tokens of the completions.
        states: input of the output layer at the position *before* each token (no grad): all that
            the policy knew when it chose the token. None unless asked for.
    """

    logps: Float[Tensor, "n t"]
    mask: Bool[Tensor, "n t"]
    states: Float[Tensor, "n t h"] | None = None


def output_layer(model: nn.Module) -> nn.Module:
    """The layer that makes logits from states; under PEFT the adapted one."""
    layer = model.get_output_embeddings()  # type: ignore[operator]
    assert isinstance(layer, nn.Module)  # noqa: S101 - every causal language model has one
    return layer


@contextmanager
def _inputs_of(layer: nn.Module | None) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []
    if layer is None:
        yield seen
        return
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    try:
        yield seen
    finally:
        handle.remove()


def completion_tokens(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    pad_id: int,
    temperature: float = 1.0,
    head: nn.Module | None = None,
) -> TokenScores:
    """Each completion's tokens given its prompt. Differentiable.

    Args:
        model: a causal language model, in its wrapper where it has one (DDP).
        prompts: token ids, at least one token each.
        completions: token ids, at least one token each.
        pad_id: token to pad with.
        temperature: the softmax temperature that the responses were sampled at.
        head: the model's output layer, to keep the states too.
    """
    with _inputs_of(head) as seen:
        logps, mask = completion_token_logps(
            model,
            prompts,
            completions,
            pad_id=pad_id,
            temperature=temperature,
            one_run=head is not None,
        )
    # The last pass is the one that counts: before the first one the model is tried out.
    width = mask.shape[1] + 1
    return TokenScores(logps, mask, seen[-1][:, -width:-1] if seen else None)


@torch.no_grad()
def score_tokens(
    model: nn.Module,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    pad_id: int,
    temperature: float = 1.0,
    batch_size: int = 64,
    head: nn.Module | None = None,
    value: Callable[[Tensor], Tensor] | None = None,
) -> tuple[list[list[float]], list[list[float]]]:
    """Token log-probabilities and values, in batches of similar length, dropout off.

    Args:
        model: a causal language model.
        pairs: prompt and completion ids, at least one token each.
        pad_id: token to pad with.
        temperature: the softmax temperature that the responses were sampled at.
        batch_size: completions scored together.
        head: the model's output layer, for ``value``.
        value: values ``(n, t)`` of states ``(n, t, h)``.

    Returns:
        One list per completion of log-probabilities (nats), and of values (empty lists without
        ``value``), one number per token.
    """
    order = batching_order([prompt for prompt, _ in pairs], [answer for _, answer in pairs])
    logps: list[list[float]] = [[] for _ in order]
    values: list[list[float]] = [[] for _ in order]
    with eval_mode(model):
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            scores = completion_tokens(
                model,
                [pairs[i][0] for i in batch],
                [pairs[i][1] for i in batch],
                pad_id=pad_id,
                temperature=temperature,
                head=head,
            )
            known = None if value is None or scores.states is None else value(scores.states)
            for place, i in enumerate(batch):
                mine = scores.mask[place]
                logps[i] = scores.logps[place][mine].tolist()
                if known is not None:
                    values[i] = known[place][mine].tolist()
    return logps, values
