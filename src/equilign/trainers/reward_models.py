"""Reward models that learn while the policy does: a classifier, or a head on frozen states.

What the game asks of one (`RewardFunction`) is little, so that a table will do in a test.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from equilign.errors import ConfigError, ModelError
from equilign.models import SHIPPED, load_tokenizer, shipped_model_path
from equilign.oracles.judge_models import length_limit, padded, padding_id
from equilign.oracles.judge_text import JudgeConfig, JudgeText, read_judge_config, save_judge_config
from equilign.rollout.generate import seeded
from equilign.rollout.models import base_model
from equilign.trainers.rounds import Row


@runtime_checkable
class RewardFunction(Protocol):
    """A module whose forward pass gives rewards, and that knows how to read a row."""

    def encode(self, rows: Sequence[Row]) -> list[list[Any]]:
        """One item per answer of each row, such as token ids; no gradient goes through."""
        ...

    def save(self, folder: Path) -> None:
        """Write what is needed to use the reward."""
        ...


class TextReward(nn.Module):
    """A sequence classifier with one output that reads prompt and answer as text.

    Texts are tokenised by the model's own tokenizer, whatever the policy's is; what is too long
    loses the beginning of its prompt, which is counted (`text.cut_prompts`) and told once.

    Args:
        model: the classifier, one output.
        tokenizer: its own.
        config: format, template and length; see `JudgeConfig`.

    Raises:
        ModelError: more than one output, or a tokenizer that does not go with the model.
    """

    def __init__(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, config: JudgeConfig
    ) -> None:
        super().__init__()
        base = cast(PreTrainedModel, base_model(model))
        if base.config.num_labels != 1:
            raise ModelError(
                f"a reward model has one output, this classifier has {base.config.num_labels}"
            )
        # What a word is decides the size of the embedding: one of another model cannot be fed.
        width = cast(Tensor, base.get_input_embeddings().weight).shape[0]
        if len(tokenizer) > width:
            raise ModelError(
                f"the reward model has {width} token embeddings, but its tokenizer has "
                f"{len(tokenizer)} tokens: it is another model's tokenizer"
            )
        self.pad_id = padding_id(tokenizer)
        base.config.pad_token_id = self.pad_id
        base.config.get_text_config().pad_token_id = self.pad_id
        self.model = model
        self.tokenizer = tokenizer
        self.config = config
        self.text = JudgeText(tokenizer, config, length_limit(base, tokenizer, config.max_length))

    def encode(self, rows: Sequence[Row]) -> list[list[Any]]:
        """See `RewardFunction.encode`."""
        prompts = [row["prompt"] for row in rows for _ in row["completions"]]
        answers = [(text,) for row in rows for text in row["completions"]]
        found = iter(self.text.encode(prompts, answers))
        return [[next(found) for _ in row["completions"]] for row in rows]

    def forward(self, items: Sequence[Any]) -> Tensor:
        """Rewards ``(n,)`` of encoded texts."""
        device = next(self.model.parameters()).device
        inputs = {k: v.to(device) for k, v in padded(items, self.pad_id).items()}
        logits: Tensor = self.model(**inputs).logits
        return logits[:, 0]

    def save(self, folder: Path) -> None:
        """An ordinary checkpoint that `equilign.oracles.RewardModel` reads."""
        model: Any = self.model
        if isinstance(model, PeftModel):
            model = copy.deepcopy(model).merge_and_unload()
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        save_judge_config(folder, self.config)


States = Callable[[Sequence[Row]], list[Tensor]]
"""Rows -> the frozen model's last states of their answers, ``(K, width)`` each."""


