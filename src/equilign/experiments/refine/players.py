"""Leader and Follower from folders, hub names and servers."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from peft import PeftModel
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from equilign.errors import ConfigError, ModelError
from equilign.experiments.endpoint import endpoint_sampler, options_of_server
from equilign.experiments.refine.config import SHIPPED, RefineConfig
from equilign.models import load_model, load_tokenizer, shipped_model_path
from equilign.rollout import (
    Group,
    Prompt,
    Sampler,
    SamplingConfig,
    TransformersSampler,
    encode_prompt,
)
from equilign.rollout.follower import FollowerPrompt
from equilign.trainers.players import Role, player_folders

_UNKNOWN = 2048
"""Tokens of context assumed where a model does not tell."""
_ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Player:
    """Who answers.

    Attributes:
        name: as the user wrote it.
        tokenizer: of the model.
        limit: longest prompt in tokens.
        open: makes the sampler; the model is loaded then.
    """

    name: str
    tokenizer: PreTrainedTokenizerBase
    limit: int
    open: Callable[[], Sampler]

    def tokens(self, prompt: Prompt) -> int:
        """Length of a prompt as the model sees it.

        Raises:
            ModelError: the tokenizer cannot render chat messages, or not these.
        """
        try:
            return len(encode_prompt(self.tokenizer, prompt))
        except TemplateError as error:
            roles = ", ".join(m["role"] for m in prompt if isinstance(m, Mapping))
            raise ModelError(
                f"the chat template of {self.name} refuses a conversation of {roles}: {error}. "
                "Use another model, or plain-text prompts"
            ) from error
        except ModelError as error:
            raise ModelError(f"{self.name}: {error}") from error

    def fits(self, prompt: Prompt) -> bool:
        """Whether the prompt is within the limit."""
        return 0 < self.tokens(prompt) <= self.limit


class Players:
    """The models of a refinement; one that plays both parts is loaded once.

    Args:
        config: who plays.
        like: whose loaded models are used where they are the same.
    """

    def __init__(self, config: RefineConfig, like: "Players | None" = None) -> None:
        self.config = config
        self.models: dict[str, PreTrainedModel] = {} if like is None else like.models
        self._adapters: dict[str, str] = {} if like is None else like._adapters

    def forget(self) -> None:
        """Let go of the models; they are loaded again when they are needed again."""
        self.models.clear()
        self._adapters.clear()

    def leader(self) -> Player | None:
        """Who answers first; None where answers are given.

        Raises:
            ModelError: there is no such model.
            ConfigError: an option of its server is wrong.
        """
        c = self.config
        if c.leader is None:
            return None
        return self._player("leader", c.leader, c.leader_url, c.leader_tokenizer, c.leader_option)

    def follower(self) -> Player:
        """Who improves; raises as `leader`."""
        c = self.config
        return self._player(
            "follower", c.follower, c.follower_url, c.follower_tokenizer, c.follower_option
        )

    def form(self) -> FollowerPrompt:
        """How the Follower is asked: as the options say, as it was trained, else the default.

        Raises:
            ConfigError: the template is malformed.
            ModelError: the file beside its weights is damaged.
        """
        c = self.config
        source = c.follower if c.follower_url is None else c.follower_tokenizer or c.follower
        folder = Path(find_folder(source, "follower")).expanduser()
        saved = FollowerPrompt.load(folder) if folder.is_dir() else None
        given = {"instruction": c.instruction, "plain": c.template}
        return replace(
            saved or FollowerPrompt(), **{k: v for k, v in given.items() if v is not None}
        )

    def _player(
        self, role: Role, name: str, url: str | None, tokenizer: str | None, options: Sequence[str]
    ) -> Player:
        c = self.config
        sampling = SamplingConfig(c.max_new_tokens, c.temperature, c.top_p, c.batch_size)
        if url is not None:
            found = self._server_tokenizer(role, tokenizer or name)
            limit = self._limit(getattr(found, "model_max_length", None))
            own = replace(sampling, max_prompt_tokens=limit)
            spec = {"model": name, "base_url": url, **_assigned(options, role)}
            place = f"--{role}-option"
            options_of_server(spec, place)  # a mistake is told before anything is generated
            return Player(name, found, limit, lambda: endpoint_sampler(spec, found, own, place))
        folder = find_folder(name, role)
        found = load_any_tokenizer(folder, c.download)
        limit = self._limit(positions(folder, c.download))
        own = replace(sampling, max_prompt_tokens=limit)
        return Player(name, found, limit, lambda: self.sampler(folder, found, own))

    def _server_tokenizer(self, role: Role, source: str) -> PreTrainedTokenizerBase:
        try:
            return load_any_tokenizer(find_folder(source, role), self.config.download)
        except ModelError as error:
            raise ModelError(
                f"{error}\nPrompts are tokenised here: give --{role}-tokenizer, the folder or hub "
                "name (with --download) of the model that the server runs"
            ) from error

    def _limit(self, positions: int | None) -> int:
        if self.config.max_prompt_tokens is not None:
            return self.config.max_prompt_tokens
        # Tokenizers that do not know say 10^30.
        known = positions if positions is not None and positions < 10**9 else _UNKNOWN
        left = known - self.config.max_new_tokens
        if left < 1:
            raise ConfigError(
                f"max_new_tokens = {self.config.max_new_tokens} leaves no room for a prompt: the "
                f"model has {known} positions. Lower it, or set max_prompt_tokens yourself"
            )
        return left

    def sampler(
        self, folder: str, tokenizer: PreTrainedTokenizerBase, sampling: SamplingConfig
    ) -> "LocalSampler":
        """The sampler of a checkpoint or adapter; adapters of one base share its weights.

        Raises:
            ModelError: it cannot be loaded.
            ConfigError: there is no such device.
        """
        base = base_of(folder)
        root = _place(base or folder)
        if root not in self.models:
            self.models[root] = self._load(root, folder, base)
        name = None
        if base is not None:
            name = f"adapter_{len(self._adapters)}"
            if folder in self._adapters:
                name = self._adapters[folder]
            else:
                self.models[root] = _adapted(self.models[root], folder, name)
                self._adapters[folder] = name
        return LocalSampler(self.models, root, name, tokenizer, sampling)

    def _load(self, root: str, folder: str, base: str | None) -> PreTrainedModel:
        c = self.config
        try:
            model = load_model(root, getattr(torch, c.dtype), allow_download=c.download)
        except ModelError as error:
            if base is None:
                raise
            raise ModelError(
                f"the adapter in {folder}: {error}\nIts base is named in {_ADAPTER} as "
                "base_model_name_or_path; change it there if the base has moved"
            ) from error
        place = c.device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            return model.to(place).eval()  # type: ignore[arg-type, no-any-return]
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"device = {place!r} cannot be used: {error}") from error


@dataclass(frozen=True)
class LocalSampler:
    """Answers from a model that may have several adapters, or none.

    Attributes:
        models: root -> model; adapters are added to it as players arrive.
        root: which model.
        adapter: which of its adapters; None: none.
        tokenizer: of the player.
        sampling: how to draw.
    """

    models: Mapping[str, PreTrainedModel]
    root: str
    adapter: str | None
    tokenizer: PreTrainedTokenizerBase
    sampling: SamplingConfig

    def sample(self, prompts: Sequence[Prompt], num_samples: int, seed: int) -> list[Group]:
        """See `equilign.rollout.Sampler.sample`."""
        with self.playing() as model:
            inner = TransformersSampler(model, self.tokenizer, self.sampling)
            return inner.sample(prompts, num_samples, seed)

    @contextmanager
    def playing(self) -> Iterator[PreTrainedModel]:
        """Within, the model is this player."""
        model: Any = self.models[self.root]
        if self.adapter is not None:
            model.set_adapter(self.adapter)
        bare = self.adapter is None and isinstance(model, PeftModel)
        with model.disable_adapter() if bare else nullcontext():
            yield model


def _adapted(model: Any, folder: str, name: str) -> Any:  # noqa: ANN401 - any model or PeftModel
    try:
        if isinstance(model, PeftModel):
            model.load_adapter(folder, adapter_name=name)
            return model.eval()
        return PeftModel.from_pretrained(model, folder, adapter_name=name).eval()
    except Exception as error:
        raise ModelError(f"cannot load the adapter in {folder}: {error}") from error


def _place(source: str) -> str:
    """One name for one model."""
    if source == SHIPPED:
        return str(shipped_model_path())
    path = Path(source).expanduser()
    return str(path.resolve()) if path.is_dir() else source


def _assigned(options: Sequence[str], role: str) -> dict[str, Any]:
    pairs = [text.partition("=") for text in options]
    for (name, sign, _), text in zip(pairs, options, strict=True):
        if not sign or not name:
            raise ConfigError(f"--{role}-option {text!r}: write NAME=VALUE, such as timeout=60")
    return {name: value for name, _, value in pairs}


# -- folders -------------------------------------------------------------------------------


def find_folder(source: str, role: Role) -> str:
    """The model folder that a user means.

    Args:
        source: a model folder; a folder with both players in it, as `SLHFTrainer` saves it; a
            run directory with one trained model; any other name, which is returned as it is.
        role: which of two players.

    Raises:
        ModelError: a run directory without a finished model, or with several.
    """
    path = Path(source).expanduser()
    if source == SHIPPED or not path.is_dir():
        return source
    if (path / "config.yaml").is_file() and not (path / "config.json").is_file():
        there = sorted(p for p in (path / "models").glob("*") if p.is_dir())
        if len(there) != 1:
            names = ", ".join(str(p) for p in there) or "no finished model"
            raise ModelError(f"{path} is a run directory with {names}; name one model's folder")
        path = there[0]
    return str(player_folders(path)[role].resolve())


def base_of(folder: str) -> str | None:
    """The base model of an adapter folder; None for any other."""
    path = Path(folder) / _ADAPTER
    if not path.is_file() or (path.parent / "config.json").is_file():
        return None
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} does not say what it adapts: {error!r}") from error
    if not isinstance(name, str) or not name:
        raise ModelError(
            f"{path} does not say what it adapts; set its base_model_name_or_path to the base "
            "model's folder"
        )
    return name


def load_any_tokenizer(folder: str, download: bool) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint or of an adapter, whose base's is taken if it has none.

    Raises:
        ModelError: there is none.
    """
    base = base_of(folder)
    if base is None:
        return load_tokenizer(folder, allow_download=download)
    if not (Path(folder) / "tokenizer_config.json").is_file():
        return load_tokenizer(base, allow_download=download)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise ModelError(f"cannot load a tokenizer from {folder}: {error}") from error


def positions(folder: str, download: bool) -> int | None:
    """How many tokens a model has places for; None where its configuration does not say.

    Raises:
        ModelError: there is no configuration that can be read.
    """
    return _configured(folder, download, "max_position_embeddings")


def vocabulary(folder: str, download: bool) -> int | None:
    """How many different tokens a model tells apart; None and errors as of `positions`."""
    return _configured(folder, download, "vocab_size")


def _configured(folder: str, download: bool, name: str) -> int | None:
    source = _place(base_of(folder) or folder)
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=not download)
    except Exception as error:
        raise ModelError(f"cannot read the configuration of {source}: {error}") from error
    found = getattr(config.get_text_config(), name, None)
    return found if isinstance(found, int) else None
