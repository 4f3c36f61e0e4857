"""Whole next-token distributions at the places where stored completions were sampled."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equilign.rollout.output_layer import OutputLayer
from equilign.rollout.scoring import ForwardPass, forward_pass, readings


@dataclass(frozen=True)
class NextTokens:
    """A model's next-token distributions at some positions, made when they are asked for.

    Attributes:
        states: inputs of the output layer, ``(positions, hidden)``; without one, logits in the
            model's own type, ``(positions, vocabulary)``.
        layer: the output layer, where it is a plain one.
    """

    states: Tensor
    layer: OutputLayer | None

    @property
    def vocabulary(self) -> int:
        """Number of different tokens."""
        return int(self.states.shape[1] if self.layer is None else self.layer.linear.out_features)

    def log_probs(self, part: slice, dtype: torch.dtype) -> Tensor:
        """Log-probability of every token at some of the positions, ``(n, vocabulary)``, nats."""
        states = self.states[part]
        logits = states.to(dtype) if self.layer is None else self.layer.logits(states, dtype)
        return logits.log_softmax(-1)


@torch.no_grad()
def next_tokens(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    pad_id: int,
) -> NextTokens:
    """The distributions that each token of each completion was, or could have been, drawn from.

    One position per token, end token included, completion after completion.

    Args:
        model: a causal language model in evaluation mode.
        prompts: token ids, at least one token each.
        completions: token ids, at least one token each, end token included where there is one.
        pad_id: token to pad with.
    """
    found: dict[int, Tensor] = {}
    layer = None
    for reading in readings(model, prompts, completions, pad_id):
        go = forward_pass(model, reading)
        layer = go.layer
        parts = torch.split(_states(model, go), go.mask.sum(1).tolist())
        found |= dict(zip(reading.rows, parts, strict=True))
    return NextTokens(torch.cat([found[i] for i in range(len(completions))]), layer)


def _states(model: nn.Module, go: ForwardPass) -> Tensor:
    if go.layer is None:
        logits: Tensor = model(**go.inputs).logits
        return logits[:, -go.mask.shape[1] - 1 : -1][go.mask]
    caught: list[Tensor] = []
    with go.layer.catching(go.mask, caught):
        model(**go.inputs)
    return caught[0]
