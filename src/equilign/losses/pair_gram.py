r"""Inner products of the gradients of pairs' margins, without ever holding one such gradient.

The gradient of ``r(a) - r(b)`` in a linear layer is a sum over tokens of outer products of the
layer's input and the gradient of its output. One forward pass and one backward pass over the
activations therefore give every layer's share of the Gram matrix, layer by layer, block by block;
what is kept is one number per pair of pairs. Other layers (norms, learned positions) are run again
answer by answer, which is cheap as they are small. What does not fit either way (weights used
twice, layers whose output has no rows per answer) is left to plain gradients, one per pair, by
`PairGram.of`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

_TOLERANCE = 1e-2
"""Relative difference that rounding in half precision may make."""
BLOCK_ELEMENTS = 2**24
"""Numbers held at a time for a layer's per-pair gradients: 64 MiB in float32."""


@dataclass(frozen=True)
class PairGram:
    """What the Gauss-Newton system needs of the model.

    Attributes:
        gram: inner products of the gradients of the pairs' margins.
        alignment: their inner products with the gradient of ``sum_i shares_i r_i``.
        rewards: of every answer.
        hooked: whether it came from one backward pass, rather than one per pair.
    """

    gram: Float[Tensor, "pair pair"]
    alignment: Float[Tensor, " pair"]
    rewards: Float[Tensor, " answer"]
    hooked: bool

    @classmethod
    def of(
        cls,
        model: nn.Module,
        rewards: Callable[[], Tensor],
        first: Int[Tensor, " pair"],
        second: Int[Tensor, " pair"],
        shares: Float[Tensor, " answer"],
        *,
        check: bool = False,
    ) -> "PairGram":
        """The Gram matrix over the model's trainable parameters.

        What the hooks assume of a model's layers (rows are answers, one answer's tokens stand
        together) is not written anywhere: ``check`` compares the first pair with its plain
        gradient, and takes plain gradients throughout where the two differ.

        Args:
            model: whose parameters count.
            rewards: runs the model once on all answers, rows in order; ``(n,)``.
            first: index of the one answer of each pair.
            second: index of the other.
            shares: of every answer.
            check: whether to compare; costs about as much again, so once per model will do.
        """
        layers = _own_parameters(model)
        if layers is not None and len(first):
            work = _Hooked(layers, first, second, shares)
            values = work.run(model, rewards)
            if check and not work.failed:
                one = _plain(model, rewards, first[:1], second[:1], shares)
                found = torch.stack([work.gram[0, 0], work.alignment[0]]).to(one.gram.dtype)
                true = torch.stack([one.gram[0, 0], one.alignment[0]])
                size = float(true.abs().max()) * _TOLERANCE
                work.failed = not torch.allclose(found, true, rtol=_TOLERANCE, atol=size)
            if not work.failed:
                return cls(work.gram, work.alignment, values, True)
        return _plain(model, rewards, first, second, shares)


def _own_parameters(model: nn.Module) -> dict[nn.Module, dict[str, nn.Parameter]] | None:
    """Layers with trainable parameters of their own; None where one has two homes."""
    found: dict[nn.Module, dict[str, nn.Parameter]] = {}
    seen: set[int] = set()
    for module in model.modules():
        own = {n: p for n, p in module.named_parameters(recurse=False) if p.requires_grad}
        if any(id(p) in seen for p in own.values()):
            return None
        seen |= {id(p) for p in own.values()}
        if own:
            found[module] = own
    return found


@contextmanager
def _frozen(layers: dict[nn.Module, dict[str, nn.Parameter]]) -> Iterator[None]:
    """Within, no parameter asks for a gradient: only activations do."""
    parameters = [p for own in layers.values() for p in own.values()]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


