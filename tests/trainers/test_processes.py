"""Two processes make the run that one makes."""

from pathlib import Path

import pytest
import torch

from tests.trainers.launch import start

SCRIPT = Path(__file__).parent / "ranks.py"


def run(folder, processes, *options, fails=False):
    return start(SCRIPT, folder, processes, *options, fails=fails)


def weights(folder):
    return torch.load(folder / "weights.pt", weights_only=True)


def rounds(folder):
    return {p.name: p.read_bytes() for p in sorted((folder / "rounds").iterdir())}


@pytest.mark.parametrize("lora", ["false", pytest.param("true", marks=pytest.mark.slow)])
def test_two_ranks_are_one_rank(tmp_path, lora):
    """Same first round to the byte; the same weights up to the order of summation."""
    run(tmp_path / "one", 1, "per_device_train_batch_size=4", f"lora={lora}", "num_rounds=2")
    run(tmp_path / "two", 2, "per_device_train_batch_size=2", f"lora={lora}", "num_rounds=2")
    one, two = rounds(tmp_path / "one"), rounds(tmp_path / "two")
    assert list(one) == list(two) == ["sppo-001.jsonl", "sppo-002.jsonl"]
    assert one["sppo-001.jsonl"] == two["sppo-001.jsonl"]
    a, b = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert a.keys() == b.keys()
    assert len(a) == (8 if lora == "true" else 21)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=2e-4, atol=2e-5)
    metrics = [(tmp_path / f / "metrics.jsonl").read_text().count("\n") for f in ("one", "two")]
    assert metrics[0] == metrics[1], "only the main process writes metrics"


@pytest.mark.slow
def test_two_ranks_resume(tmp_path):
    """One round, then two more by another start: the same weights as three at once, bitwise."""
    options = ("per_device_train_batch_size=2", "num_rounds=3")
    run(tmp_path / "whole", 2, *options)
    run(tmp_path / "cut", 2, *options)
    folder = tmp_path / "cut" / "checkpoints" / "sppo"
    for step in (2, 3):
        for path in sorted((folder / f"checkpoint-{step}").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (folder / f"checkpoint-{step}").rmdir()
    (tmp_path / "cut" / "rounds" / "sppo-003.jsonl").unlink()
    run(tmp_path / "cut", 2, *options, "resume=true")
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert rounds(tmp_path / "whole") == rounds(tmp_path / "cut")


def test_a_failure_stops_every_process(tmp_path):
    said = run(tmp_path, 2, "fail=true", "num_rounds=1", fails=True)
    assert "the judge of this process is away" in said
    assert "process 1 stopped: RuntimeError" in said
