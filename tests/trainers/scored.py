"""A reward by table on the enumerable language model, and trainers on it."""

from dataclasses import dataclass

import numpy as np
import torch

from equilign.rollout import completion_logps
from equilign.trainers.ppo import PPOConfig, PPOTrainer
from equilign.trainers.reward_gradient import (
    ReinforceConfig,
    ReinforceTrainer,
    RLOOConfig,
    RLOOTrainer,
)
from tests.enumerable import (
    END,
    RESPONSES,
    TEXTS,
    EnumeratingSampler,
    exact_logps,
    tiny_model,
    tiny_tokenizer,
)

PROMPTS = ["a b", "b a"]
FAMILY = {
    "reinforce": (ReinforceTrainer, ReinforceConfig),
    "rloo": (RLOOTrainer, RLOOConfig),
    "ppo": (PPOTrainer, PPOConfig),
}


def spoken(text):
    """Without the end token, as a tokenizer decodes it."""
    return text.removesuffix("e").strip()


SPOKEN = tuple(spoken(text) for text in TEXTS)


@dataclass
class TableReward:
    """A scalar reward of each of `TEXTS`, by prompt; `nan` only where `abstains`."""

    rewards: dict
    abstains: bool = False

    def score(self, prompts, answers):
        pairs = zip(prompts, answers, strict=True)
        return np.array([self.rewards[x][SPOKEN.index(spoken(y))] for x, y in pairs])

    def compare(self, prompts, a, b):
        return 1.0 / (1.0 + np.exp(self.score(prompts, b) - self.score(prompts, a)))


def table_rewards(scale=0.5):
    rng = np.random.default_rng(0)
    return {p: rng.normal(0.0, scale, len(TEXTS)) for p in PROMPTS}


def build(folder, name, *, oracle=None, model=None, sampler=None, callbacks=None, **options):
    """A trainer with exact expectations: every response, with its probability."""
    trainer, config = FAMILY[name]
    model = tiny_model(seed=3, spread=0.4) if model is None else model
    tokenizer = tiny_tokenizer()
    settings = {
        "beta": 0.5,
        "prompts_per_round": 2,
        "per_device_train_batch_size": 2,
        "max_completion_length": 2,
        "weight_decay": 0.0,
        "save_strategy": "no",
        "logging_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 0,
        **options,
    }
    return trainer(
        model,
        config(output_dir=str(folder), **settings),
        [{"prompt": p} for p in PROMPTS],
        TableReward(table_rewards()) if oracle is None else oracle,
        tokenizer,
        sampler=EnumeratingSampler(model, tokenizer) if sampler is None else sampler,
        callbacks=callbacks,
    )


def prompt_ids(prompt):
    return tuple(tiny_tokenizer()(prompt)["input_ids"])


def policy_of(model):
    return {p: exact_logps(model, prompt_ids(p)) for p in PROMPTS}


def shake(model, size=0.05, seed=0):
    """Away from the reference, so that the KL term has a gradient."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(size * torch.randn(p.shape, generator=noise, dtype=p.dtype))


def objective(model, start, rewards, beta):
    """Mean over prompts of ``E_pi[r] - beta KL(pi || start)``, as a sum over all responses."""
    total = 0.0
    for p in PROMPTS:
        logps = completion_logps(model, [prompt_ids(p)] * len(RESPONSES), RESPONSES, pad_id=END)
        worth = torch.tensor(rewards[p]) - beta * (logps - torch.tensor(start[p]))
        total = total + (logps.exp() * worth).sum()
    return total / len(PROMPTS)


def flat_gradient(loss, model):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def distance(found, expected):
    return float((found - expected).norm() / expected.norm())
