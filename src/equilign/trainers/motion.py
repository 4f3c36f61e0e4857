"""Whether every player really moves: a frozen one is no error to anybody else."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from equilign.errors import ModelError
from equilign.trainers.players import Role

if TYPE_CHECKING:
    from equilign.trainers.slhf import SLHFTrainer


class PlayersMove(TrainerCallback):
    """Holds a player back at steps that are not its own, and checks that it moves at the others.

    The check is made once per player: at the first optimiser step at which its learning rate and
    its loss's coefficients were not all zero.
    """

    def __init__(self, trainer: "SLHFTrainer") -> None:
        self._trainer = trainer
        self._open: set[Role] = set(trainer.roles)
        self._before: dict[Role, tuple[nn.Parameter, Tensor] | None] = {}

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401 - signature of transformers
    ) -> None:
        """Take away the gradient of who stands still; note where the others are."""
        trainer = self._trainer
        if trainer.pair is not None and "leader" not in trainer.due():
            # Without a gradient an optimiser applies neither momentum nor weight decay.
            for parameter in trainer.pair.weights("leader"):
                parameter.grad = None
        self._before = {}
        for role in self._expected():
            self._before[role] = _largest_gradient(trainer.player_weights(role))

    def _expected(self) -> list[Role]:
        """Players that must move at this step; the same in all processes."""
        trainer = self._trainer
        if not self._open or trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
            # Sharded weights are those of one model, of which no process sees all gradients.
            return []
        pushed = [float(trainer.pushed[role]) for role in trainer.roles]
        found = torch.tensor(pushed, device=trainer.args.device)
        anywhere = trainer.accelerator.reduce(found, reduction="sum").tolist()
        return [
            role
            for role, push in zip(trainer.roles, anywhere, strict=True)
            if role in self._open and push > 0.0 and self._rate(role) > 0.0
        ]

    def _rate(self, role: Role) -> float:
        mine = {id(p) for p in self._trainer.player_weights(role)}
        optimizer = self._trainer.optimizer
        assert optimizer is not None  # noqa: S101 - it is about to make a step
        groups = optimizer.param_groups
        rates = [float(g["lr"]) for g in groups if any(id(p) in mine for p in g["params"])]
        return max(rates, default=0.0)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401 - signature of transformers
    ) -> None:
        """Raise if somebody who should have moved did not.

        Raises:
            ModelError: says who, and what to look at.
        """
        trainer = self._trainer
        trainer.pushed = dict.fromkeys(trainer.roles, False)
        if trainer.accelerator.optimizer_step_was_skipped:  # a float16 overflow
            return
        for role, before in self._before.items():
            who = "the model" if trainer.pair is None else f"the {role}"
            if before is None:
                raise ModelError(
                    f"{who} got no gradient at its first step, though its answers were judged: its "
                    "weights are cut off from its loss. Was requires_grad changed after the "
                    "trainer was made, or an adapter activated by hand?"
                )
            parameter, old = before
            if torch.equal(parameter.detach(), old):
                raise ModelError(
                    f"{who} did not move at its first step, though it had a gradient: a step of "
                    f"{self._rate(role):g} is lost in {parameter.dtype}. Keep the weights in "
                    "float32 (args.bf16 for mixed precision), or raise learning_rate"
                )
            self._open.discard(role)
        self._before = {}


def _largest_gradient(weights: list[nn.Parameter]) -> tuple[nn.Parameter, Tensor] | None:
    """The weight with the largest gradient, and a copy of it; None without any gradient."""
    sizes = [(_size(p), i) for i, p in enumerate(weights)]
    size, place = max(sizes, default=(0.0, 0))
    if not size > 0.0:
        return None
    return weights[place], weights[place].detach().clone()


def _size(parameter: nn.Parameter) -> float:
    gradient = parameter.grad
    if gradient is None or not gradient.numel():
        return 0.0
    return float(gradient.detach().abs().max())
