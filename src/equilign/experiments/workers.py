"""Pieces of work in parallel processes, each with one thread.

The parent hands out one piece at a time and hears how it goes. A stop (Ctrl-C) or a failure ends
all workers; whatever a piece keeps of its work is the piece's business. Workers whose parent was
killed end at the next word they want to tell it.
"""

import multiprocessing
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from equilign.errors import EquilignError

Tell = Callable[[int, int], None]
"""How much of a piece is done, and how much there is."""

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Work:
    """One piece.

    Attributes:
        title: for people.
        function: a function at the top of a module; called with ``arguments`` and ``tell``.
        arguments: by name; whatever pickle can carry.
    """

    title: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Worker:
    process: BaseProcess
    line: Connection
    work: Work | None = None


Progress = Callable[[str, int, int, int], None]
"""Called with a piece's title, 0, how much of it is done, and how much there is."""

Run = Callable[[Sequence[Work], Progress], list[Any]]


def run_parallel(pieces: Sequence[Work], processes: int, progress: Progress) -> list[Any]:
    """What each piece returns, in order; see `parallel`."""
    with parallel(processes) as run:
        return run(pieces, progress)


@contextmanager
def parallel(processes: int) -> Iterator[Run]:
    """A function that does pieces in ``processes`` workers and gives their results, in order.

    It raises what a piece raised, and EquilignError when a worker died (killed for its memory,
    say).
    """
    with _workers(processes) as workers:
        yield lambda pieces, progress: _run(workers, pieces, progress)


def _run(workers: Sequence[_Worker], pieces: Sequence[Work], progress: Progress) -> list[Any]:
    results: dict[int, Any] = {}
    todo = list(enumerate(pieces))
    busy: dict[int, int] = {}  # worker -> piece
    for number, worker in enumerate(workers[: len(todo)]):
        busy[number] = _give(worker, todo.pop(0))
    while busy:
        for number in _speaking(workers, busy):
            worker = workers[number]
            kind, value = _hear(worker)
            if kind == "tell":
                assert worker.work is not None  # noqa: S101 - busy workers have one
                progress(worker.work.title, 0, *value)
                continue
            results[busy.pop(number)] = value
            if todo:
                busy[number] = _give(worker, todo.pop(0))
    return [results[i] for i in range(len(pieces))]


@contextmanager
def _workers(count: int) -> Iterator[list[_Worker]]:
    context = multiprocessing.get_context("spawn")
    workers: list[_Worker] = []
    try:
        with _one_thread_each():
            for _ in range(count):
                mine, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs,), daemon=True)
                process.start()
                theirs.close()
                workers.append(_Worker(process, mine))
        yield workers
    finally:
        for worker in workers:
            worker.line.close()
            worker.process.terminate()
        for worker in workers:
            worker.process.join()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Libraries read these when a process starts; this one keeps its own."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _give(worker: _Worker, item: tuple[int, Work]) -> int:
    number, worker.work = item
    try:
        worker.line.send(worker.work)
    except OSError:
        raise _death(worker) from None
    return number


def _speaking(workers: Sequence[_Worker], busy: Mapping[int, int]) -> list[int]:
    ready = wait([workers[n].line for n in busy])
    return [n for n in busy if workers[n].line in ready]


def _hear(worker: _Worker) -> tuple[str, Any]:
    try:
        kind, value = worker.line.recv()
    except (EOFError, OSError):
        raise _death(worker) from None
    if kind == "failed":
        raise value
    return kind, value


def _death(worker: _Worker) -> EquilignError:
    worker.process.join(5.0)
    what = "" if worker.work is None else f" while at work on {worker.work.title}"
    return EquilignError(
        f"a worker process died{what} (exit code {worker.process.exitcode}); was there too little "
        "memory? What was finished is kept: --resume goes on"
    )


def _serve(line: Connection) -> None:
    """A worker's life: piece after piece, until the parent hangs up."""
    # Ctrl-C reaches every process of a terminal; the parent ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def tell(done: int, total: int) -> None:
        line.send(("tell", (done, total)))

    while True:
        try:
            work: Work = line.recv()
        except (EOFError, OSError):
            return
        try:
            result = work.function(**work.arguments, tell=tell)
        except (BrokenPipeError, ConnectionResetError):
            return
        except Exception as error:  # whatever it was, the parent says it
            line.send(("failed", _portable(error)))
        else:
            line.send(("done", result))


def _portable(error: Exception) -> Exception:
    """The error, or one with its words if it cannot travel."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # pickling may fail in any way
        return RuntimeError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    return error
