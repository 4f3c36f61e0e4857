"""The critic of PPO: a small value network with an optimiser of its own."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from equilign.errors import ModelError
from equilign.rollout.generate import seeded


class Critic(nn.Module):
    """Expected reward to go of the states of a language model.

    The last layer starts at 0: before it has learned anything, every value is 0.

    Args:
        width: of a state.
        kind: ``"head"`` is linear; ``"mlp"`` has one hidden layer as wide as a state.
        dtype: of the weights; at least float32.
        seed: of the hidden layer's weights.
    """

    def __init__(
        self, width: int, kind: Literal["head", "mlp"], *, dtype: torch.dtype, seed: int
    ) -> None:
        super().__init__()
        with seeded(seed, torch.device("cpu")):
            hidden = [nn.Linear(width, width, dtype=dtype), nn.SiLU()] if kind == "mlp" else []
            last = nn.Linear(width, 1, dtype=dtype)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*hidden, last)
        self._dtype = dtype

    def forward(self, states: Tensor) -> Tensor:
        """Values ``(...)`` of states ``(..., width)``, in units of reward."""
        # Sums of small rewards drown in bfloat16.
        with torch.autocast(states.device.type, enabled=False):
            values: Tensor = self.layers(states.to(self._dtype)).squeeze(-1)
        return values


class CriticLearner:
    """A critic and its AdamW.

    The states are not differentiated, so its gradient never meets the policy's: it has a backward
    pass and a step of its own. Under several processes every one holds the same critic; their
    gradients are averaged by hand, as the launcher wraps the policy only.

    Args:
        critic: moved to ``device``.
        learning_rate: constant.
        max_grad_norm: gradients are clipped to it; 0 for not.
        device: of the policy.
    """

    def __init__(
        self, critic: Critic, *, learning_rate: float, max_grad_norm: float, device: torch.device
    ) -> None:
        self.critic = critic.to(device)
        self.optimizer = torch.optim.AdamW(
            self.critic.parameters(), lr=learning_rate, weight_decay=0.0
        )
        self._max_grad_norm = max_grad_norm

    def values(self, states: Tensor) -> Tensor:
        """Values ``(n, t)`` of states ``(n, t, width)``."""
        result: Tensor = self.critic(states)
        return result

    def accumulate(self, loss: Tensor, batches: int) -> None:
        """Add the gradient of one of ``batches`` mean losses that make a step together."""
        (loss / batches).backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """Average the gradient over the processes, step, and forget it."""
        parameters = list(self.critic.parameters())
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for g in gradients:
                torch.distributed.all_reduce(g)
                g /= torch.distributed.get_world_size()
        for p, g in zip(parameters, gradients, strict=True):
            p.grad = g
        if self._max_grad_norm > 0.0:
            clip_grad_norm_(parameters, self._max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def save(self, folder: Path) -> None:
        """Write weights and optimiser state into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {"critic": self.critic.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(state, folder / "critic.pt")

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            ModelError: it is not there, or of another critic.
        """
        path = folder / "critic.pt"
        if not path.exists():
            raise ModelError(f"{path} is missing: this checkpoint is of a run without a critic")
        device = next(self.critic.parameters()).device
        state = torch.load(path, map_location=device, weights_only=True)
        try:
            self.critic.load_state_dict(state["critic"])
        except RuntimeError as error:
            raise ModelError(f"{path} holds a critic of another shape: {error}") from error
        self.optimizer.load_state_dict(state["optimizer"])