class _Hooked:
    """One pass forward and one back over the activations; layers report as they are passed."""

    def __init__(
        self,
        layers: dict[nn.Module, dict[str, nn.Parameter]],
        first: Tensor,
        second: Tensor,
        shares: Tensor,
    ) -> None:
        self.layers, self.first, self.second, self.shares = layers, first, second, shares
        size = len(first)
        wide = any(p.dtype == torch.float64 for own in layers.values() for p in own.values())
        dtype = torch.float64 if wide else torch.float32
        self.gram = torch.zeros(size, size, dtype=dtype, device=shares.device)
        self.alignment = torch.zeros(size, dtype=dtype, device=shares.device)
        self.failed = False
        self._calls: dict[nn.Module, int] = {}
        self._leaves: list[Tensor] = []

    def run(self, model: nn.Module, rewards: Callable[[], Tensor]) -> Tensor:
        handles = [m.register_forward_hook(self._passed, with_kwargs=True) for m in self.layers]
        with _frozen(self.layers), torch.enable_grad():
            try:
                values = rewards()
            finally:
                for handle in handles:
                    handle.remove()
            once = all(self._calls.get(module) == 1 for module in self.layers)
            self.failed = self.failed or not once
            if not self.failed:
                # Every answer's reward depends on its own row alone, so the sum's gradient has
                # each one's own in its row.
                torch.autograd.grad(values.sum(), self._leaves, allow_unused=True)
        return values.detach()

    def _passed(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        self._calls[module] = self._calls.get(module, 0) + 1
        rows = len(self.shares)
        fits = isinstance(output, Tensor) and output.dim() > 0
        if not fits or (output.shape[0] % rows and output.shape[0] != 1):
            self.failed = True
            return None
        if not output.requires_grad:
            # The first trainable layer: nothing before it asks for a gradient.
            output = output.detach().requires_grad_()
            self._leaves.append(output)
        # One row for all answers (learned positions): each gets its own, to tell them apart.
        if output.shape[0] == 1:
            output = output.expand(rows, *output.shape[1:])
        given = tuple(a.detach() if isinstance(a, Tensor) else a for a in args)
        output.register_hook(lambda slope: self._collect(module, given, kwargs, slope.detach()))
        return output

    def _collect(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], slope: Tensor
    ) -> None:
        plain = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
        if not plain or args[0].shape[:1] != slope.shape[:1]:
            self._other(module, args, kwargs, slope)
        # Some layers get the tokens of all answers in one row after the other: reshaped below.
        elif type(module) is nn.Linear:  # a subclass may do anything
            self._linear(self.layers[module], args[0], slope)
        elif type(module) is nn.Embedding:
            self._embedding(module, args[0], slope)
        else:
            self._other(module, args, kwargs, slope)

    def _add(self, rows: Tensor, total: Tensor) -> None:
        """One block of parameters: per-pair gradients ``(p, k)``, and that of the shares."""
        rows, total = rows.to(self.gram.dtype), total.to(self.gram.dtype)
        self.gram += rows @ rows.T
        self.alignment += rows @ total

    def _sides(self, values: Tensor, sign: int = 1) -> Tensor:
        """Both answers of every pair, one after the other along the tokens: ``(p, 2t, ...)``."""
        return torch.cat([values[self.first], sign * values[self.second]], dim=1)

    def _linear(self, own: dict[str, nn.Parameter], given: Tensor, slope: Tensor) -> None:
        rows = len(self.shares)
        given = given.reshape(rows, -1, given.shape[-1]).to(slope.dtype)
        slope = slope.reshape(rows, -1, slope.shape[-1])
        shared = (self.shares.to(slope.dtype)[:, None, None] * slope).flatten(0, 1)
        outer = self._sides(slope, -1)
        if "bias" in own:
            self._add(outer.sum(dim=1), shared.sum(dim=0))
        if "weight" not in own:
            return
        inner = self._sides(given)
        flat = given.flatten(0, 1)
        width = max(1, BLOCK_ELEMENTS // (max(len(self.first), 1) * given.shape[-1]))
        for start in range(0, slope.shape[-1], width):
            part = slice(start, start + width)
            products = outer[..., part].transpose(1, 2) @ inner
            self._add(products.flatten(1), (shared[:, part].T @ flat).flatten())

    def _embedding(self, module: nn.Embedding, given: Tensor, slope: Tensor) -> None:
        rows, wide = len(self.shares), slope.shape[-1]
        given, slope = given.reshape(rows, -1), slope.reshape(rows, -1, wide)
        if module.padding_idx is not None:  # torch gives this row no gradient
            slope = slope * (given != module.padding_idx)[..., None]
        kinds, place = torch.unique(given, return_inverse=True)
        shared = self.shares.to(slope.dtype)[:, None, None] * slope
        total = slope.new_zeros(len(kinds), wide)
        total.index_add_(0, place.flatten(), shared.flatten(0, 1))
        where, outer = self._sides(place), self._sides(slope, -1)
        pairs = len(self.first)
        where = where + len(kinds) * torch.arange(pairs, device=where.device)[:, None]
        width = max(1, BLOCK_ELEMENTS // (max(pairs, 1) * len(kinds)))
        for start in range(0, wide, width):
            part = outer[..., start : start + width]
            table = slope.new_zeros(pairs * len(kinds), part.shape[-1])
            table.index_add_(0, where.flatten(), part.flatten(0, 1))
            self._add(table.view(pairs, -1), total[:, start : start + width].flatten())

    def _other(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], slope: Tensor
    ) -> None:
        held = {n: p.detach().requires_grad_() for n, p in self.layers[module].items()}
        whole, size = len(slope), len(self.shares)
        each = whole // size

        def own(value: Any, i: int) -> Any:  # noqa: ANN401 - any input of a layer
            per_answer = isinstance(value, Tensor) and value.shape[:1] == (whole,)
            return value[i * each : (i + 1) * each] if per_answer else value

        found: dict[str, list[Tensor]] = {name: [] for name in held}
        for i in range(size):
            with torch.enable_grad():
                mine = tuple(own(a, i) for a in args)
                more = {name: own(a, i) for name, a in kwargs.items()}
                output = functional_call(module, held, mine, more)
            if output.shape != own(slope, i).shape:
                self.failed = True  # its input cannot be taken apart by answers
                return
            back = torch.autograd.grad(
                output, list(held.values()), own(slope, i), materialize_grads=True,
                allow_unused=True,
            )  # fmt: skip
            for name, value in zip(found, back, strict=True):
                found[name].append(value.flatten())
        for values in found.values():
            rows = torch.stack(values)
            self._add(rows[self.first] - rows[self.second], self.shares.to(rows.dtype) @ rows)


def _plain(
    model: nn.Module,
    rewards: Callable[[], Tensor],
    first: Tensor,
    second: Tensor,
    shares: Tensor,
) -> PairGram:
    """One backward pass per pair; all gradients are held at once."""
    free = [p for p in model.parameters() if p.requires_grad]
    with torch.enable_grad():
        values = rewards()

        def flat(what: Tensor) -> Tensor:
            found = torch.autograd.grad(
                what, free, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            return torch.cat([g.flatten() for g in found])

        total = flat((shares.to(values.dtype) * values).sum())
        rows = torch.zeros(len(first), len(total), dtype=total.dtype, device=total.device)
        for i, margin in enumerate(values[first] - values[second]):
            rows[i] = flat(margin)
    return PairGram(rows @ rows.T, rows @ total, values.detach(), False)
