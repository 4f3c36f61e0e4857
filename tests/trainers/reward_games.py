"""Both players of the reward game so small that everything can be listed."""

import torch
from torch import nn

from equilign.trainers import reward_game as games
from tests.enumerable import EnumeratingSampler, tiny_model, tiny_tokenizer
from tests.trainers.scored import PROMPTS, SPOKEN, TableReward, spoken, table_rewards

FAMILY = {
    "sta-naive": (games.STANaiveTrainer, games.STANaiveConfig),
    "sta-total": (games.STATotalTrainer, games.STATotalConfig),
    "simultaneous": (games.SimultaneousTrainer, games.SimultaneousConfig),
    "reversed": (games.ReversedTrainer, games.ReversedConfig),
    "parl": (games.PARLTrainer, games.PARLConfig),
    "rlhf": (games.RLHFTrainer, games.RLHFConfig),
}


class Tables(nn.Module):
    """A reward that is one number per prompt and answer."""

    def __init__(self, values=None):
        super().__init__()
        start = torch.zeros(len(PROMPTS), len(SPOKEN), dtype=torch.float64)
        self.table = nn.Parameter(start if values is None else torch.tensor(values))

    def encode(self, rows):
        return [
            [(PROMPTS.index(row["prompt"]), SPOKEN.index(spoken(t))) for t in row["completions"]]
            for row in rows
        ]

    def forward(self, items):
        x, y = (torch.tensor([item[side] for item in items]) for side in (0, 1))
        return self.table[x, y]

    def save(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.state_dict(), folder / "table.pt")


def build(folder, name, *, oracle=None, model=None, sampler=None, callbacks=None,
          reward_model=None, listed=True, prompts=PROMPTS, **options):  # fmt: skip
    """A trainer; with `listed` answers its expectations are exact."""
    trainer, config = FAMILY[name]
    if model is None:
        kind = torch.float64 if listed else torch.float32
        model = tiny_model(seed=3, spread=0.4, dtype=kind)
    tokenizer = tiny_tokenizer()
    exact = {"pairs": "all", "labels": "soft", "baseline": "none", "reward_optim": "sgd",
             "reward_max_grad_norm": 0.0}  # fmt: skip
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
        **(exact if listed else {}),
        **options,
    }
    if sampler is None and listed:
        sampler = EnumeratingSampler(model, tokenizer)
    if reward_model is None and listed:
        reward_model = Tables()
    return trainer(
        model,
        config(output_dir=str(folder), **settings),
        [{"prompt": p} for p in prompts],
        TableReward(table_rewards()) if oracle is None else oracle,
        tokenizer,
        sampler=sampler,
        callbacks=callbacks,
        reward_model=reward_model,
    )
