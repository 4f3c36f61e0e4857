"""Prompts that several completions share are read once, also where a gradient is taken.

What a model makes of a prompt does not depend on what follows it. So the prompts of a batch, each
once, are read into a key-value cache, whose rows are repeated for their completions; the gradient
flows through the cache. Completions of similar length are read together, so that little padding
is. The numbers are those of one row ``prompt + completion`` per pair, up to the order of sums.
With dropout on, completions of a prompt share the prompt's mask.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from transformers import DynamicCache

from equilign.rollout.decoding import can_decode
from equilign.rollout.models import (
    accepts,
    base_model,
    is_compiled,
    tables_depend_on_length,
)

_WORTH = 0.75
"""Prompts are read apart where that leaves at most this share of the tokens, padding included."""
_LEAST = 64
"""Tokens that a forward pass of its own must save on a processor, as it has a price. Of 16 to 512,
doubling, 32 and 64 were the best on the shipped model."""
_DEVICE_LEAST = 4096
"""The same on an accelerator, where a pass of few tokens takes as long. Chosen, not measured."""


@dataclass(frozen=True)
class Past:
    """What a model remembers of ``p`` prompts, but for their last tokens.

    Attributes:
        cache: keys and values, a row per prompt (grad).
        mask: 1 on tokens that were read, ``(p, t)``; padding is on the left.
        owners: whose each of ``n`` completions is, ``(n,)``.
        padded: whether any prompt is.
        runs: completions to be read together.
    """

    cache: DynamicCache
    mask: Tensor
    owners: Tensor
    padded: bool
    runs: tuple[tuple[int, ...], ...]

    def inputs(self, model: nn.Module, rows: Sequence[int], width: int) -> dict[str, Any]:
        """Of a forward pass over the next ``width`` tokens of some completions."""
        owners = self.owners[list(rows)]
        cache, mask = DynamicCache(), self.mask[owners]
        cache.layers = [copy(layer) for layer in self.cache.layers]
        cache.reorder_cache(owners.long())  # type: ignore[arg-type]
        given: dict[str, Any] = {"past_key_values": cache, "use_cache": True}
        if self.padded:
            given["attention_mask"] = torch.cat([mask, mask.new_ones(len(mask), width)], dim=1)
        if accepts(model, "position_ids"):
            after = torch.arange(width, device=mask.device)
            given["position_ids"] = mask.sum(1, keepdim=True) + after
        return given


def read_prompts(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    pad_id: int,
    *,
    one_run: bool = False,
) -> Past | None:
    """Read every different prompt once, without its last token, which is the first to predict from.

    Args:
        model: a causal language model, in its wrappers.
        prompts: token ids, one sequence per completion.
        completions: token ids.
        pad_id: fills up; masked, so its value does not matter.
        one_run: read all completions together, whatever their lengths.

    Returns:
        None where it would not save enough, or where the model cannot: no ordinary key-value
        cache, angles that depend on the length of the row, compiled, gradient checkpointing, which
        keeps nothing, DeepSpeed, or training under FSDP.
    """
    known = {prompt: i for i, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    device = next(model.parameters()).device
    least = _LEAST if device.type == "cpu" else _DEVICE_LEAST
    others = _waits_for_others(model)
    share = _worth(list(known), prompts, completions, least) and _can(model)
    if not (_all_agree(share, device) if others else share):
        return None
    ids, mask = (x.to(device) for x in _without_last(list(known), pad_id))
    cache, padded = DynamicCache(), not bool(mask.all())
    inputs: dict[str, Any] = {"attention_mask": mask} if padded else {}
    if accepts(model, "position_ids"):
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **inputs)
    if cache.get_seq_length() != ids.shape[1]:
        return None  # it took the cache, and left it aside
    owners = torch.tensor([known[tuple(prompt)] for prompt in prompts], device=device)
    lengths = [len(c) for c in completions]
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    whole = one_run or others
    runs = [tuple(range(len(lengths)))] if whole else _runs(order, lengths, least)
    return Past(cache, mask, owners, padded, tuple(runs))


def _without_last(prompts: Sequence[tuple[int, ...]], pad_id: int) -> tuple[Tensor, Tensor]:
    width = max(map(len, prompts)) - 1
    ids = torch.full((len(prompts), width), pad_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        start = width - len(prompt) + 1
        ids[row, start:], mask[row, start:] = torch.tensor(prompt[:-1]), 1
    return ids, mask


def _runs(order: list[int], lengths: Sequence[int], least: int) -> list[tuple[int, ...]]:
    """Rows, longest first, cut where that saves most padding, as long as it saves enough."""
    longest = lengths[order[0]]
    saved, cut = max(
        (((len(order) - i) * (longest - lengths[order[i]]), i) for i in range(len(order))),
    )
    if saved < least or cut == 0:
        return [tuple(order)]
    return _runs(order[:cut], lengths, least) + _runs(order[cut:], lengths, least)


def _worth(
    different: Sequence[tuple[int, ...]],
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    least: int,
) -> bool:
    if len(different) == len(prompts) or min(map(len, different)) < 2:
        return False
    once = max(len(p) + len(c) for p, c in zip(prompts, completions, strict=True)) * len(prompts)
    twice = (max(map(len, different)) - 1) * len(different)
    twice += (max(map(len, completions)) + 1) * len(prompts)
    return twice <= _WORTH * once and once - twice >= least


def _can(model: nn.Module) -> bool:
    base = base_model(model)
    if base is None or not accepts(model, "logits_to_keep") or is_compiled(model):
        return False
    if type(model).__name__ == "DeepSpeedEngine" or tables_depend_on_length(model):
        return False
    if getattr(base.config, "output_router_logits", False):
        return False  # their balance is computed from a mask as wide as the tokens
    if torch.is_grad_enabled() and any(isinstance(m, FSDPModule) for m in model.modules()):
        return False  # the cache is no output of a layer: its gradient finds the weights put away
    forgets = base.training and any(
        getattr(m, "gradient_checkpointing", False) for m in base.modules()
    )
    return not forgets and can_decode(model)


def _waits_for_others(model: nn.Module) -> bool:
    """Whether a forward pass needs one of every other process, as while training."""
    return torch.is_grad_enabled() and isinstance(model, DistributedDataParallel)


def _all_agree(share: bool, device: torch.device) -> bool:
    """Whether all processes would: each must make as many forward passes as the others."""
    votes = torch.tensor(int(share), device=device)
    torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MIN)
    return bool(votes)
