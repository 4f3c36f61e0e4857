"""Two players in one trainer: whose weights are whose, and whose turn it is.

Where one model plays both roles (``players = "shared"``) there is nothing to keep apart. Otherwise
the module that is trained is a `TwoPlayers`: forward passes go to the player whose turn it is, the
Leader's unless somebody says otherwise.
"""

import copy
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    TaskType,
    get_peft_model,
    load_peft_weights,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file
from torch import Tensor, nn

from equilign.errors import ConfigError, ModelError
from equilign.models import load_model
from equilign.rollout.models import OneOfSeveral
from equilign.trainers.config import GameConfig
from equilign.trainers.setup import remove_dropout

Role = Literal["leader", "follower"]
ROLES: tuple[Role, Role] = ("leader", "follower")


def player_folders(folder: Path) -> dict[Role, Path]:
    """Where each player of a saved model is; one folder twice where they share their weights."""
    if all((folder / role).is_dir() for role in ROLES):
        return {role: folder / role for role in ROLES}
    return dict.fromkeys(ROLES, folder)


class TwoPlayers(OneOfSeveral):
    """A Leader and a Follower with weights of their own, as one module to train."""

    def __init__(self) -> None:
        super().__init__()
        self.role: Role = "leader"

    # -- what a kind says -------------------------------------------------------------------

    @abstractmethod
    def player(self, role: Role) -> nn.Module:
        """The model that plays ``role`` when it is its turn."""

    @abstractmethod
    def weights(self, role: Role) -> list[nn.Parameter]:
        """What ``role`` trains; fixed at the start, whatever becomes of ``requires_grad``."""

    @abstractmethod
    def save_player(self, role: Role, folder: Path) -> None:
        """Write ``role`` into ``folder/ROLE``, as a model that anything else can load."""

    @abstractmethod
    def load_player(self, role: Role, folder: Path) -> None:
        """Read what `save_player` wrote.

        Raises:
            ModelError: it is another model's.
        """

    def enter(self, role: Role) -> None:
        """Make it the turn of ``role``."""
        self.role = role

    # -- turns ------------------------------------------------------------------------------

    @property
    def current(self) -> nn.Module:
        """The model of the player whose turn it is."""
        return self.player(self.role)

    @contextmanager
    def playing(self, role: Role) -> Iterator[None]:
        """Within, it is the turn of ``role``."""
        before = self.role
        if role == before:
            yield
            return
        self.enter(role)
        try:
            yield
        finally:
            self.enter(before)

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Within, the players are as they were before they were adapted."""
        kept = [(p, p.requires_grad) for p in self.parameters()]
        try:
            with ExitStack() as stack:
                for player in self._models():
                    if isinstance(player, PeftModel):
                        stack.enter_context(player.disable_adapter())
                yield
        finally:  # PEFT has frozen what it does not call active
            for parameter, flag in kept:
                parameter.requires_grad_(flag)

    def _models(self) -> list[nn.Module]:
        """Each once."""
        return list(dict.fromkeys(self.player(role) for role in ROLES))

    # -- as a model -------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the player's own
        """A forward pass of the player whose turn it is."""
        return self.current(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Answers of the player whose turn it is."""
        return self.current.generate(*args, **kwargs)  # type: ignore[operator]

    @property
    def generation_config(self) -> Any:  # noqa: ANN401 - transformers' own
        """Of the player whose turn it is."""
        return self.current.generation_config

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: dict[str, Any] | None = None,
        **options: Any,  # noqa: ANN401 - transformers' own
    ) -> None:
        """As in transformers, for both players."""
        for player in self._models():
            player.activation_checkpointing_enable(  # type: ignore[operator]
                activation_checkpointing_kwargs=activation_checkpointing_kwargs, **options
            )

    def gradient_checkpointing_enable(
        self,
        gradient_checkpointing_kwargs: dict[str, Any] | None = None,
        **options: Any,  # noqa: ANN401 - transformers' own
    ) -> None:
        """The same by the name that older versions call."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **options)


class TwoModels(TwoPlayers):
    """Two models, with all their weights or each with an adapter of its own."""

    def __init__(self, leader: nn.Module, follower: nn.Module) -> None:
        super().__init__()
        self.leader = leader
        self.follower = follower
        self._weights: dict[Role, list[nn.Parameter]] = {
            role: [p for p in self.player(role).parameters() if p.requires_grad] for role in ROLES
        }

    def player(self, role: Role) -> nn.Module:
        """See `TwoPlayers.player`."""
        return self.leader if role == "leader" else self.follower

    def weights(self, role: Role) -> list[nn.Parameter]:
        """See `TwoPlayers.weights`."""
        return self._weights[role]

    def save_player(self, role: Role, folder: Path) -> None:
        """See `TwoPlayers.save_player`."""
        # Its own method knows which weights are tied.
        self.player(role).save_pretrained(str(folder / role))  # type: ignore[operator]

    def load_player(self, role: Role, folder: Path) -> None:
        """See `TwoPlayers.load_player`."""
        model, place = self.player(role), folder / role
        if isinstance(model, PeftModel):
            _load_adapter(model, place, model.active_adapter)
            return
        held: dict[str, Tensor] = {}
        for path in sorted(place.glob("*.safetensors")):
            held |= load_file(path)
        found = model.load_state_dict(held, strict=False)
        # A weight under a second name is not listed here, nor saved twice.
        missing = set(found.missing_keys) & {name for name, _ in model.named_parameters()}
        if missing or found.unexpected_keys or not held:
            raise ModelError(f"{place} holds the weights of another model than the {role}'s")


class TwoAdapters(TwoPlayers):
    """Two adapters of one model, which stands still.

    PEFT has one active adapter and freezes the others, and a frozen one gets no gradient from a
    loss that was computed before: here both stay trainable, whoever is active.

    Raises:
        ConfigError: PEFT has no second adapter of this kind.
    """

    def __init__(self, model: nn.Module, config: PeftConfig) -> None:
        super().__init__()
        leads, follows = ROLES
        # Copies: PEFT writes the model's name into the configuration.
        own = copy.deepcopy(config)
        self.adapted: PeftModel = get_peft_model(model, own, adapter_name=leads)
        try:
            self.adapted.add_adapter(follows, copy.deepcopy(config))
        except ValueError as error:
            raise ConfigError(f"peft refuses a second adapter: {error}") from error
        self._weights: dict[Role, list[nn.Parameter]] = {}
        for role in reversed(ROLES):
            self.adapted.set_adapter(role)
            self._weights[role] = [p for p in self.adapted.parameters() if p.requires_grad]
        self.enter(leads)

    def player(self, role: Role) -> nn.Module:
        """See `TwoPlayers.player`."""
        return self.adapted

    def weights(self, role: Role) -> list[nn.Parameter]:
        """See `TwoPlayers.weights`."""
        return self._weights[role]

    def enter(self, role: Role) -> None:
        """See `TwoPlayers.enter`."""
        super().enter(role)
        self.adapted.set_adapter(role)
        for weights in self._weights.values():
            for parameter in weights:
                parameter.requires_grad_(True)

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: dict[str, Any] | None = None,
        **options: Any,  # noqa: ANN401 - transformers' own
    ) -> None:
        """As in transformers; what is computed again is computed with the adapter of its time.

        Raises:
            ConfigError: reentrant checkpointing, which cannot know that.
        """
        given = {"use_reentrant": False, **(activation_checkpointing_kwargs or {})}
        if given["use_reentrant"]:
            raise ConfigError(
                "use_reentrant = True computes activations again with whatever adapter is active "
                "then; leave it out, or set players = 'separate'"
            )
        super().activation_checkpointing_enable({**given, "context_fn": self._again}, **options)

    def _again(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), self.playing(self.role)

    def save_player(self, role: Role, folder: Path) -> None:
        """See `TwoPlayers.save_player`."""
        # An adapter that is not called "default" goes into a folder of its name.
        self.adapted.save_pretrained(str(folder), selected_adapters=[role])

    def load_player(self, role: Role, folder: Path) -> None:
        """See `TwoPlayers.load_player`."""
        _load_adapter(self.adapted, folder / role, role)


def _load_adapter(model: PeftModel, place: Path, name: str) -> None:
    held = load_peft_weights(str(place), device="cpu")
    found: Any = set_peft_model_state_dict(model, held, adapter_name=name)
    if found.unexpected_keys or not held:
        raise ModelError(f"{place} holds another adapter than the one that is trained")


def default_adapter() -> LoraConfig:
    """The adapter of each player where none is described: the authors' rank and scale."""
    return LoraConfig(
        r=64, lora_alpha=128, target_modules="all-linear", task_type=TaskType.CAUSAL_LM
    )


