"""What `equilign train` checks and reads in before it starts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator, PartialState
from peft import LoraConfig, TaskType
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from equilign.errors import ConfigError, EquilignError, ModelError
from equilign.experiments.judges import make_oracle
from equilign.experiments.options import check_options
from equilign.experiments.train_config import TrainConfig, resolve
from equilign.experiments.train_data import TrainData, load_train_data
from equilign.methods import Method, get_method
from equilign.models import load_model, load_tokenizer
from equilign.oracles import Oracle
from equilign.trainers import Progress
from equilign.trainers.team import Team

NOT_OPTIONS = {
    "output_dir": "--output-dir, or output_dir at the top of the configuration",
    "resume_from_checkpoint": "--resume",
    "do_train": "equilign train itself",
    "do_eval": "the evaluation section",
    "do_predict": "the evaluation section",
    "hub_token": "the environment variable HF_TOKEN: secrets belong into no file",
}
"""Fields that the command sets by its own options, and secrets."""

_PEFT = {"peft_type": "nothing: equilign train adapts with LoRA"}

_FLAGS = {
    "config": "--config",
    "download": "--download",
    "json": "--json",
    "print_config": "--print-config",
    "resume": "--resume",
    "set": "--set",
}


@dataclass(frozen=True)
class Job:
    """A training, checked and read in.

    Attributes:
        config: as the user wrote it.
        folder: the run directory.
        method: what trains.
        trainer_class: its trainer.
        args: its options.
        data: rows and held-out prompts.
        oracle: who judges; None where the method asks nobody.
        judge: who compares with the start model; None: nobody does.
        held_out: the second judge.
        tokenizer: of the model.
        download: whether a model may be fetched.
        team: the processes.
        progress: told what happens.
    """

    config: TrainConfig
    folder: Path
    method: Method
    trainer_class: Any
    args: Any
    data: TrainData
    oracle: Oracle | None
    judge: Oracle | None
    held_out: Oracle | None
    tokenizer: PreTrainedTokenizerBase
    download: bool
    team: Team
    progress: Progress

    @property
    def rounds(self) -> int:
        """How many there are."""
        return int(self.args.num_train_epochs)

    @property
    def labels(self) -> range:
        """Numbers of all rounds."""
        return range(1, self.rounds + 1)

    def start_model(self) -> PreTrainedModel:
        """The start model, on the device that is trained on."""
        return self._model(self.config.model)

    def second_model(self) -> dict[str, PreTrainedModel]:
        """The second player's start model as the trainer's argument; empty without one."""
        name = vars(self.args).get("follower_model")
        return {} if name is None else {"follower_model": self._model(name)}

    def _model(self, model: str) -> PreTrainedModel:
        try:
            found = load_model(
                resolve(self.config.base_dir, model),
                getattr(torch, self.config.dtype),
                allow_download=self.download,
            )
        except ModelError as error:
            raise _with_cure(error, model, self.download) from None
        found.to(self.args.device)
        return found


def _with_cure(error: ModelError, name: str, download: bool) -> ModelError:
    if download or "/" not in name or Path(name).exists():
        return error
    return ModelError(f"{error}\nA model on the hub is fetched only with --download.")


def method_args(config: TrainConfig, folder: Path) -> Any:  # noqa: ANN401 - the method's own type
    """The method's configuration object.

    Raises:
        ConfigError: an option that does not exist, or is mistyped or out of range.
    """
    _, config_class = get_method(config.method).load()
    values = check_options(config_class, config.args, "args", instead={**NOT_OPTIONS, **_FLAGS})
    # The command shows progress of its own.
    values = {"disable_tqdm": True, **values}
    try:
        return config_class(output_dir=str(folder), **values)
    except EquilignError as error:
        raise ConfigError(f"args: {error}") from None
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"args: transformers refuses these options: {error}") from None


def planned_rounds(config: TrainConfig, folder: Path) -> int:
    """How many rounds the training has.

    Raises:
        ConfigError: see `method_args`.
    """
    return int(method_args(config, folder).num_train_epochs)


def lora_config(config: TrainConfig) -> LoraConfig | None:
    """The PEFT section as peft's own configuration; None without one.

    Raises:
        ConfigError: an option that does not exist, or that peft refuses.
    """
    if config.peft is None:
        return None
    values = check_options(LoraConfig, config.peft, "peft", instead=_PEFT)
    try:
        return LoraConfig(**{"task_type": TaskType.CAUSAL_LM, **values})
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"peft refuses these options: {error}") from None


def _judges(config: TrainConfig, needed: bool) -> tuple[Oracle | None, Oracle | None]:
    """The judge and the held-out one."""
    if config.oracle is None and needed:
        raise ConfigError(
            f"{get_method(config.method).title} needs a judge: give an `oracle` section, such as "
            "`oracle: {kind: reward, path: FOLDER}`, or `{kind: restaurant}` for the shipped model"
        )
    base = config.base_dir
    first = None if config.oracle is None else make_oracle(config.oracle, base)
    second = config.evaluation.oracle
    return first, None if second is None else make_oracle(second, base)


def prepare(
    config: TrainConfig, folder: Path, *, download: bool = False, progress: Progress
) -> Job:
    """Check everything that can be checked before anything is written.

    Raises:
        EquilignError: something that the user can put right.
    """
    method = get_method(config.method)
    trainer_class, _ = method.load()
    args = method_args(config, folder)
    lora_config(config)
    oracle, held_out = _judges(config, trainer_class.needs_oracle)
    judge = held_out if oracle is None else oracle
    data = load_train_data(config, trainer_class.data_format, args.seed, compare=judge is not None)
    name = config.tokenizer or config.model
    try:
        tokenizer = load_tokenizer(resolve(config.base_dir, name), allow_download=download)
    except ModelError as error:
        raise _with_cure(error, name, download) from None
    chat = any(not isinstance(row["prompt"], str) for row in data.rows)
    if chat and not tokenizer.chat_template:
        raise ConfigError(
            f"the data are conversational, but the tokenizer of {name} has no chat template; "
            "name a chat model's tokenizer, or use plain text"
        )
    return Job(
        config=config,
        folder=folder,
        method=method,
        trainer_class=trainer_class,
        args=args,
        data=data,
        oracle=oracle if trainer_class.needs_oracle else None,
        judge=judge if data.held_out else None,
        held_out=held_out if oracle is not None else None,
        tokenizer=tokenizer,
        download=download,
        team=team_of(args),
        progress=progress,
    )


def team_of(args: Any) -> Team:  # noqa: ANN401 - the method's own type
    """The processes that the options' launcher started."""
    if args.world_size == 1:
        return Team()
    # An Accelerator of our own would settle options that the trainer's has to choose.
    return Team.of(cast(Accelerator, PartialState()))