class HeadReward(nn.Module):
    """A linear function of the start model's last state of prompt and answer; starts at 0.

    Linear in its parameters: Gauss-Newton is exact here, and the total derivative nearly free.

    Args:
        width: of a state.
        states: how states are found.
        dtype: of the weights.
    """

    def __init__(self, width: int, states: States, dtype: torch.dtype) -> None:
        super().__init__()
        self.head = nn.Linear(width, 1, bias=False, dtype=dtype)
        nn.init.zeros_(self.head.weight)
        self._states = states

    def encode(self, rows: Sequence[Row]) -> list[list[Any]]:
        """See `RewardFunction.encode`."""
        return [list(group.to(self.head.weight.dtype)) for group in self._states(rows)]

    def forward(self, items: Sequence[Any]) -> Tensor:
        """Rewards ``(n,)`` of states."""
        values: Tensor = self.head(torch.stack(list(items)).to(self.head.weight.device))
        return values.squeeze(-1)

    def save(self, folder: Path) -> None:
        """The head's weights, ``reward_head.safetensors``."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"weight": self.head.weight.detach().cpu()}, folder / "reward_head.safetensors")


def trunk_states(
    policy: nn.Module, rows: Sequence[Row], pad_id: int, batch_size: int
) -> list[Tensor]:
    """The last state of the last token of every answer, ``(K, width)`` per row; no gradient.

    Raises:
        ModelError: the policy is no transformers model.
    """
    base = base_model(policy)
    if base is None:
        raise ModelError("reward_model = 'head' needs a policy that is a transformers model")
    trunk, device = base.base_model, next(policy.parameters()).device
    texts = [row["prompt_ids"] + ids for row in rows for ids in row["completion_ids"]]
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
    states: dict[int, Tensor] = {}
    was_training = base.training
    base.eval()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = padded([{"input_ids": texts[i]} for i in chosen], pad_id)
            last = batch["attention_mask"].sum(dim=1).to(device) - 1
            hidden = trunk(**{k: v.to(device) for k, v in batch.items()}, use_cache=False)
            found = hidden.last_hidden_state[torch.arange(len(chosen), device=device), last]
            states.update(
                zip(chosen, found.float() if found.dtype.itemsize < 4 else found, strict=True)
            )
    base.train(was_training)
    flat = iter(states[i] for i in range(len(texts)))
    return [torch.stack([next(flat) for _ in row["completion_ids"]]) for row in rows]


# -- making one --------------------------------------------------------------------------------


def classifier_like(policy: nn.Module, pad_id: int, seed: int) -> PreTrainedModel:
    """A classifier of the policy's architecture: its present trunk, and a head that is 0.

    Of a policy with an adapter the trunk is that of the model underneath.

    Raises:
        ModelError: transformers has no classifier of this architecture.
    """
    base = base_model(policy)
    if base is None:
        raise ModelError("reward_model = 'same' needs a policy that is a transformers model")
    config = copy.deepcopy(base.config)
    config.num_labels, config.pad_token_id = 1, pad_id
    try:
        with seeded(seed, torch.device("cpu")):
            make: Any = AutoModelForSequenceClassification.from_config
            model = make(config)
    except ValueError as error:
        raise ModelError(
            f"there is no sequence classifier of architecture {config.model_type!r} to be the "
            "reward model; use reward_model: head, or name a classifier"
        ) from error
    kind = torch.promote_types(base.dtype, torch.float32)
    model = model.to(kind)
    own = {
        name.replace(".base_layer.", ".").replace(".original_module.", "."): weight
        for name, weight in base.base_model.state_dict().items()
        if "lora_" not in name and ".modules_to_save." not in name
    }
    try:
        model.base_model.load_state_dict({n: w.to(kind) for n, w in own.items()})
    except RuntimeError as error:
        raise ModelError(f"the policy's weights do not fit its own classifier: {error}") from error
    _clear_head(model)
    return cast(PreTrainedModel, model)


def classifier_from(name: str, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The classifier of a folder or name; a head that it lacks is 0.

    Raises:
        ModelError: transformers cannot read it.
    """
    source = str(shipped_model_path()) if name == SHIPPED else str(Path(name).expanduser())
    source = source if Path(source).is_dir() else name
    tokenizer = load_tokenizer(name, allow_download=True)
    try:
        config = AutoConfig.from_pretrained(source)
        config.num_labels = 1
        with seeded(seed, torch.device("cpu")):
            model, info = AutoModelForSequenceClassification.from_pretrained(
                source,
                config=config,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:
        raise ModelError(f"cannot make a reward model from {name}: {error}") from error
    if info["missing_keys"] or info["mismatched_keys"]:
        _clear_head(model)
    return model, tokenizer


def _clear_head(model: PreTrainedModel) -> None:
    """The last linear layer to 0, so that the reward starts at 0 for every answer."""
    heads = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 1]
    if not heads:
        raise ModelError(f"{type(model).__name__} has no linear layer with one output at its end")
    with torch.no_grad():
        heads[-1].weight.zero_()
        if heads[-1].bias is not None:
            heads[-1].bias.zero_()


def text_reward(
    reward_model: str | nn.Module,
    policy: nn.Module,
    policy_tokenizer: PreTrainedTokenizerBase,
    tokenizer: PreTrainedTokenizerBase | None,
    seed: int,
) -> TextReward:
    """The reward model of an option: ``"same"``, a folder or name, or a classifier.

    Raises:
        ModelError: it cannot be made; a module comes without its tokenizer.
    """
    template: dict[str, Any] = {}
    if reward_model == "same":
        model: nn.Module = classifier_like(policy, padding_id(policy_tokenizer), seed)
        tokenizer = policy_tokenizer
    elif isinstance(reward_model, str):
        model, own = classifier_from(reward_model, seed)
        tokenizer = own if tokenizer is None else tokenizer
        held = read_judge_config(Path(reward_model).expanduser())
        template = {} if held is None else {**vars(held)}
    else:
        model = reward_model
    if tokenizer is None:
        raise ModelError("a reward model given as a module needs reward_tokenizer")
    return TextReward(model, tokenizer, JudgeConfig(**{"kind": "reward", **template}))


def add_lora(function: nn.Module, rank: int, seed: int) -> None:
    """An adapter on every linear layer of a text reward's model; its head is trained in full.

    Raises:
        ConfigError: the reward has no layers to adapt.
    """
    if not isinstance(function, TextReward):
        raise ConfigError("reward_lora_rank is for reward models of text; leave it out")
    options = LoraConfig(
        task_type="SEQ_CLS", r=rank, lora_alpha=2 * rank, target_modules="all-linear"
    )
    with seeded(seed, torch.device("cpu")):
        function.model = get_peft_model(function.model, options)
