"""Log-probabilities that a model gives to stored responses."""

import inspect
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from equilign.losses import sequence_logps, token_logps
from equilign.rollout.generate import eval_mode
from equilign.rollout.types import Group


def pad_pairs(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    pad_id: int,
    side: Literal["left", "right"] = "left",
) -> tuple[Int[Tensor, "n t"], Bool[Tensor, "n t"], Bool[Tensor, "n t"]]:
    """One row ``prompt + completion`` per pair.

    Args:
        prompts: token ids.
        completions: token ids, one sequence per prompt, end token included where there is one.
        pad_id: fills up; masked, so its value does not matter.
        side: where the padding goes; results do not depend on it.

    Returns:
        ids, attention mask, and the mask of completion tokens, each ``(n, t)``.
    """
    width = max(len(p) + len(c) for p, c in zip(prompts, completions, strict=True))
    ids = torch.full((len(prompts), width), pad_id)
    attention = torch.zeros(len(prompts), width, dtype=torch.bool)
    answer = torch.zeros_like(attention)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        length = len(prompt) + len(completion)
        start = width - length if side == "left" else 0
        ids[row, start : start + length] = torch.tensor([*prompt, *completion])
        attention[row, start : start + length] = True
        answer[row, start + len(prompt) : start + length] = True
    return ids, attention, answer


def _accepts_logits_to_keep(model: nn.Module) -> bool:
    # A PEFT or DDP wrapper hides the signature of the model that it wraps.
    for module in model.modules():
        if "logits_to_keep" in inspect.signature(module.forward).parameters:
            return True
    return False


def completion_logps(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    pad_id: int,
    temperature: float = 1.0,
    side: Literal["left", "right"] = "left",
) -> Float[Tensor, " n"]:
    """Log-probability of each completion given its prompt, summed over tokens, in nats.

    The prompt and all padding are left out; the one end token counts. Differentiable.

    Args:
        model: a causal language model.
        prompts: token ids, at least one token each.
        completions: token ids, at least one token each.
        pad_id: token to pad with.
        temperature: the softmax temperature that the responses were sampled at.
        side: padding side.
    """
    ids, attention, answer = pad_pairs(prompts, completions, pad_id, side)
    device = next(model.parameters()).device
    ids, attention, answer = ids.to(device), attention.to(device), answer.to(device)
    positions = (attention.long().cumsum(-1) - 1).clamp(min=0)
    # Logits are needed from the position before the first completion token on.
    first = int(answer.long().argmax(-1).min())
    keep = ids.shape[1] - first + 1
    options = {"logits_to_keep": keep} if _accepts_logits_to_keep(model) else {}
    logits = model(
        input_ids=ids,
        attention_mask=attention.long(),
        position_ids=positions,
        use_cache=False,
        **options,
    ).logits
    logits = logits[:, -keep:-1]
    if temperature not in (0.0, 1.0):
        logits = logits / temperature
    return sequence_logps(token_logps(logits, ids[:, first:]), answer[:, first:])


@torch.no_grad()
def score_completions(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    pad_id: int,
    temperature: float = 1.0,
    batch_size: int = 64,
) -> list[float]:
    """`completion_logps` in batches of similar length, without gradients, dropout off."""
    lengths = [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)]
    order = sorted(range(len(prompts)), key=lambda i: (lengths[i], i))
    result = [0.0] * len(prompts)
    with eval_mode(model):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            logps = completion_logps(
                model,
                [prompts[i] for i in rows],
                [completions[i] for i in rows],
                pad_id=pad_id,
                temperature=temperature,
            )
            for i, value in zip(rows, logps.tolist(), strict=True):
                result[i] = value
    return result


def score_answers(
    model: nn.Module,
    groups: Sequence[Group],
    *,
    pad_id: int,
    temperature: float = 1.0,
    batch_size: int = 64,
) -> list[list[float]]:
    """`score_completions` of every answer of every group, one list per group."""
    flat = [(g.prompt_ids, c.ids) for g in groups for c in g.completions]
    values = iter(
        score_completions(
            model,
            [prompt for prompt, _ in flat],
            [ids for _, ids in flat],
            pad_id=pad_id,
            temperature=temperature,
            batch_size=batch_size,
        )
    )
    return [[next(values) for _ in g.completions] for g in groups]
