"""Learning-rate schedules that begin anew with every round."""

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import TrainingArguments, get_scheduler


def schedule_per_round(
    args: TrainingArguments, optimizer: torch.optim.Optimizer, steps_per_round: int
) -> LRScheduler:
    """The schedule that ``args`` ask for, over one round, repeated.

    Schedules that are no function of the step alone (``reduce_lr_on_plateau``) run through.
    """
    extra = args.lr_scheduler_kwargs
    base: LRScheduler = get_scheduler(
        args.lr_scheduler_type,
        optimizer=optimizer,
        num_warmup_steps=args.get_warmup_steps(steps_per_round),
        num_training_steps=steps_per_round,
        scheduler_specific_kwargs=extra if isinstance(extra, dict) else None,
    )
    if isinstance(base, LambdaLR):
        shape = base.lr_lambdas[0]
        base = LambdaLR(optimizer, lambda step: shape(step % steps_per_round))
    return base
