"""Log-probabilities out of a model's own forward pass, without its logits.

For one forward pass the output layer's place is taken by
`equilign.losses.logps.linear_token_logps`: where the model expects logits it is given the
log-probabilities of the tokens asked for, which it hands back untouched. The pass is the model's
own, through its wrappers and their hooks (PEFT, DDP, gradient checkpointing, autocast).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import PreTrainedConfig

from equilign.losses.logps import linear_token_logps
from equilign.rollout.models import base_model, is_compiled

_UNTOUCHED: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()
"""Whether a model hands back what its output layer says, found out once per model."""


@dataclass(frozen=True)
class OutputLayer:
    """A plain linear output layer, and the cap that the model puts on its logits.

    Attributes:
        linear: the layer.
        config: where the cap is written, which a forward pass reads.
        softcap: the cap; None for none.
    """

    linear: nn.Linear
    config: PreTrainedConfig
    softcap: float | None

    @contextmanager
    def uncapped(self) -> Iterator[None]:
        """Within, the model puts no cap on what its output layer says."""
        if self.softcap is None:
            yield
            return
        self.config.final_logit_softcapping = None
        try:
            yield
        finally:
            self.config.final_logit_softcapping = self.softcap

    @contextmanager
    def telling(self, ids: Tensor, mask: Tensor, temperature: float) -> Iterator[None]:
        """Within, "logits" are log-probabilities in nats.

        Args:
            ids: the tokens asked for, ``(n, t)``: those after the last ``t + 1`` positions but one.
            mask: which of them are, ``(n, t)``; 0 is said elsewhere.
            temperature: divides the true logits.
        """

        def forward(hidden: Tensor) -> Tensor:
            place = _place(hidden, mask)
            found = linear_token_logps(
                hidden[place],
                self.linear.weight,
                self.linear.bias,
                ids[mask],
                temperature=temperature,
                softcap=self.softcap,
            )
            told = found.new_zeros(place.shape).masked_scatter(place, found)
            return told.unsqueeze(-1)

        with self.uncapped(), self._replaced(forward):
            yield

    @contextmanager
    def catching(self, mask: Tensor, caught: list[Tensor]) -> Iterator[None]:
        """Within, the layer's inputs go to ``caught``, and "logits" mean nothing.

        Args:
            mask: which positions are wanted, as of `telling`.
            caught: gets an array ``(positions, hidden)``, row by row.
        """

        def forward(hidden: Tensor) -> Tensor:
            caught.append(hidden[_place(hidden, mask)])
            return hidden[..., :1]

        with self.uncapped(), self._replaced(forward):
            yield

    def logits(self, hidden: Tensor, dtype: torch.dtype) -> Tensor:
        """The model's logits for inputs of the layer, ``(positions, vocabulary)``."""
        wide = nn.functional.linear(hidden, self.linear.weight, self.linear.bias).to(dtype)
        return wide if self.softcap is None else (wide / self.softcap).tanh_().mul_(self.softcap)

    @contextmanager
    def _replaced(self, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
        self.linear.forward = forward  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            del self.linear.forward


def _place(hidden: Tensor, mask: Tensor) -> Tensor:
    """``mask`` at the positions that predict its tokens."""
    return nn.functional.pad(mask, (hidden.shape[1] - 1 - mask.shape[1], 1))


def output_layer(model: nn.Module, inputs: dict[str, Any]) -> OutputLayer | None:
    """The output layer of ``model`` if it can be replaced, else None.

    It cannot where it is no plain linear layer (adapted, quantised, hooked), where the model is
    compiled, or where the model does more to the logits than a soft cap.

    Args:
        model: a causal language model, in its wrappers.
        inputs: of a forward pass, to find out once what the model does to its logits.
    """
    base = base_model(model)
    if base is None:
        return None
    linear = base.get_output_embeddings()  # type: ignore[no-untyped-call]
    if type(linear) is not nn.Linear or "forward" in vars(linear) or is_compiled(model):
        return None
    softcap = vars(base.config).get("final_logit_softcapping")
    if softcap is not None and not _may_be_lifted(base.config):
        return None
    layer = OutputLayer(linear, base.config, softcap)
    if base not in _UNTOUCHED:
        _UNTOUCHED[base] = _hands_back(model, layer, inputs)
    return layer if _UNTOUCHED[base] else None


def _may_be_lifted(config: PreTrainedConfig) -> bool:
    """Whether the configuration lets go of its soft cap; Gemma 3n's insists on a number."""
    try:
        with OutputLayer(nn.Linear(1, 1), config, config.final_logit_softcapping).uncapped():
            return True
    except StrictDataclassError:
        return False


@torch.no_grad()
def _hands_back(model: nn.Module, layer: OutputLayer, inputs: dict[str, Any]) -> bool:
    """Whether the model's logits are its output layer's, to the bit, in a pass over one row."""
    said: list[Tensor] = []
    hook = layer.linear.register_forward_hook(lambda _, args, out: said.append(out))
    row = {k: x[:1] if isinstance(x, Tensor) else x for k, x in inputs.items()}
    try:
        with layer.uncapped():
            logits = model(**row).logits
    finally:
        hook.remove()
    # Autocast wrappers return float32.
    return len(said) == 1 and torch.equal(said[0].float(), logits.float())
