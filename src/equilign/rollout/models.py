"""What a causal language model is under its wrappers."""

import inspect

from torch import nn
from transformers import PreTrainedModel


def base_model(model: nn.Module) -> PreTrainedModel | None:
    """The transformers model inside PEFT and DDP wrappers; None where there is none."""
    return next((m for m in model.modules() if isinstance(m, PreTrainedModel)), None)


def is_compiled(model: nn.Module) -> bool:
    """Whether the model, or a wrapper of it, is compiled, so that its parts stand still."""
    for module in model.modules():
        # By name: the class lives in a part of torch that takes seconds to import.
        if type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None:
            return True
        if isinstance(module, PreTrainedModel):
            return False
    return False


def accepts(model: nn.Module, argument: str) -> bool:
    """Whether a forward pass takes ``argument``; wrappers hide the signature of their model."""
    base = base_model(model)
    # That of the class: accelerate puts a function of its own into the object.
    return argument in inspect.signature(type(model if base is None else base).forward).parameters
