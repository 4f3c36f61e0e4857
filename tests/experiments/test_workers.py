"""Parallel pieces: order, failures, deaths, and stops that leave no process behind."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from equilign.errors import ConfigError, EquilignError
from equilign.experiments.workers import Work, parallel, run_parallel


def nobody(*said):
    pass


def square(number, *, tell):
    tell(1, 2)
    time.sleep(0.05 * (5 - number))
    return number * number


def threads(*, tell):
    return os.environ["OMP_NUM_THREADS"], os.getpid()


def refuse(*, tell):
    raise ConfigError("no such thing")


class _Local(Exception):
    def __init__(self, a, b):
        super().__init__(a)


def refuse_oddly(*, tell):
    raise _Local(1, 2)


def die(*, tell):
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(*, tell):
    while True:
        tell(0, 1)
        time.sleep(0.05)


def test_results_in_order_and_what_is_told():
    told = []
    pieces = [Work(f"piece {n}", square, {"number": n}) for n in range(5)]
    assert run_parallel(pieces, 2, lambda *said: told.append(said)) == [0, 1, 4, 9, 16]
    assert sorted(told) == [(f"piece {n}", 0, 1, 2) for n in range(5)]


def test_one_thread_each_and_workers_are_used_again(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with parallel(1) as run:
        assert run([], nobody) == []
        first, second = (run([Work("t", threads)], nobody)[0] for _ in range(2))
    assert first == second
    assert first[0] == "1"
    assert first[1] != os.getpid()
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_failures_are_raised_here():
    with pytest.raises(ConfigError, match="no such thing"):
        run_parallel([Work("x", refuse)], 1, nobody)
    with pytest.raises(RuntimeError, match="_Local: 1"):
        run_parallel([Work("x", refuse_oddly)], 1, nobody)


def test_a_dead_worker_is_said():
    with pytest.raises(EquilignError, match=r"at work on the piece \(exit code -9\).*--resume"):
        run_parallel([Work("the piece", die)], 1, nobody)


def children():
    return [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]


def test_a_stop_leaves_no_process():
    def stop(*said):
        assert children()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_parallel([Work("x", sleep), Work("y", sleep)], 2, stop)
    assert not children()


def test_workers_end_when_their_parent_is_killed(tmp_path):
    code = (
        "from tests.experiments.test_workers import *\n"
        "if __name__ == '__main__':\n"
        "    run_parallel([Work('x', sleep)], 1, lambda *said: print('alive', flush=True))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in (*sys.path, ".") if p)}
    parent = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert parent.stdout.readline() == "alive\n"
        workers = psutil.Process(parent.pid).children(recursive=True)
        assert workers
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
