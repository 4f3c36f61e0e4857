"""What a causal language model is under its wrappers."""

import inspect
from abc import abstractmethod
from collections.abc import Iterator, Mapping

from torch import nn
from transformers import PreTrainedModel


class OneOfSeveral(nn.Module):
    """Several policies in one module; forward passes go to the one whose turn it is."""

    @property
    @abstractmethod
    def current(self) -> nn.Module:
        """The policy whose turn it is."""


def base_model(model: nn.Module) -> PreTrainedModel | None:
    """The transformers model inside PEFT and DDP wrappers; None where there is none.

    Of several policies in one module, that of the one whose turn it is.
    """
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            return module
        if isinstance(module, OneOfSeveral):
            return base_model(module.current)
    return None


def is_compiled(model: nn.Module) -> bool:
    """Whether the model, or a wrapper of it, is compiled, so that its parts stand still."""
    for module in model.modules():
        # By name: the class lives in a part of torch that takes seconds to import.
        if type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None:
            return True
        if isinstance(module, PreTrainedModel):
            return False
    return False


def tables_depend_on_length(model: nn.Module) -> bool:
    """Whether rotary angles of a token depend on what follows it: "dynamic" and "longrope".

    Such a model gives another law to a token in a long row than in a short one.
    """
    base = base_model(model)
    if base is None:
        return False
    kinds = list(_rope_types(getattr(base.config, "rope_parameters", None)))
    kinds += _rope_types(getattr(base.config, "rope_scaling", None))
    return any(kind == "longrope" or "dynamic" in kind for kind in kinds)


def _rope_types(told: object) -> Iterator[str]:
    """Of all layers; each kind of layer may have parameters of its own."""
    if isinstance(told, Mapping):
        for name, value in told.items():
            if name in ("rope_type", "type") and isinstance(value, str):
                yield value
            yield from _rope_types(value)


def accepts(model: nn.Module, argument: str) -> bool:
    """Whether a forward pass takes ``argument``; wrappers hide the signature of their model."""
    base = base_model(model)
    # That of the class: accelerate puts a function of its own into the object.
    return argument in inspect.signature(type(model if base is None else base).forward).parameters
