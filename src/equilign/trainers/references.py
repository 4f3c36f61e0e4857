"""Named reference policies: weights that stand still while the policy moves."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from equilign.errors import ModelError
from equilign.trainers.sharding import full, like, whole


class References:
    """Copies of a model's trainable weights, by name, and a way to let the model play as one.

    Only trainable parameters are copied: with LoRA that is the adapter, with full fine-tuning
    the whole model. Playing as a reference swaps the copies in, so the very same module, code
    path and precision compute both policies; in particular the reference of a LoRA run is never
    the adapted model by accident. Adapters start as the identity, so the reference taken at the
    start plays exactly as the model with its adapter disabled (a test compares the two).

    Raises:
        ModelError: the weights are partitioned among processes (DeepSpeed ZeRO-3).
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._weights: dict[str, dict[str, Tensor]] = {}
        self._whole: dict[str, dict[str, Tensor]] | None = None
        self._live: dict[str, nn.Parameter] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._weights

    def names(self) -> list[str]:
        """Names of the references held, sorted."""
        return sorted(self._weights)

    def _trainable(self) -> dict[str, nn.Parameter]:
        found = {n: p for n, p in self._model.named_parameters() if p.requires_grad}
        if any(hasattr(p, "ds_id") for p in found.values()):
            raise ModelError(
                "the weights are partitioned by DeepSpeed ZeRO-3, so no process holds a policy "
                "that could be kept as a reference; use ZeRO-2, or LoRA with plain data parallelism"
            )
        return found

    def take(self, name: str) -> None:
        """``name`` <- the model's present weights."""
        self._weights[name] = {n: p.detach().clone() for n, p in self._trainable().items()}

    def copy(self, source: str, target: str) -> None:
        """``target`` <- ``source``; the weights are shared, as references never change in place."""
        self._weights[target] = self._weights[source]

    def put(self, name: str) -> None:
        """The model's present weights <- ``name``."""
        with torch.no_grad():
            for n, p in self._trainable().items():
                p.copy_(self._weights[name][n])
        torch.clear_autocast_cache()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Within, sharded weights are whole on every process, so that each may play by itself.

        Entered by all processes together; nothing else of this class but `playing` may be called
        inside. It costs the memory of all references in full where weights are sharded, and
        nothing where they are not.
        """
        self._whole = {name: full(weights) for name, weights in self._weights.items()}
        try:
            with whole(self._model):
                # Looked up once: a mixture plays a reference at every token.
                self._live = self._trainable()
                yield
        finally:
            self._whole = self._live = None

    @contextmanager
    def playing(self, name: str) -> Iterator[None]:
        """Within, the model has the weights of ``name``; afterwards exactly its own again.

        Sharded weights must have been `gathered`.
        """
        held = self._weights if self._whole is None else self._whole
        live = self._trainable() if self._live is None else self._live
        own = {n: p.data for n, p in live.items()}
        try:
            for n, p in live.items():
                p.data = held[name][n]
            # Autocast remembers by parameter what it has cast: it would go on with other weights.
            torch.clear_autocast_cache()
            yield
        finally:
            for n, p in live.items():
                p.data = own[n]
            torch.clear_autocast_cache()

    def save(self, folder: Path, *, write: bool = True) -> None:
        """Write every reference into ``folder``, one safetensors file each.

        Args:
            folder: made if it is not there.
            write: False on processes that only help to gather shards.
        """
        for name, weights in self._weights.items():
            # Tied or shared storage would be refused: each tensor is written on its own.
            gathered = full(weights)
            if write:
                plain = {n: w.detach().clone().contiguous().cpu() for n, w in gathered.items()}
                folder.mkdir(parents=True, exist_ok=True)
                save_file(plain, folder / f"{name}.safetensors")

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            ModelError: a file does not fit the model's trainable weights.
        """
        expected = {n: p.shape for n, p in self._trainable().items()}
        self._weights = {}
        for path in sorted(folder.glob("*.safetensors")):
            weights = load_file(path)
            if {n: w.shape for n, w in weights.items()} != expected:
                raise ModelError(f"{path} holds the weights of another model than the policy")
            own = self._trainable()
            self._weights[path.stem] = {n: like(w, own[n]) for n, w in weights.items()}

    def equal(self, name: str, weights: dict[str, Tensor]) -> bool:
        """Whether ``name`` has exactly these weights."""
        held = self._weights[name]
        return held.keys() == weights.keys() and all(
            torch.equal(w, weights[n]) for n, w in held.items()
        )
