"""A training that `test_processes` starts as one process or as several.

python -m torch.distributed.run --nproc_per_node 2 tests/trainers/ranks.py FOLDER [KEY=VALUE]...
"""

import json
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parents[2]))

from equilign.oracles import CallableOracle  # noqa: E402
from tests.trainers.test_resume import make, prefer_b  # noqa: E402


class Failing:
    """Judges on the main process; fails on the others."""

    def __init__(self, rank):
        self.rank = rank

    def compare(self, *args):
        if self.rank:
            raise RuntimeError("the judge of this process is away")
        return CallableOracle(prefer_b).compare(*args)


def main(folder: Path, options: dict) -> None:
    fail = options.pop("fail", False)
    lora = options.pop("lora", False)
    resume = options.pop("resume", False)
    if lora:
        from peft import LoraConfig

        targets = ["q_proj", "v_proj"]
        options["peft_config"] = LoraConfig(r=4, lora_alpha=8, target_modules=targets)
    trainer = make(folder, save_strategy="epoch", **options)
    if fail:
        trainer._oracle = Failing(trainer.team.rank)
    trainer.train(resume_from_checkpoint=resume)
    if trainer.team.is_main:
        trained = {n: p.detach() for n, p in trainer.policy.named_parameters() if p.requires_grad}
        torch.save(trained, folder / "weights.pt")


if __name__ == "__main__":
    given = dict(pair.split("=", 1) for pair in sys.argv[2:])
    main(Path(sys.argv[1]), {k: json.loads(v) for k, v in given.items()})
