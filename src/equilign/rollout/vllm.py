"""Sampling from a vLLM server that is given the policy's weights whenever they change.

Not run here: there was no machine with vLLM and a GPU. Tested with stand-ins are the requests, the
merged weights, and when a push happens; the calls of vLLM follow its documentation ("Weight
Transfer", from version 0.28 on).

Two ways to push:

- ``"nccl"``: all weights, adapters merged, broadcast from this process to the server's workers.
  Start the server with ``VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config
  '{"backend": "nccl"}'`` on other GPUs than the trainer's.
- ``"adapter"``: the LoRA adapter alone, saved in a folder that the server can read and loaded over
  HTTP; requests then name it. Start the server with ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm
  serve MODEL --enable-lora --max-lora-rank R``.
"""

import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit, urlunsplit

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from equilign.endpoints import Endpoint, EndpointError, RetryPolicy
from equilign.errors import ConfigError, ModelError
from equilign.rollout.encoding import end_tokens
from equilign.rollout.generate import SamplingConfig
from equilign.rollout.served_weights import fingerprint, served_info, served_weights
from equilign.rollout.server import ServerOptions, ServerSampler
from equilign.rollout.types import Group, Prompt


class WeightPush(Protocol):
    """How a policy reaches the server."""

    def push(self, model: nn.Module) -> str | None:
        """Bring the policy there; the name to ask for, or None for the server's own model."""
        ...

    def close(self) -> None:
        """Free what the server or this process holds for it."""
        ...


class NcclPush:
    """All weights, adapters merged, over NCCL. Not run here.

    Args:
        options: of the server.
        master_address: of this machine, as the server's workers reach it; found by vLLM if empty.
        master_port: a free port there; found by vLLM if 0.

    Raises:
        ConfigError: several training processes, or vLLM is missing or too old (on the first push).
    """

    def __init__(
        self, options: ServerOptions, master_address: str = "", master_port: int = 0
    ) -> None:
        self._control = _control(options, root=True)
        self._address, self._port = master_address, master_port
        self._model: nn.Module | None = None
        self._engine: Any = None

    def push(self, model: nn.Module) -> str | None:
        """See `WeightPush.push`.

        Raises:
            EndpointError: the server was not started for weight transfer, or failed.
            ModelError: an adapter that cannot be merged.
        """
        if self._engine is None or self._model is not model:
            self.close()
            self._engine, self._model = self._join(model), model
        self._engine.send_weights()
        # What the server remembers of prompts was computed with the old weights.
        if self._control.control("/reset_prefix_cache", {}).get("success") is False:
            raise EndpointError(
                f"{self._control.shown_url} could not forget its prefix cache after a change of "
                "weights, so answers would mix old and new ones; is anybody else using it?",
                reason="prefix_cache",
                final=True,
            )
        return None

    def close(self) -> None:
        """Leave the NCCL group."""
        if self._engine is not None:
            self._engine.shutdown()
        self._engine = self._model = None
        self._control.close()

    def _join(self, model: nn.Module) -> Any:  # noqa: ANN401 - vLLM's engine
        group = torch.distributed
        if group.is_available() and group.is_initialized() and group.get_world_size() > 1:
            raise ConfigError(
                "weights are pushed by one training process so far; start without a launcher, "
                "or sample from a server that loads checkpoints by itself"
            )
        transfer = _vllm("vllm.distributed.weight_transfer")
        nccl = _vllm("vllm.distributed.weight_transfer.nccl_engine")
        network = _vllm("vllm.utils.network_utils")
        workers = self._control.control("/get_world_size").get("world_size")
        if not isinstance(workers, int) or workers < 1:
            raise EndpointError(
                f"{self._control.shown_url} does not say how many workers it has; start it with "
                "VLLM_SERVER_DEV_MODE=1",
                reason="unusable",
                final=True,
            )
        try:
            return transfer.WeightTransferTrainerFactory.trainer_init(
                init_info=nccl.NCCLTrainerInitInfo(
                    master_address=self._address or network.get_ip(),
                    master_port=self._port or network.get_open_port(),
                    world_size=workers + 1,
                    rank=0,
                    packed=True,
                ),
                client=transfer.HTTPVLLMWeightSyncClient(self._control.base_url),
                source=_source(transfer, model),
            )
        except AttributeError as error:
            raise _too_old(error) from error


class AdapterPush:
    """The LoRA adapter alone, through a folder that the server can read. Not run here.

    Args:
        options: of the server.
        folder: where adapters are written; only the current one is kept.
        served_folder: the same folder as the server sees it; ``folder`` if None.
    """

    def __init__(
        self, options: ServerOptions, folder: Path | str, served_folder: str | None = None
    ) -> None:
        self._control = _control(options, root=False)
        self._folder = Path(folder)
        self._served = str(self._folder.absolute()) if served_folder is None else served_folder
        self._name: str | None = None

    def push(self, model: nn.Module) -> str | None:
        """See `WeightPush.push`; None while adapters are disabled.

        Raises:
            ModelError: the model has no adapter, several active ones, or ``modules_to_save``.
            EndpointError: the server refuses it.
        """
        adapter = _single_adapter(model)
        old, self._name = self._name, None
        if adapter is not None:
            # A new name each time: the server may keep what it computed for an old one.
            name = f"equilign-{uuid.uuid4().hex[:12]}"
            place = self._folder / name
            model.save_pretrained(str(place), selected_adapters=[adapter])  # type: ignore[operator]
            inside = "" if adapter == "default" else f"/{adapter}"
            path = f"{self._served.rstrip('/')}/{name}{inside}"
            self._control.control("/load_lora_adapter", {"lora_name": name, "lora_path": path})
            self._name = name
        if old is not None:
            self._forget(old)
        return self._name

    def close(self) -> None:
        """Unload the adapter and delete its folder."""
        if self._name is not None:
            self._forget(self._name)
        self._name = None
        self._control.close()

    def _forget(self, name: str) -> None:
        self._control.control("/unload_lora_adapter", {"lora_name": name})
        shutil.rmtree(self._folder / name, ignore_errors=True)