def make_players(
    model: str | nn.Module,
    follower_model: str | nn.Module | None,
    players: str,
    peft_config: PeftConfig | None,
    args: GameConfig,
) -> tuple[nn.Module, PeftConfig | None]:
    """The module to train, and the adapter that is still to be put on it.

    Args:
        model: the start model, or where it is.
        follower_model: the Follower's, where it is another one.
        players: ``shared``, ``adapters`` or ``separate``.
        peft_config: an adapter; one for each player where they do not share one.
        args: for ``disable_dropout``.

    Raises:
        ConfigError: what was given does not go together.
    """
    load = partial(load_model, allow_download=True)
    if follower_model is not None and players != "separate":
        raise ConfigError(
            f"follower_model has no effect with players = {players!r}; set players = 'separate', "
            "or leave it out"
        )
    found: nn.Module = load(model) if isinstance(model, str) else model
    if players == "shared":
        return found, peft_config
    if peft_config is not None and peft_config.is_prompt_learning:
        raise ConfigError(
            f"players = {players!r} with {peft_config.peft_type} adapters is not there; use LoRA"
        )
    wrapped = isinstance(found, PeftModel) or isinstance(follower_model, PeftModel)
    if wrapped and (players == "adapters" or peft_config is not None):
        raise ConfigError(
            "the model is a PeftModel already; give the model without an adapter, and peft_config"
        )
    if players == "adapters":
        config = default_adapter() if peft_config is None else peft_config
        return _ready(TwoAdapters(found, config), args), None
    other: nn.Module
    if follower_model is None or follower_model is model:
        other = copy.deepcopy(found)
    else:
        other = load(follower_model) if isinstance(follower_model, str) else follower_model
    if peft_config is not None:
        found = get_peft_model(found, copy.deepcopy(peft_config))
        other = get_peft_model(other, copy.deepcopy(peft_config))
    return _ready(TwoModels(found, other), args), None


def _ready(pair: TwoPlayers, args: GameConfig) -> TwoPlayers:
    for role in ROLES:
        if not pair.weights(role):
            raise ModelError(f"the {role} has no trainable weights: it would never move")
        if args.disable_dropout:
            remove_dropout(pair.player(role))
    return pair
