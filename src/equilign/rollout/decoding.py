"""The decoder: continuations of prompts, token by token, from one policy or a mixture of several.

Against `transformers.generate` it encodes a prompt once for all its continuations, computes the
logits of the last position only, drops rows from the batch as they finish, does not copy the
cache at every token, and draws by inversion. The law is the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from equilign.rollout.draws import draw, nucleus
from equilign.rollout.mixture import Part, mixed_logits
from equilign.rollout.models import OneOfSeveral, accepts, base_model

_DROP_SHARE = 0.125
"""Finished rows leave the batch when they are this share of it."""
_GROWTH = 32
"""Tokens that a cache grows by at least."""


@dataclass(frozen=True)
class Decoding:
    """How continuations are drawn.

    Attributes:
        num_samples: continuations per prompt.
        max_new_tokens: length limit, end token included.
        temperature: divides the logits of every part; 0 takes the likeliest token.
        top_p: nucleus mass.
        ends: tokens that end a continuation.
    """

    num_samples: int
    max_new_tokens: int
    temperature: float
    top_p: float
    ends: frozenset[int]

    @property
    def whole(self) -> bool:
        """Whether tokens are drawn from all of a policy, and not the likeliest ones alone."""
        return self.temperature > 0.0 and self.top_p >= 1.0


def can_decode(model: nn.Module) -> bool:
    """Whether every layer of ``model`` keeps its past in an ordinary key-value cache."""
    base = base_model(model)
    if base is None or base.config.is_encoder_decoder or base._is_stateful:
        return False
    kinds = vars(base.config).get("layer_types") or ()
    return (
        base._supports_default_dynamic_cache()  # type: ignore[operator]
        and accepts(model, "past_key_values")
        and not _counts_positions_its_own_way(base)
        and set(kinds) <= {"full_attention", "sliding_attention"}
        and not _writes_its_own_past(model)
    )


def _counts_positions_its_own_way(base: nn.Module) -> bool:
    """RoBERTa's kind begins after the number of its padding token."""
    return any(
        isinstance(module, nn.Embedding) and module.padding_idx is not None
        for name, module in base.named_modules()
        if name.endswith("position_embeddings")
    )


def _writes_its_own_past(model: nn.Module) -> bool:
    """Prefix tuning puts learned keys and values where the cache begins."""
    from peft import PeftModel  # only where the extra is there to be asked

    for module in model.modules():
        if isinstance(module, OneOfSeveral):
            return _writes_its_own_past(module.current)
        if isinstance(module, PeftModel):
            return bool(module.active_peft_config.is_prompt_learning)
        if isinstance(module, PreTrainedModel):
            break
    return False


class _Layer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values with room behind them: a new token is written, nothing is copied."""

    def __init__(self, layer: DynamicLayer, repeats: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        assert layer.keys is not None and layer.values is not None  # noqa: S101, PT018
        self.is_initialized, self.dtype, self.device = True, layer.dtype, layer.device
        self._length = layer.keys.shape[-2]
        held = (layer.keys, layer.values)
        self._buffers = tuple(_with_room(x, _GROWTH, repeats) for x in held)
        self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        shown = tuple(x.narrow(-2, 0, self._length) for x in self._buffers)
        self.keys, self.values = shown
        return shown[0], shown[1]

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: Any,  # noqa: ANN401 - signature of transformers
        **kwargs: Any,  # noqa: ANN401
    ) -> tuple[Tensor, Tensor]:
        start, new = self._length, key_states.shape[-2]
        if start + new > self._buffers[0].shape[-2]:
            room = max(_GROWTH, new, start // 2)
            self._buffers = tuple(_with_room(x, room) for x in self._show())
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer.narrow(-2, start, new).copy_(states)
        self._length += new
        return self._show()

    def batch_select_indices(self, indices: Tensor) -> None:
        self._buffers = tuple(x.index_select(0, indices) for x in self._buffers)
        self._show()


def _with_room(states: Tensor, room: int, repeats: int = 1) -> Tensor:
    rows, heads, length, size = states.shape
    buffer = states.new_empty(rows, repeats, heads, length + room, size)
    buffer.narrow(-2, 0, length).copy_(states.unsqueeze(1))
    return buffer.flatten(0, 1)


class _Stream:
    """One part's policy: its past, and its next-token logits."""

    def __init__(self, model: nn.Module, part: Part, rows: "_Rows", prompts: Tensor) -> None:
        self.weight, self._playing = part
        self._model = model
        self._cache = DynamicCache()
        self._options: dict[str, Any] = {"past_key_values": self._cache, "use_cache": True}
        first: dict[str, Any] = {"logits_to_keep": 1} if accepts(model, "logits_to_keep") else {}
        self.logits = self._forward(prompts, rows, first)

    def advance(self, tokens: Tensor, rows: "_Rows") -> None:
        self.logits = self._forward(tokens[:, None], rows, {})

    def repeat(self, times: int) -> None:
        for i, layer in enumerate(self._cache.layers):
            assert isinstance(layer, DynamicLayer)  # noqa: S101 - no configuration was given
            self._cache.layers[i] = _Layer(layer, times)
        self.logits = self.logits.repeat_interleave(times, 0)

    def keep(self, indices: Tensor) -> None:
        self._cache.batch_select_indices(indices)

    def _forward(self, ids: Tensor, rows: "_Rows", options: dict[str, Any]) -> Tensor:
        with self._playing():
            out = self._model(input_ids=ids, **rows.inputs(), **self._options, **options)
        # A copy: a view would keep the logits of all positions alive.
        last: Tensor = out.logits[:, -1].clone()
        return last


