"""Compiled loops over matrices, with a cache on disk that a crash cannot poison.

Modules that hold kernels import this one, and with it numba (half a second); they are imported
when a kernel is first needed, not when the package is.
"""

import contextlib
import inspect
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache

_LOG = logging.getLogger("equilign")

# Sums may be reordered and fused, so that loops become SIMD; nan and inf keep their meaning,
# because divergence is detected by them.
_FAST = {"reassoc", "contract", "nsz", "arcp"}


@cache
def _tell() -> None:
    """Once per process: the wait is long enough to be wondered at."""
    _LOG.info("compiling for this machine; kept for the next time")


class _ForgivingCache(FunctionCache):
    """A damaged file counts as a missing one: the kernel is compiled again.

    So does one that is older than any source in the kernel's folder or in this one, since numba
    itself looks at the kernel's own file only, and not at those of the kernels that it calls.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        folders = {Path(inspect.getfile(function)).parent, Path(__file__).parent}
        stats = [path.stat() for folder in sorted(folders) for path in folder.glob("*.py")]
        stamp = max(s.st_mtime for s in stats), sum(s.st_size for s in stats)
        self._cache_file._source_stamp = stamp

    def load_overload(self, sig: Any, target_context: Any) -> Any:  # noqa: ANN401 - numba's own
        try:
            found = super().load_overload(sig, target_context)
        except Exception:  # whatever unpickling or linking half a file raises
            self.flush()
            found = None
        if found is None:
            _tell()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:  # noqa: ANN401
        try:
            super().save_overload(sig, data)
        except OSError:  # a full or read-only disk costs the cache, not the result
            return


def _compile(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:  # noqa: ANN401
    # Without the run-time type checks that a test suite may have wrapped around it.
    function = inspect.unwrap(function)
    dispatcher: Any = numba.njit(nogil=True, error_model="numpy", **options)(function)
    with contextlib.suppress(RuntimeError, OSError):  # no writable folder: no cache
        dispatcher._cache = _ForgivingCache(function)
    compiled: Callable[..., Any] = dispatcher
    return compiled


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` on first call; it runs without the interpreter lock."""
    return _compile(function, fastmath=_FAST)


def strict_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `kernel`, but sums keep their order: for pivoting and for error-free arithmetic."""
    # Said outright, since numba lets a callee inherit its caller's flags where it says nothing.
    return _compile(function, fastmath=False)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `kernel`, for small pieces of a kernel that are worth no call."""
    return _compile(function, fastmath=_FAST, forceinline=True)


def borrowing(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `inlined`, for what makes no arrays: views into its arguments then count no references.

    Counting is an atomic operation per view, which in a step of a small game is most of the time.
    """
    return _compile(function, fastmath=_FAST, forceinline=True, _nrt=False)


def workers() -> int:
    """Threads for a batch: ``EQUILIGN_THREADS``, or the cores this process may use."""
    asked = os.environ.get("EQUILIGN_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def over_games(function: Callable[[int, int], None], games: int, least: int = 1) -> None:
    """Call ``function(start, stop)`` on slices of ``range(games)``, one thread each.

    Args:
        function: works on its own slice only; releases the interpreter lock.
        games: how many there are.
        least: games below which another thread is not worth it.
    """
    threads = max(1, min(workers(), games // max(1, least)))
    if threads == 1:
        function(0, games)
        return
    edges = [games * t // threads for t in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(function, edges[t], edges[t + 1]) for t in range(threads)]:
            done.result()