class VLLMSampler:
    """Responses from a vLLM server that always has the policy's current weights. Not run here.

    Weights are pushed before sampling if they changed since the last push, however they were
    changed, and also when adapters were switched on or off.

    Args:
        model: the policy in this process.
        tokenizer: of the policy.
        config: how to draw.
        options: of the server.
        push: how weights reach it: ``"nccl"``, ``"adapter"``, or a `WeightPush`.
        adapter_folder: where ``"adapter"`` writes.

    Raises:
        ConfigError: ``push`` is unknown, or ``"adapter"`` without a folder.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: SamplingConfig,
        options: ServerOptions,
        *,
        push: Literal["nccl", "adapter"] | WeightPush = "nccl",
        adapter_folder: Path | str | None = None,
    ) -> None:
        if push == "nccl":
            self._push: WeightPush = NcclPush(options)
        elif push == "adapter":
            if adapter_folder is None:
                raise ConfigError("push='adapter' needs adapter_folder, which the server can read")
            self._push = AdapterPush(options, adapter_folder)
        elif isinstance(push, str):
            raise ConfigError(f"push must be 'nccl', 'adapter' or an object; got {push!r}")
        else:
            self._push = push
        ends = options.ends or end_tokens(model, tokenizer)
        self.model = model
        self.server = ServerSampler(tokenizer, config, replace(options, ends=ends))
        self._pushed: tuple[Any, ...] | None = None

    def sample(self, prompts: Sequence[Prompt], num_samples: int, seed: int) -> list[Group]:
        """See `equilign.rollout.types.Sampler.sample`.

        Raises:
            EndpointError: a push or a request failed.
        """
        self.push()
        return self.server.sample(prompts, num_samples, seed)

    def push(self) -> bool:
        """Push the weights if they changed; whether they had."""
        now = fingerprint(self.model)
        if now == self._pushed:
            return False
        self._pushed = None  # a push that fails midway leaves nobody knows what on the server
        self.server.model = self._push.push(self.model) or self.server.options.model
        self._pushed = now
        return True

    def close(self) -> None:
        """Close connections, and free what the server holds for this sampler."""
        self._push.close()
        self.server.close()
        self._pushed = None


def _control(options: ServerOptions, *, root: bool) -> Endpoint:
    """The server's administration: beside ``/v1``, or below it."""
    url = options.base_url
    if root:
        parts = urlsplit(url)
        url = urlunsplit(parts._replace(path=parts.path.rstrip("/").removesuffix("/v1")))
    retry = RetryPolicy(timeout=options.timeout, tries=1)
    return Endpoint(url.rstrip("/"), options.api_key_env, retry)


def _single_adapter(model: nn.Module) -> str | None:
    configs = getattr(model, "peft_config", None)
    if not configs or not callable(getattr(model, "get_base_model", None)):
        raise ModelError("push='adapter' needs a PEFT model; use push='nccl' for all weights")
    active = list(getattr(model, "active_adapters", ()))
    if _disabled(model):
        return None
    if len(active) != 1:
        raise ModelError(f"push='adapter' needs one active adapter; there are {active}")
    if getattr(configs[active[0]], "modules_to_save", None):
        raise ModelError(
            "vLLM serves no modules_to_save beside an adapter; use push='nccl', or train without"
        )
    return str(active[0])


def _disabled(model: nn.Module) -> bool:
    return any(getattr(m, "disable_adapters", None) is True for m in model.modules())


def _source(transfer: Any, model: nn.Module) -> Any:  # noqa: ANN401 - vLLM's types
    """The policy as vLLM's ``WeightSource``."""

    class PolicySource(transfer.WeightSource):  # type: ignore[misc]
        def metadata(self) -> list[Any]:
            return [transfer.ParamMeta(w.name, w.dtype, w.shape) for w in served_info(model)]

        def __iter__(self) -> Iterator[tuple[str, Tensor]]:
            for name, tensor in served_weights(model):
                yield name, tensor.contiguous()

    return PolicySource()


def _vllm(name: str) -> Any:  # noqa: ANN401 - a module
    try:
        return import_module(name)
    except ImportError as error:
        raise _too_old(error) from error


def _too_old(error: Exception) -> ConfigError:
    try:
        found = f"found {metadata.version('vllm')}"
    except metadata.PackageNotFoundError:
        found = "it is not installed"
    return ConfigError(
        f"pushing weights over NCCL needs vLLM 0.28 or newer in this environment ({found}): "
        f'pip install "equilign[vllm]". ({error})'
    )
