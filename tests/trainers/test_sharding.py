"""Weights that are sharded over processes play like whole ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from equilign.errors import ModelError
from equilign.trainers import References
from tests.enumerable import tiny_model

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_references_of_a_sharded_model(tmp_path):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [sys.executable, *launch, str(Path(__file__).parent / "sharded.py"), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["moved.safetensors", "start.safetensors"]


def test_zero_3_is_refused():
    """DeepSpeed leaves empty shells of the weights behind: there is nothing to keep."""
    model = tiny_model(dtype=torch.float32)
    for number, p in enumerate(model.parameters()):
        p.ds_id = number
    with pytest.raises(ModelError, match="partitioned by DeepSpeed ZeRO-3"):
        References(model).take("reference")
