"""Two processes that score and learn together, with batches of different kinds; `test_prefix`."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parents[2]))

from equilign.rollout import completion_logps, prefix  # noqa: E402
from equilign.trainers.sharding import whole  # noqa: E402
from tests.enumerable import tiny_model  # noqa: E402

LONG, OTHER = (1, 2, 1, 2, 1, 1, 2, 1, 2), (2, 2, 1, 2, 1, 2, 1, 1)
SHARED = ([LONG] * 4, [(1, 2, 1, 1, 2, 0), (2, 1, 2, 1, 2, 1), (1,), (2,)])
APART = ([LONG, OTHER], [(1, 2, 0), (2, 1)])


def gradient(model, prompts, answers):
    model.zero_grad()
    completion_logps(model, prompts, answers, pad_id=0).sum().backward()
    return [
        p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad.clone()
        for p in model.parameters()
    ]


def main(folder: Path, kind: str) -> None:
    prefix._LEAST, prefix._WORTH = 1, 1.0
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    plain, inner = tiny_model(seed=1), tiny_model(seed=1)
    completion_logps(inner, *APART, pad_id=0)  # the first pass looks at the model
    if kind.startswith("ddp"):  # transformers has it look for unused weights
        model = DistributedDataParallel(inner, find_unused_parameters=kind == "ddp, unused")
    else:
        mesh = init_device_mesh("cpu", (2,))
        for layer in inner.model.layers:
            fully_shard(layer, mesh=mesh)
        model = fully_shard(inner, mesh=mesh)
    passes = []
    inner.register_forward_pre_hook(lambda *_: passes.append(1))
    seen, error = [], 0.0
    for mine in ((SHARED, SHARED), (SHARED, APART)):
        found, made = [], []
        for _ in range(2):  # a second time, as training would
            passes.clear()
            found = gradient(model, *mine[rank])
            made.append(len(passes))
        seen.append(made)
        wanted = zip(*(gradient(plain, *rows) for rows in mine), strict=True)
        for got, (a, b) in zip(found, wanted, strict=True):
            error = max(error, float((got - (a + b) / 2).abs().max()))
    passes.clear()
    with torch.no_grad(), whole(inner):
        completion_logps(inner, *(SHARED, APART)[rank], pad_id=0)
    seen.append([len(passes)])
    (folder / f"{rank}.json").write_text(json.dumps({"passes": seen, "error": error}))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
