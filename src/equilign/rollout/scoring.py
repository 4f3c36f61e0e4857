"""Log-probabilities that a model gives to stored responses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from equilign.errors import DataError
from equilign.losses import sequence_logps, token_logps
from equilign.losses.logps import CHUNK_ELEMENTS
from equilign.rollout.generate import eval_mode
from equilign.rollout.models import accepts
from equilign.rollout.output_layer import OutputLayer, output_layer
from equilign.rollout.prefix import read_prompts
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

    Raises:
        DataError: a prompt or a completion has no tokens.
    """
    _check_tokens(prompts, completions)
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


def _check_tokens(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> None:
    for number, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        if not prompt or not completion:
            what = "completion" if prompt else "prompt"
            raise DataError(
                f"{what} {number} of the batch has no tokens: nothing can be scored without a "
                "token before it, or of nothing. Leave empty rows out"
            )


@dataclass(frozen=True)
class Reading:
    """Rows that one forward pass reads.

    Attributes:
        rows: which completions they are.
        ids: a prompt, or its last token, and the completion, ``(n, t)``.
        attention: 1 on tokens that are no padding, ``(n, t)``.
        answer: 1 on the completions' tokens, ``(n, t)``.
        side: of the padding.
        given: inputs about what was read before; empty where nothing was.
    """

    rows: Sequence[int]
    ids: Int[Tensor, "n t"]
    attention: Bool[Tensor, "n t"]
    answer: Bool[Tensor, "n t"]
    side: Literal["left", "right"] = "right"
    given: dict[str, Any] = field(default_factory=dict)


def readings(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    pad_id: int,
    side: Literal["left", "right"] = "right",
    *,
    one_run: bool = False,
) -> Iterator[Reading]:
    """The forward passes that see every completion once; arguments of `completion_token_logps`.

    A prompt of several completions is read once where that pays (`equilign.rollout.prefix`).

    Raises:
        DataError: a prompt or a completion has no tokens.
    """
    _check_tokens(prompts, completions)
    past = read_prompts(model, prompts, completions, pad_id, one_run=one_run)
    if past is None:
        padded = pad_pairs(prompts, completions, pad_id, side)
        yield Reading(range(len(prompts)), *padded, side=side)
        return
    for rows in past.runs:
        last, mine = [prompts[i][-1:] for i in rows], [completions[i] for i in rows]
        padded = pad_pairs(last, mine, pad_id, "right")
        yield Reading(rows, *padded, given=past.inputs(model, rows, padded[0].shape[1]))


def completion_token_logps(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    pad_id: int,
    temperature: float = 1.0,
    side: Literal["left", "right"] = "right",
    one_run: bool = False,
) -> tuple[Float[Tensor, "n t"], Bool[Tensor, "n t"]]:
    """Log-probability of each token of each completion, in nats, given what stands before it.

    Computed in chunks: no array of batch times length times vocabulary exists, here or in the
    gradient, as long as the output layer is a plain linear one (`output_layer` says when; other
    models make their logits, which are then widened in chunks). A prompt of several completions
    is read once where that pays (`equilign.rollout.prefix`). Differentiable.

    Args:
        model: a causal language model.
        prompts: token ids, at least one token each.
        completions: token ids, at least one token each, end token included where there is one.
        pad_id: token to pad with.
        temperature: the softmax temperature that the responses were sampled at.
        side: padding side of rows of a prompt and a completion.
        one_run: have all completions in the last forward pass, where a hook may look at them.

    Returns:
        Log-probabilities, 0 outside the completions, and the mask of the completions' tokens; the
        columns are those from the first token of any completion on.
    """
    scale = 1.0 if temperature == 0.0 else temperature
    logps, masks = [], []
    order: list[int] = []
    for reading in readings(model, prompts, completions, pad_id, side, one_run=one_run):
        found, mask = _read(model, reading, scale)
        if not reading.given:
            return found, mask
        room = (0, max(map(len, completions)) - found.shape[1])
        logps.append(nn.functional.pad(found, room))
        masks.append(nn.functional.pad(mask, room))
        order += reading.rows
    back = torch.tensor(order, device=logps[0].device).argsort()
    return torch.cat(logps)[back], torch.cat(masks)[back]


@dataclass(frozen=True)
class ForwardPass:
    """A forward pass over a `Reading`.

    Attributes:
        inputs: of the model.
        asked: the tokens whose predictions are wanted, ``(n, t)``; the model's last ``t + 1``
            positions but one make them.
        mask: which of them are tokens of a completion, ``(n, t)``.
        layer: the output layer, if it can be replaced.
    """

    inputs: dict[str, Any]
    asked: Int[Tensor, "n t"]
    mask: Bool[Tensor, "n t"]
    layer: OutputLayer | None


def forward_pass(model: nn.Module, reading: Reading) -> ForwardPass:
    """What a model is to be given for a reading."""
    device = next(model.parameters()).device
    ids, attention = reading.ids.to(device), reading.attention.to(device)
    answer = reading.answer.to(device)
    inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    # Padding on the right is never looked at from the left: it needs no mask.
    if reading.side == "left" and not bool(attention.all()):
        inputs["attention_mask"] = attention.long()
        if accepts(model, "position_ids"):
            inputs["position_ids"] = (attention.long().cumsum(-1) - 1).clamp(min=0)
    # Predictions are needed from the position before the first completion token on.
    first = int(answer.long().argmax(-1).min())
    keep = ids.shape[1] - first + 1
    if accepts(model, "logits_to_keep"):
        inputs["logits_to_keep"] = keep
    layer = output_layer(model, inputs)
    return ForwardPass(inputs | reading.given, ids[:, first:], answer[:, first:], layer)


def _read(
    model: nn.Module, reading: Reading, scale: float
) -> tuple[Float[Tensor, "n t"], Bool[Tensor, "n t"]]:
    """`completion_token_logps` in one forward pass."""
    go = forward_pass(model, reading)
    if go.layer is None:
        logits = model(**go.inputs).logits[:, -go.mask.shape[1] - 1 : -1]
        return _widened(logits, go.asked, scale).masked_fill(~go.mask, 0.0), go.mask
    with go.layer.telling(go.asked, go.mask, scale):
        told: Tensor = model(**go.inputs).logits
    return told[:, -go.mask.shape[1] - 1 : -1, 0], go.mask


def _widened(
    logits: Float[Tensor, "n t v"], ids: Int[Tensor, "n t"], scale: float
) -> Float[Tensor, "n t"]:
    """`token_logps`, some positions at a time; computed again for the gradient."""

    def score(part: Tensor, chosen: Tensor) -> Tensor:
        wide = part if part.dtype == torch.float64 else part.float()
        return token_logps(wide / scale, chosen)

    width = max(1, CHUNK_ELEMENTS // (logits.shape[0] * logits.shape[2]))
    pieces = [
        checkpoint(score, logits[:, s : s + width], ids[:, s : s + width], use_reentrant=False)
        for s in range(0, ids.shape[1], width)
    ]
    return torch.cat(pieces, dim=1)


def completion_logps(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    pad_id: int,
    temperature: float = 1.0,
    side: Literal["left", "right"] = "right",
) -> Float[Tensor, " n"]:
    """Log-probability of each completion given its prompt, summed over tokens, in nats.

    The prompt and all padding are left out; the one end token counts. Arguments and what is said
    of memory and gradients: as in `completion_token_logps`.
    """
    logps, mask = completion_token_logps(
        model, prompts, completions, pad_id=pad_id, temperature=temperature, side=side
    )
    return sequence_logps(logps, mask)


def batching_order(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> list[int]:
    """Pairs in an order in which to take batches: by length, and a prompt's own side by side."""
    lengths = [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)]
    first: dict[tuple[int, ...], int] = {}
    longest: dict[int, int] = {}
    for i, prompt in enumerate(map(tuple, prompts)):
        leader = first.setdefault(prompt, i)
        longest[leader] = max(longest.get(leader, 0), lengths[i])
    leaders = [first[tuple(prompt)] for prompt in prompts]
    return sorted(
        range(len(lengths)), key=lambda i: (longest[leaders[i]], leaders[i], lengths[i], i)
    )


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
    order = batching_order(prompts, completions)
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
