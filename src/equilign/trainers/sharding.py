"""Weights that FSDP2 shares out over processes, made whole where processes differ in what they do.

Playing a round is such a place: processes sample texts of different lengths and chunks of different
number, so no forward pass may wait for the others. Training is not.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def _units(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Within, every process holds all weights, and forward passes wait for nobody.

    Entered by all processes together; does nothing to a model that is not sharded.
    """
    units = _units(model)
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
            unit.set_reshard_after_forward(True, recurse=False)


def full(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The whole of weights that may be shards; by all processes together."""
    return {n: w.full_tensor() if isinstance(w, DTensor) else w for n, w in weights.items()}


def like(value: Tensor, parameter: Tensor) -> Tensor:
    """``value``, sharded and placed as ``parameter`` is."""
    placed = value.to(parameter.device, parameter.dtype)
    if isinstance(parameter, DTensor):
        with torch.no_grad():
            return distribute_tensor(placed, parameter.device_mesh, parameter.placements)
    return placed
