"""Sampling from a geometric mixture of policies that share one module.

Token by token, the next-token logits of every part are combined with their weights and normalised
again (Munos et al. 2024, arXiv:2312.00886, section 7). For answers of more than one token that is
another law than the mixture of whole answers, which has no tractable sampler; the two agree for
single tokens.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from transformers import DynamicCache, PreTrainedModel

Part = tuple[float, Callable[[], AbstractContextManager[None]]]
"""A weight, and a context within which the module is that part's policy."""


@dataclass
class _Stream:
    """One part's past and its next-token logits."""

    part: Part
    cache: DynamicCache
    logits: Tensor


def mixed_logits(streams_logits: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """``sum_k w_k log_softmax(logits_k)``, unnormalised, float32."""
    parts = [w * log_softmax(x.float(), -1) for x, w in zip(streams_logits, weights, strict=True)]
    return torch.stack(parts).sum(dim=0)


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """``logits`` with everything outside the nucleus of mass ``top_p`` at ``-inf``."""
    if top_p >= 1.0:
        return logits
    ranked, order = logits.sort(dim=-1, descending=True)
    mass_before = ranked.softmax(-1).cumsum(-1) - ranked.softmax(-1)
    ranked = ranked.masked_fill(mass_before >= top_p, float("-inf"))
    return torch.full_like(logits, float("-inf")).scatter(-1, order, ranked)


@torch.no_grad()
def generate_mixture(  # noqa: PLR0913 - what a decoder needs to know
    model: PreTrainedModel,
    parts: Sequence[Part],
    ids: Tensor,
    mask: Tensor,
    *,
    num_samples: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    ends: frozenset[int],
    pad_id: int,
) -> Tensor:
    """``num_samples`` continuations of every row, each part with a key-value cache of its own.

    Prompts are encoded once per part, whatever the number of samples.

    Args:
        model: the shared module, in evaluation mode.
        parts: weights and contexts.
        ids: prompts, padded on the left, ``(n, t)``.
        mask: 1 on prompt tokens, ``(n, t)``.
        num_samples: continuations per prompt.
        max_new_tokens: length limit.
        temperature: divides every part's logits, ``> 0``.
        top_p: nucleus mass of the mixture.
        ends: tokens that end a continuation.
        pad_id: what follows an end.

    Returns:
        Continuations ``(n * num_samples, <= max_new_tokens)``, rows of a prompt together.
    """
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    streams = [_encode(model, part, ids, mask, positions, num_samples) for part in parts]
    mask = mask.repeat_interleave(num_samples, 0)
    position = positions[:, -1:].repeat_interleave(num_samples, 0)
    done = torch.zeros(len(mask), dtype=torch.bool, device=ids.device)
    last = torch.tensor(sorted(ends), device=ids.device)
    chosen: list[Tensor] = []
    while len(chosen) < max_new_tokens:
        mixed = mixed_logits(
            [s.logits / temperature for s in streams], [s.part[0] for s in streams]
        )
        token = torch.multinomial(nucleus(mixed, top_p).softmax(-1), 1)[:, 0]
        token = torch.where(done, torch.full_like(token, pad_id), token)
        chosen.append(token)
        done = done | torch.isin(token, last)
        if bool(done.all()) or len(chosen) == max_new_tokens:
            break
        position = position + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        for stream in streams:
            with stream.part[1]():
                stream.logits = _next(model, stream.cache, token[:, None], mask, position)
    return torch.stack(chosen, dim=1)


def _encode(
    model: PreTrainedModel, part: Part, ids: Tensor, mask: Tensor, positions: Tensor, samples: int
) -> _Stream:
    cache = DynamicCache()
    with part[1]():
        logits = _next(model, cache, ids, mask, positions)
    cache.batch_repeat_interleave(samples)
    return _Stream(part, cache, logits.repeat_interleave(samples, 0))


def _next(
    model: PreTrainedModel, cache: DynamicCache, ids: Tensor, mask: Tensor, positions: Tensor
) -> Tensor:
    options: dict[str, Any] = {"past_key_values": cache, "use_cache": True}
    out = model(input_ids=ids, attention_mask=mask, position_ids=positions, **options)
    logits: Tensor = out.logits[:, -1]
    return logits
