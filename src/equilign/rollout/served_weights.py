"""The weights of a policy as a server must hold them: adapters merged, names of the plain model.

Nothing of the model is changed: merging and unmerging in place would leave rounding behind.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equilign.errors import ModelError


@dataclass(frozen=True)
class WeightInfo:
    """Name, dtype and shape of one tensor, known without computing it."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


def served_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter once, with the active adapters of PEFT merged into it.

    ``W + sum of the active adapters' updates`` (LoRA), and the copies in ``modules_to_save``; the
    base weights alone inside ``disable_adapter()``.

    Args:
        model: a transformers model, or a PEFT wrapper of one.

    Yields:
        Names as in the checkpoint of the plain model, with detached tensors.

    Raises:
        ModelError: an adapter that is not plain LoRA.
    """
    base, layers = _parts(model)
    for name, parameter in base.named_parameters():
        plain = _plain_name(name, layers)
        if plain is None:
            continue
        yield plain, _merged(name, parameter.detach(), layers)


def served_info(model: nn.Module) -> list[WeightInfo]:
    """What `served_weights` yields, in the same order, without computing anything."""
    base, layers = _parts(model)
    return [
        WeightInfo(plain, parameter.dtype, tuple(parameter.shape))
        for name, parameter in base.named_parameters()
        if (plain := _plain_name(name, layers)) is not None
    ]


@torch.no_grad()
def fingerprint(model: nn.Module) -> tuple[Any, ...]:
    """Changes when the sampled policy does: sums over all weights, and which adapters are active.

    Two numbers a tensor, computed where the tensor is; independent of how it was changed.
    """
    sums = [
        torch.stack(
            [
                parameter.detach().sum(dtype=torch.float64),
                torch.linalg.vector_norm(parameter.detach(), dtype=torch.float64),
            ]
        ).cpu()
        for parameter in model.parameters()
        if parameter.numel()
    ]
    values = torch.cat(sums).tolist() if sums else []
    _, layers = _parts(model)
    state = [(name, _active(layer)) for name, layer in sorted(layers.items())]
    return (*values, *state)


def _parts(model: nn.Module) -> tuple[nn.Module, dict[str, Any]]:
    """The plain model's tree, and the layers in it that PEFT put around others."""
    getter = getattr(model, "get_base_model", None)
    base = getter() if callable(getter) else model
    config = getattr(model, "active_peft_config", None) if base is not model else None
    if getattr(config, "is_prompt_learning", False):
        raise ModelError("prompt learning changes no weights, so there are none to push; use LoRA")
    layers = {
        name: module
        for name, module in base.named_modules()
        if callable(getattr(module, "get_base_layer", None)) or hasattr(module, "modules_to_save")
    }
    return base, layers


def _owner(name: str, layers: dict[str, Any]) -> str | None:
    """The innermost PEFT layer that a parameter belongs to."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        prefix = ".".join(parts[:end])
        if prefix in layers:
            return prefix
    return None


def _active(layer: Any) -> tuple[str, ...]:  # noqa: ANN401 - a layer of PEFT
    if getattr(layer, "disable_adapters", False):
        return ()
    return tuple(getattr(layer, "active_adapters", ()) or ())


def _plain_name(name: str, layers: dict[str, Any]) -> str | None:
    """The parameter's name in the plain model; None for what only PEFT has."""
    prefix = _owner(name, layers)
    if prefix is None:
        return name
    rest = name[len(prefix) + 1 :]
    layer = layers[prefix]
    if hasattr(layer, "modules_to_save"):
        active = [a for a in _active(layer) if a in layer.modules_to_save]
        mine = f"modules_to_save.{active[0]}." if active else "original_module."
        return f"{prefix}.{rest[len(mine) :]}" if rest.startswith(mine) else None
    if rest.startswith("base_layer."):
        return f"{prefix}.{rest.removeprefix('base_layer.')}"
    return None


def _merged(name: str, weight: Tensor, layers: dict[str, Any]) -> Tensor:
    prefix = _owner(name, layers)
    layer = layers.get(prefix or "")
    if layer is None or hasattr(layer, "modules_to_save") or not name.endswith("base_layer.weight"):
        return weight
    if layer.merged:
        return weight
    with torch.no_grad():
        for adapter in _active(layer):
            if any(adapter in getattr(layer, kind, ()) for kind in layer.adapter_layer_names):
                _check_mergeable(layer, adapter)
                weight = weight + layer.get_delta_weight(adapter).to(weight)
    return weight


def _check_mergeable(layer: Any, adapter: str) -> None:  # noqa: ANN401 - a layer of PEFT
    plain = hasattr(layer, "lora_A") and not hasattr(layer, "parameter_name")
    variant = getattr(layer, "lora_variant", {}).get(adapter)
    bias = getattr(layer, "lora_bias", {}).get(adapter)
    if not plain or variant is not None or bias:
        raise ModelError(
            f"adapter {adapter!r} of {type(layer).__name__} is no plain LoRA, so its weights "
            "cannot be merged for a push; use LoRA without DoRA, bias or target_parameters, "
            "or serve the adapter itself (push='adapter')"
        )