class _Rows:
    """The unfinished continuations: whose they are, their positions and what they may look at."""

    def __init__(self, model: nn.Module, mask: Tensor, room: int) -> None:
        self.index = torch.arange(len(mask), device=mask.device)
        self._length = mask.shape[1]
        self._mask = torch.cat([mask, mask.new_ones(len(mask), room)], dim=1)
        self._positions = (mask.cumsum(-1) - 1).clamp(min=0)
        self._gives_positions = accepts(model, "position_ids")
        self._padded = not bool(mask.all())

    def inputs(self) -> dict[str, Tensor]:
        given = {"attention_mask": self._mask[:, : self._length]} if self._padded else {}
        return {**given, "position_ids": self._positions} if self._gives_positions else given

    def repeat(self, times: int) -> None:
        self.index = torch.arange(len(self.index) * times, device=self.index.device)
        self._mask = self._mask.repeat_interleave(times, 0)
        self._positions = self._positions[:, -1:].repeat_interleave(times, 0)

    def advance(self) -> None:
        self._length += 1
        self._positions = self._positions + 1

    def keep(self, indices: Tensor) -> None:
        self.index, self._mask = self.index[indices], self._mask[indices]
        self._positions = self._positions[indices]


@torch.no_grad()
def decode(
    model: nn.Module, parts: Sequence[Part], ids: Tensor, mask: Tensor, options: Decoding
) -> tuple[Tensor, Tensor]:
    """Continuations of every row, each part of the mixture with a key-value cache of its own.

    Args:
        model: the module that all parts share, in evaluation mode; see `can_decode`.
        parts: weights and contexts; `equilign.rollout.mixture.ITSELF` for the model as it is.
        ids: prompts, padded on the left, ``(n, t)``.
        mask: 1 on prompt tokens, ``(n, t)``.
        options: how to draw.

    Returns:
        Continuations ``(n * num_samples, <= max_new_tokens)``, rows of a prompt together, and the
        log-probability of each token in the law that it was drawn from, nats (0 where the likeliest
        is taken). What follows the first end token of a row has no meaning.
    """
    rows = _Rows(model, mask, options.max_new_tokens)
    streams = [_Stream(model, part, rows, ids) for part in parts]
    batch: tuple[_Rows | _Stream, ...] = (rows, *streams)
    for x in batch:
        x.repeat(options.num_samples)
    chosen = ids.new_zeros(len(rows.index), options.max_new_tokens)
    exact = streams[0].logits.dtype == torch.float64
    logps = torch.zeros_like(chosen, dtype=torch.float64 if exact else torch.float32)
    last = torch.tensor(sorted(options.ends), device=ids.device)
    done = torch.zeros(len(rows.index), dtype=torch.bool, device=ids.device)
    for step in range(options.max_new_tokens):
        tokens, logp = _choose(streams, options)
        chosen[rows.index, step], logps[rows.index, step] = tokens, logp.to(logps.dtype)
        done = done | (tokens == last if len(last) == 1 else torch.isin(tokens, last))
        finished = int(done.sum())
        if finished == len(done) or step + 1 == options.max_new_tokens:
            break
        if finished > 0 and finished >= _DROP_SHARE * len(done):
            left = (~done).nonzero()[:, 0]
            for x in batch:
                x.keep(left)
            tokens, done = tokens[left], done[left]
        rows.advance()
        for stream in streams:
            stream.advance(tokens, rows)
    return chosen[:, : step + 1], logps[:, : step + 1]


def _choose(streams: Sequence[_Stream], options: Decoding) -> tuple[Tensor, Tensor]:
    scale = options.temperature or 1.0
    logits = mixed_logits(
        [s.logits if scale == 1.0 else s.logits.float() / scale for s in streams],
        [s.weight for s in streams],
    )
    if options.temperature == 0.0:
        tokens = logits.argmax(-1)
        return tokens, logits.new_zeros(len(tokens))
    law = nucleus(logits, options.top_p).softmax(-1)
    tokens = draw(law)
    return tokens, law.gather(-1, tokens[:, None])[:, 0].log()
