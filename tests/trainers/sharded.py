"""References of a model sharded by FSDP2 over two processes (gloo, CPU); see `test_sharding`."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parents[2]))

from equilign.trainers import References  # noqa: E402
from tests.enumerable import tiny_model  # noqa: E402

IDS = torch.tensor([[1, 2, 1]])


@torch.no_grad()
def logits(model):
    return model(IDS).logits.clone()


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    start, moved = tiny_model(seed=1), tiny_model(seed=2)
    expected = {"start": logits(start), "moved": logits(moved)}
    model = tiny_model(seed=1)
    mesh = init_device_mesh("cpu", (2,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert all(isinstance(p, DTensor) for p in model.parameters())
    references = References(model)
    references.take("start")
    with torch.no_grad():
        for p, q in zip(model.parameters(), moved.parameters(), strict=True):
            p.copy_(torch.distributed.tensor.distribute_tensor(q.data, mesh, p.placements))
    references.take("moved")
    with references.gathered():
        for _ in range(1 + 2 * rank):  # nobody waits for the others
            torch.testing.assert_close(logits(model), expected["moved"])
            with references.playing("start"):
                torch.testing.assert_close(logits(model), expected["start"])
            torch.testing.assert_close(logits(model), expected["moved"])
    torch.testing.assert_close(logits(model), expected["moved"])
    references.put("start")
    torch.testing.assert_close(logits(model), expected["start"])
    # It still trains: one step on the shards is one step on the whole.
    model(IDS).logits.sum().backward()
    start(IDS).logits.sum().backward()
    for p, q in zip(model.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(p.grad.full_tensor(), q.grad)
    references.save(folder, write=rank == 0)
    dist.barrier()
    again = References(model)
    again.load(folder)
    assert again.names() == ["moved", "start"]
    again.put("moved")
    torch.testing.assert_close(logits(model), expected["moved"])
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
