"""Log-probabilities of stored responses token by token, and the states that a critic reads.

The conventions are those of `equilign.rollout.scoring`: one row ``prompt + completion`` per pair,
the prompt and all padding masked, the one end token counted.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from equilign.losses import token_logps
from equilign.rollout.generate import eval_mode
from equilign.rollout.scoring import pad_pairs

_CHUNK_TOKENS = 64
"""Positions whose vocabulary is held in float32 at a time."""


@dataclass(frozen=True)
class TokenScores:
    """Tokens of ``n`` completions, padded to one width.

    Attributes:
        logps: log-probability of each token, nats (grad); anything where the mask is off.
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


def _accepts_logits_to_keep(model: nn.Module) -> bool:
    # A PEFT or DDP wrapper hides the signature of the model that it wraps.
    return any(
        "logits_to_keep" in inspect.signature(module.forward).parameters
        for module in model.modules()
    )


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
    ids, attention, answer = pad_pairs(prompts, completions, pad_id)
    device = next(model.parameters()).device
    ids, attention, answer = ids.to(device), attention.to(device), answer.to(device)
    positions = (attention.long().cumsum(-1) - 1).clamp(min=0)
    # Logits are needed from the position before the first completion token on.
    first = int(answer.long().argmax(-1).min())
    keep = ids.shape[1] - first + 1
    options: dict[str, Any] = {"logits_to_keep": keep} if _accepts_logits_to_keep(model) else {}
    with _inputs_of(head) as seen:
        logits = model(
            input_ids=ids,
            attention_mask=attention.long(),
            position_ids=positions,
            use_cache=False,
            **options,
        ).logits
    logps = _chunked_logps(logits[:, -keep:-1], ids[:, first:], temperature)
    return TokenScores(logps, answer[:, first:], seen[-1][:, -keep:-1] if seen else None)


def _chunked_logps(logits: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """`token_logps`, some positions at a time; recomputed rather than kept for the gradient."""
    scale = 1.0 if temperature == 0.0 else temperature

    def score(part: Tensor, chosen: Tensor) -> Tensor:
        return token_logps(part if scale == 1.0 else part / scale, chosen)

    pieces = []
    for start in range(0, ids.shape[1], _CHUNK_TOKENS):
        part = logits[:, start : start + _CHUNK_TOKENS], ids[:, start : start + _CHUNK_TOKENS]
        pieces.append(checkpoint(score, *part, use_reentrant=False))
    return torch.cat(pieces, dim=1)


def completion_token_logps(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    pad_id: int,
    temperature: float = 1.0,
) -> tuple[Float[Tensor, "n t"], Bool[Tensor, "n t"]]:
    """Log-probability of each completion token in nats, and the mask of what is one."""
    scores = completion_tokens(model, prompts, completions, pad_id=pad_id, temperature=temperature)
    return scores.logps, scores.mask


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
    order = sorted(range(len(pairs)), key=lambda i: (len(pairs[i][0]) + len(pairs[i][1]), i))
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
