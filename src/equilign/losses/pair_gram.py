r"""Inner products of the gradients of pairs' margins, without ever holding one such gradient.

The gradient of ``r(a) - r(b)`` in a linear layer is a sum over tokens of outer products of the
layer's input and the gradient of its output. One forward pass and one backward pass over the
activations therefore give every layer's share of the Gram matrix, layer by layer, block by block;
what is kept is one number per pair of pairs. Parameters of other layers (norms) go through
`torch.func`; what does not fit either way (weights used twice, layers whose input has no row per
answer) is left to plain gradients, one per pair, by `PairGram.of`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

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
    ) -> "PairGram":
        """The Gram matrix over the model's trainable parameters.

        Args:
            model: whose parameters count.
            rewards: runs the model once on all answers, rows in order; ``(n,)``.
            first: index of the one answer of each pair.
            second: index of the other.
            shares: of every answer.
        """
        layers = _own_parameters(model)
        if layers is not None:
            work = _Hooked(layers, first, second, shares)
            values = work.run(model, rewards)
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
        handles = [m.register_forward_hook(self._passed) for m in self.layers]
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

    def _passed(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:  # noqa: ANN401
        self._calls[module] = self._calls.get(module, 0) + 1
        rows = len(self.shares)
        whole = len(inputs) == 1 and isinstance(inputs[0], Tensor) and isinstance(output, Tensor)
        if not whole or inputs[0].shape[:1] != (rows,) or output.shape[:1] != (rows,):
            self.failed = True
            return None
        if not output.requires_grad:
            # The first trainable layer: nothing before it asks for a gradient.
            output = output.detach().requires_grad_()
            self._leaves.append(output)
        given = inputs[0].detach()
        output.register_hook(lambda slope: self._collect(module, given, slope.detach()))
        return output

    def _collect(self, module: nn.Module, given: Tensor, slope: Tensor) -> None:
        if type(module) is nn.Linear:  # a subclass may do anything
            self._linear(self.layers[module], given, slope)
        elif type(module) is nn.Embedding:
            self._embedding(module, given, slope)
        else:
            self._other(module, given, slope)

    def _add(self, rows: Tensor, total: Tensor) -> None:
        """One block of parameters: per-pair gradients ``(p, k)``, and that of the shares."""
        rows, total = rows.to(self.gram.dtype), total.to(self.gram.dtype)
        self.gram += rows @ rows.T
        self.alignment += rows @ total

    def _sides(self, values: Tensor, sign: int = 1) -> Tensor:
        """Both answers of every pair, one after the other along the tokens: ``(p, 2t, ...)``."""
        return torch.cat([values[self.first], sign * values[self.second]], dim=1)

    def _linear(self, own: dict[str, nn.Parameter], given: Tensor, slope: Tensor) -> None:
        rows = len(given)
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
        rows, wide = len(given), slope.shape[-1]
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

    def _other(self, module: nn.Module, given: Tensor, slope: Tensor) -> None:
        held = {n: p.detach() for n, p in self.layers[module].items()}

        def one(row: Tensor, back: Tensor) -> dict[str, Tensor]:
            done = vjp(lambda p: functional_call(module, p, (row[None],)), held)
            found: dict[str, Tensor] = done[1](back[None])[0]
            return found

        each = vmap(one)(given, slope)
        for value in each.values():
            rows = value.flatten(1)
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
