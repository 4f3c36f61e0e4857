"""SLHF on policies whose answers can all be listed, and a policy that is a table."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers.modeling_outputs import CausalLMOutput

from equilign.rollout import completion_logps
from equilign.trainers.slhf import SLHFConfig, SLHFTrainer
from tests.enumerable import (
    END,
    RESPONSES,
    EnumeratingSampler,
    MatrixOracle,
    exact_logps,
    random_prefs,
    tiny_model,
    tiny_tokenizer,
)

PROMPTS = ["a b", "b a"]
TEMPLATE = "{prompt} {answer} b"
MODES = ("shared", "adapters", "separate")


class Table(nn.Module):
    """A language model that looks every context up: nothing is learnt about any other one."""

    def __init__(self, tokens: int = 5, vocabulary: int = 3) -> None:
        super().__init__()
        self.base, self.size = vocabulary + 1, (vocabulary + 1) ** tokens
        self.table = nn.Embedding(self.size, vocabulary, dtype=torch.float64)
        with torch.no_grad():
            self.table.weight.mul_(0.5)

    def forward(self, input_ids, attention_mask=None, use_cache=None):
        code = torch.zeros_like(input_ids[:, 0])
        codes = []
        for token in input_ids.T:
            code = code * self.base + token + 1
            codes.append(code)
        place = torch.stack(codes, dim=1) % self.size
        return CausalLMOutput(logits=self.table(place))


@dataclass
class Listing:
    """All answers of whoever's turn it is; `kept` of them of the Leader, in equal shares."""

    trainer: SLHFTrainer
    responses: tuple = RESPONSES
    kept: tuple | None = None

    def sample(self, prompts, num_samples, seed):
        responses = self.responses
        leads = len(tiny_tokenizer()(prompts[0])["input_ids"]) == 2
        if self.kept is not None and leads:
            responses = self.kept
        inner = EnumeratingSampler(self.trainer.policy, self.trainer.tokenizer, responses)
        return inner.sample(prompts, num_samples, seed)


def games(size=7):
    return {p: random_prefs(seed, size) for seed, p in enumerate(PROMPTS)}


def build(folder, *, model=None, oracle=None, responses=RESPONSES, kept=None, **options):
    """A trainer with exact expectations: every answer of both players, with its probability."""
    # PEFT writes the model's name into a configuration.
    extra = {"peft_config": copy.deepcopy(options.pop("peft_config", None))}
    extra["follower_model"] = options.pop("follower_model", None)
    settings = {
        "beta_leader": 0.3,
        "beta_follower": 0.2,
        "follower_template": TEMPLATE,
        "prompts_per_round": 2,
        "per_device_train_batch_size": 2,
        "max_completion_length": 2,
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "save_strategy": "no",
        "logging_strategy": "no",
        "optim": "adamw_torch",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 0,
        **options,
    }
    trainer = SLHFTrainer(
        tiny_model(seed=3, spread=0.4) if model is None else model,
        SLHFConfig(output_dir=str(folder), **settings),
        [{"prompt": p} for p in PROMPTS],
        MatrixOracle(games()) if oracle is None else oracle,
        tiny_tokenizer(),
        **extra,
    )
    trainer.sampler = Listing(trainer, responses, kept)
    return trainer


def ids_of(prompt):
    return tuple(tiny_tokenizer()(prompt)["input_ids"])


def shown(prompt, answer):
    """The Follower's prompt as tokens."""
    return ids_of(TEMPLATE.format(prompt=prompt, answer=answer, instruction=""))


def shake(trainer, size=0.05, seed=0):
    """Away from the references, so that the KL terms have a gradient."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in trainer.policy.parameters():
            if p.requires_grad:
                p.add_(size * torch.randn(p.shape, generator=noise, dtype=torch.float64).to(p))


def token_table(model, prompt_ids, responses=RESPONSES):
    """Log-probabilities of all responses to one prompt, with gradient."""
    ids = [tuple(prompt_ids)] * len(responses)
    return completion_logps(model, ids, responses, pad_id=END)


def logps_of(trainer, role, prompt_ids, responses=RESPONSES):
    with trainer.playing(role):
        return exact_logps(trainer.policy, prompt_ids, responses)


def policies(trainer, responses, texts):
    """Leader's policy and Follower's rows, by prompt; normalised over ``responses``."""
    found = {}
    for p in PROMPTS:
        leads = np.exp(logps_of(trainer, "leader", ids_of(p), responses))
        rows = [np.exp(logps_of(trainer, "follower", shown(p, y), responses)) for y in texts]
        rows = np.array(rows)
        found[p] = leads / leads.sum(), rows / rows.sum(axis=1, keepdims=True)
    return found


def flat(gradients):
    return torch.cat([g.flatten() for g in gradients])


def distance(found, expected):
    return float((found - expected).norm() / expected.norm())
