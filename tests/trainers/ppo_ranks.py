"""A PPO training that `test_ppo` starts as one process or as several.

python -m torch.distributed.run --nproc_per_node 2 tests/trainers/ppo_ranks.py FOLDER BATCH
"""

import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.trainers.test_ppo import make, state  # noqa: E402


def main(folder: Path, batch: int) -> None:
    trainer = make(folder, "ppo", num_rounds=3, per_device_train_batch_size=batch)
    trainer.train()
    torch.save(state(trainer), folder / f"state-{trainer.team.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
