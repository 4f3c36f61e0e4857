"""A reward game that `test_reward_players` starts as one process or as several.

python -m torch.distributed.run --nproc_per_node 2 tests/trainers/reward_ranks.py FOLDER [KEY=VALUE]
"""

import json
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.trainers.test_reward_players import make, state  # noqa: E402


def main(folder: Path, options: dict) -> None:
    trainer = make(folder, options.pop("method"), **options)
    trainer.train()
    if trainer.team.is_main:
        torch.save(state(trainer), folder / "state.pt")


if __name__ == "__main__":
    given = dict(pair.split("=", 1) for pair in sys.argv[2:])
    main(Path(sys.argv[1]), {k: json.loads(v) for k, v in given.items()})
