"""Policies with parameters: a table of logits, and the small network of EGPO's simulations."""

import math
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from equilign.errors import ConfigError


class Policy(nn.Module):
    """One distribution over ``n`` responses for each of ``X`` games, as a differentiable function.

    Attributes:
        shape: ``(X, n)``.
    """

    shape: tuple[int, int]

    def logits(self) -> Float[Tensor, "x n"]:
        """Unnormalised log-probabilities, nats."""
        raise NotImplementedError

    def forward(self) -> Float[Tensor, "x n"]:
        """Log-probabilities of every response, nats."""
        return self.logits().log_softmax(dim=1)

    def log_policy(self) -> Float[np.ndarray, "x n"]:
        """The same, as an array without gradient."""
        with torch.no_grad():
            found: np.ndarray = self().double().numpy()
        return found


class TabularPolicy(Policy):
    """The logits themselves are the parameters.

    Args:
        logits: of the start policy, shape ``(X, n)``, nats.
    """

    def __init__(self, logits: Float[np.ndarray, "x n"]) -> None:
        super().__init__()
        table = torch.tensor(logits, dtype=torch.float64)
        if table.ndim != 2 or not bool(torch.isfinite(table).all()):
            raise ConfigError(
                f"logits of shape {tuple(table.shape)}; a finite (games, responses) table is needed"
            )
        self.table = nn.Parameter(table)
        self.shape = (table.shape[0], table.shape[1])

    def logits(self) -> Float[Tensor, "x n"]:
        """The table."""
        return self.table


class MLPPolicy(Policy):
    """The network of EGPO's simulations: a learnable input per game, two hidden layers, logits.

    ``input -> linear, ReLU -> linear, ReLU -> linear -> n logits``; inputs standard normal,
    weights Xavier normal, biases zero, float64. In those simulations one network serves all
    games, which therefore move each other. With several networks each serves an equal part of
    the games, in order. With fewer ``starts`` than networks the same starts recur, so that one
    batch can hold the same networks on the same games with different learning rates.

    Args:
        games: X.
        responses: n.
        seed: of inputs and weights.
        networks: how many share the games; 1 for all games, ``games`` for one each.
        starts: different networks at the start, repeated in order; all of them by default.
        width: of the input and of both hidden layers.

    References:
        Zhou et al. 2025 (arXiv:2503.08942), released simulations: 10 games, 100 responses,
        width 10, one network.
    """

    def __init__(
        self,
        games: int,
        responses: int,
        *,
        seed: int = 0,
        networks: int = 1,
        starts: int | None = None,
        width: int = 10,
    ) -> None:
        super().__init__()
        distinct = networks if starts is None else starts
        sizes = (games, responses, networks, distinct, width)
        if min(sizes) < 1 or games % networks or networks % distinct:
            raise ConfigError(
                f"games, responses, networks, starts, width = {sizes}; each must be at least 1, "
                "networks must divide games and starts must divide networks"
            )
        generator = torch.Generator().manual_seed(seed)

        def draw(*size: int) -> Tensor:
            values = torch.randn((distinct, *size), generator=generator, dtype=torch.float64)
            return values.repeat(networks // distinct, 1, 1)

        self.shape = (games, responses)
        self.inputs = nn.Parameter(draw(games // networks, width))
        widths = [width, width, width, responses]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for above, below in pairwise(widths):
            scale = math.sqrt(2.0 / (above + below))
            self.weights.append(scale * draw(above, below))
            self.biases.append(torch.zeros(networks, 1, below, dtype=torch.float64))

    def logits(self) -> Float[Tensor, "x n"]:
        """The network's output."""
        values: Tensor = self.inputs
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = torch.baddbmm(bias, values, weight)
            if i < last:
                values = values.relu()
        return values.view(self.shape)
