"""Compiled kernels: a cache that survives accidents, and arithmetic that means what it says."""

import subprocess
import sys

import numpy as np
import pytest

from equilign.compiled import over_games, workers

SOURCE = """
from equilign.compiled import inlined, kernel, strict_kernel
from helper import shift

@strict_kernel
def lost(x, y):
    return (x + y) - x

@kernel
def total(values):
    out = 0.0
    for i in range(values.shape[0]):
        out += shift(values[i])
    return out

@kernel
def through(x, y):
    return lost(x, y)
"""
HELPER = """
from equilign.compiled import kernel

@kernel
def shift(x):
    return x + {amount}
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "kernels.py").write_text(SOURCE)
    (tmp_path / "helper.py").write_text(HELPER.format(amount=1.0))

    def python(code):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", f"import numpy as np, kernels\n{code}"],
            cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    return python


TOTAL = "print(kernels.total(np.ones(3)), sum(kernels.total.stats.cache_hits.values()))"


def test_the_cache_is_used_and_a_damaged_one_is_made_again(run, tmp_path):
    assert run(TOTAL) == ["6.0", "0"]
    assert run(TOTAL) == ["6.0", "1"]
    files = list(tmp_path.rglob("*.nbc"))
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert run(TOTAL) == ["6.0", "0"]
    assert run(TOTAL) == ["6.0", "1"]
    for path in tmp_path.rglob("*.nb*"):
        path.write_bytes(b"rubbish")
    assert run(TOTAL) == ["6.0", "0"]


def test_compiling_is_told_once_and_only_when_it_happens(run):
    code = (
        "import logging\nlogging.basicConfig(level=logging.INFO, stream=__import__('sys').stdout)\n"
    )
    said = " ".join(run(code + TOTAL))
    assert said.count("compiling for this machine") == 1
    assert "compiling" not in " ".join(run(code + TOTAL))


def test_a_change_in_a_kernel_that_is_called_is_seen(run, tmp_path):
    assert run(TOTAL) == ["6.0", "0"]
    (tmp_path / "helper.py").write_text(HELPER.format(amount=10.0))
    assert run(TOTAL) == ["33.0", "0"]


def test_strict_kernels_keep_their_order_even_inside_fast_ones(run):
    """(1 + 1e-20) - 1 is 0 in the order written, and 1e-20 if sums may be reordered."""
    assert run("print(kernels.through(1.0, 1e-20))") == ["0.0"]


def test_games_are_shared_out_once_each(monkeypatch):
    monkeypatch.setenv("EQUILIGN_THREADS", "3")
    assert workers() == 3
    seen = np.zeros(10, dtype=int)

    def work(start, stop):
        seen[start:stop] += 1

    for least in (1, 4, 100):
        seen[:] = 0
        over_games(work, 10, least=least)
        assert (seen == 1).all()
    over_games(work, 0)


def test_an_error_in_a_thread_is_raised(monkeypatch):
    monkeypatch.setenv("EQUILIGN_THREADS", "2")

    def work(start, stop):
        raise ValueError(f"{start}")

    with pytest.raises(ValueError, match="0"):
        over_games(work, 10)


@pytest.mark.parametrize("value", ["", "none", "0"])
def test_the_number_of_threads_is_read_with_care(monkeypatch, value):
    monkeypatch.setenv("EQUILIGN_THREADS", value)
    assert workers() >= 1
