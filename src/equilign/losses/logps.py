"""Log-probabilities of sequences."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

CHUNK_ELEMENTS = 2**23
"""Logits that `linear_token_logps` holds at a time on a processor: 32 MiB in float32. Of the sizes
2^16 to 2^24 the smallest that costs no more time than whole logits at 32,000 and 152,000 tokens."""
DEVICE_CHUNK_ELEMENTS = 2**27
"""The same on an accelerator, whose products want more rows: 512 MiB. Chosen, not measured."""


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


def linear_token_logps(
    hidden: Float[Tensor, "token hidden"],
    weight: Float[Tensor, "vocab hidden"],
    bias: Float[Tensor, " vocab"] | None,
    ids: Int[Tensor, " token"],
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    chunk_elements: int | None = None,
) -> Float[Tensor, " token"]:
    """`token_logps` of a linear output layer, of which all logits never exist at once.

    Some tokens at a time, ``hidden @ weight.T + bias`` is computed, normalised and forgotten; the
    gradient computes it again, except for the last chunk, whose room it needs anyway. Products are
    taken in the type that a linear layer would take (autocast's where it is on), everything after
    them at least in float32, and so are sums over chunks. Once differentiable.

    Args:
        hidden: inputs of the output layer (grad).
        weight: of the output layer (grad).
        bias: of the output layer (grad).
        ids: the tokens asked for.
        temperature: divides the logits, ``> 0``.
        softcap: logits become ``softcap * tanh(logits / softcap)`` first (Gemma 2).
        chunk_elements: logits held at a time, one row of them at the least; None for
            `CHUNK_ELEMENTS`, or `DEVICE_CHUNK_ELEMENTS` where there is an accelerator.

    Returns:
        Log-probabilities in nats, float64 for float64 inputs and else float32.
    """
    device = hidden.device.type
    cast = torch.is_autocast_enabled(device)
    compute = torch.get_autocast_dtype(device) if cast else weight.dtype
    if chunk_elements is None:
        chunk_elements = CHUNK_ELEMENTS if device == "cpu" else DEVICE_CHUNK_ELEMENTS
    rows = max(1, chunk_elements // weight.shape[0])
    head = _Head(compute, temperature, softcap, rows)
    found: Tensor = _LinearLogps.apply(hidden, weight, bias, ids, head)  # type: ignore[no-untyped-call]
    return found


@dataclass(frozen=True)
class _Head:
    """Everything about the output layer but its numbers."""

    compute: torch.dtype
    temperature: float
    softcap: float | None
    rows: int

    @property
    def wide(self) -> torch.dtype:
        return torch.float64 if self.compute == torch.float64 else torch.float32

    def chunks(self, tokens: int) -> list[slice]:
        """The shortest comes first: the last one is kept, and its room is enough for all."""
        first = tokens % self.rows
        starts = range(first, tokens, self.rows)
        return [slice(0, first)] * (first > 0) + [slice(s, s + self.rows) for s in starts]

    def logits(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, room: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Logits of a chunk written into ``room``, and the slope of the soft cap there."""
        wide = room[: len(hidden)]
        if self.compute != self.wide:
            wide.copy_(linear(hidden, weight, bias))
        elif bias is None:
            torch.mm(hidden, weight.t(), out=wide)
        else:
            torch.addmm(bias, hidden, weight.t(), out=wide)
        slope = None
        if self.softcap is not None:
            wide.div_(self.softcap).tanh_()
            slope = 1.0 - wide.square()
            wide.mul_(self.softcap)
        return wide.div_(self.temperature) if self.temperature != 1.0 else wide, slope


def _normalise(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probabilities of ``ids``; ``logits`` become probabilities, in place."""
    chosen = logits.gather(1, ids[:, None])
    top = logits.amax(1, keepdim=True)
    total = logits.sub_(top).exp_().sum(1, keepdim=True)
    logits.div_(total)
    return (chosen - top - total.log())[:, 0]


class _LinearLogps(torch.autograd.Function):
    """See `linear_token_logps`."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own type
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        head: _Head,
    ) -> Tensor:
        result = hidden.new_empty(len(ids), dtype=head.wide)
        room, slope = _room(head, hidden, weight), None
        with torch.autocast(hidden.device.type, enabled=False):
            operands = [None if x is None else x.to(head.compute) for x in (weight, bias)]
            for part in head.chunks(len(ids)):
                inputs = hidden[part].to(head.compute)
                logits, slope = head.logits(inputs, operands[0], operands[1], room)  # type: ignore[arg-type]
                result[part] = _normalise(logits, ids[part])
        if any(ctx.needs_input_grad):
            ctx.head, ctx.last = head, (room, slope)
            ctx.save_for_backward(hidden, weight, bias, ids)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        hidden, weight, bias, ids = ctx.saved_tensors
        head: _Head = ctx.head
        needs = ctx.needs_input_grad
        sums = _Sums.zeros(hidden, weight, bias, needs, head.wide)
        # Not kept for a second backward pass: the room is written over.
        room, slope = ctx.last if ctx.last is not None else (_room(head, hidden, weight), None)
        known, ctx.last = ctx.last is not None, None
        with torch.autocast(hidden.device.type, enabled=False):
            narrow = weight.to(head.compute)
            for part in reversed(head.chunks(len(ids))):
                inputs, chosen = hidden[part].to(head.compute), ids[part]
                probs = room[: len(inputs)]
                if not known:
                    bias_now = None if bias is None else bias.to(head.compute)
                    logits, slope = head.logits(inputs, narrow, bias_now, room)
                    _normalise(logits, chosen)
                known = False
                upstream = grad[part, None] / head.temperature
                probs.mul_(-upstream).scatter_add_(1, chosen[:, None], upstream)
                if slope is not None:
                    probs.mul_(slope)
                sums.add(part, probs, inputs, narrow)
        return (*sums.gradients(hidden, weight, bias), None, None)


def _room(head: _Head, hidden: Tensor, weight: Tensor) -> Tensor:
    rows = min(head.rows, len(hidden))
    return hidden.new_empty(rows, weight.shape[0], dtype=head.wide)


@dataclass
class _Sums:
    """Gradients over chunks; those of parameters in at least float32."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @staticmethod
    def zeros(
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        needs: tuple[bool, ...],
        wide: torch.dtype,
    ) -> "_Sums":
        return _Sums(
            torch.empty_like(hidden) if needs[0] else None,
            torch.zeros_like(weight, dtype=wide) if needs[1] else None,
            torch.zeros_like(bias, dtype=wide) if bias is not None and needs[2] else None,
        )

    def add(self, part: slice, slopes: Tensor, inputs: Tensor, weight: Tensor) -> None:
        narrow = slopes.to(weight.dtype)
        if self.hidden is not None:
            self.hidden[part] = narrow @ weight
        if self.weight is not None:
            if self.weight.dtype == narrow.dtype:
                self.weight.addmm_(narrow.t(), inputs)
            else:
                self.weight.add_(narrow.t() @ inputs)
        if self.bias is not None:
            self.bias.add_(slopes.sum(0))

    def gradients(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        return (
            self.hidden,
            None if self.weight is None else self.weight.to(weight.dtype),
            None if self.bias is None or bias is None else self.bias.to(bias.dtype),
        )
