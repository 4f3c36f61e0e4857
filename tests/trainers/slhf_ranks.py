"""A training of two players that `test_slhf_runs` starts as one process or as several.

python -m torch.distributed.run --nproc_per_node 2 tests/trainers/slhf_ranks.py FOLDER [KEY=VALUE]
"""

import json
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.trainers.test_slhf_runs import sampled  # noqa: E402


def main(folder: Path, options: dict) -> None:
    players, lora = options.pop("players"), options.pop("lora", False)
    trainer = sampled(folder, players, lora, prompts_per_round=4, chunk_prompts=2, **options)
    trainer.train()
    if trainer.team.is_main:
        trained = {n: p.detach() for n, p in trainer.policy.named_parameters() if p.requires_grad}
        torch.save(trained, folder / "weights.pt")
        trainer.save_model(str(folder / "saved"))


if __name__ == "__main__":
    given = dict(pair.split("=", 1) for pair in sys.argv[2:])
    main(Path(sys.argv[1]), {k: json.loads(v) for k, v in given.items()})
