"""Log-probabilities of sequences."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def token_logps(
    logits: Float[Tensor, "batch token vocab"], ids: Int[Tensor, "batch token"]
) -> Float[Tensor, "batch token"]:
    """Log-probability of ``ids[:, t]`` under ``logits[:, t]``, in nats, at least in float32.

    ``logits[:, t]`` must already be the prediction *for* position ``t`` (shifted by the caller).
    Sums of bfloat16 log-probabilities are off by whole nats, hence the cast.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    chosen = wide.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    return chosen - wide.logsumexp(-1)


def sequence_logps(
    logps: Float[Tensor, "batch token"], mask: Bool[Tensor, "batch token"]
) -> Float[Tensor, " batch"]:
    """Sum over the tokens that ``mask`` marks (the response, its one EOS included), in nats."""
    return logps.masked_fill(~mask, 0.0).sum(-1)
