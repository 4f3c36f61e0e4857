"""Geometric mixtures of policies that share one module.

Token by token, the next-token logits of every part are combined with their weights and normalised
again (Munos et al. 2024, arXiv:2312.00886, section 7). For answers of more than one token that is
another law than the mixture of whole answers, which has no tractable sampler; the two agree for
single tokens.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

Part = tuple[float, Callable[[], AbstractContextManager[None]]]
"""A weight, and a context within which the module is that part's policy."""

ITSELF: tuple[Part, ...] = ((1.0, nullcontext),)
"""The module as it is."""


def mixed_logits(streams_logits: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """``sum_k w_k log_softmax(logits_k)`` up to a constant, float32."""
    if len(weights) == 1:
        only = streams_logits[0].float()
        return only if weights[0] == 1.0 else weights[0] * only
    parts = [w * log_softmax(x.float(), -1) for x, w in zip(streams_logits, weights, strict=True)]
    return torch.stack(parts).sum(dim=0)
