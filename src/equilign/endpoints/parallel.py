"""A bounded number of slow calls at a time, whose results are never lost."""

import threading
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def as_they_arrive(
    call: Callable[[int], T], count: int, concurrency: int, cancelled: threading.Event
) -> Generator[list[tuple[int, T]], None, None]:
    """Results of ``call(0) ... call(count - 1)`` with their numbers, in the order of arrival.

    When a call raises, or Ctrl-C is pressed, no further call begins; those under way are waited
    for, their results are given out, and only then is the problem raised. A second Ctrl-C ends it
    at once.

    Args:
        call: made in threads.
        count: how many.
        concurrency: most at a time.
        cancelled: set when no more is to be done, so that a call that waits can give up.

    Yields:
        Lists of (number, result), each number once.
    """
    todo = iter(range(count))
    running: dict[Future[T], int] = {}
    problem: BaseException | None = None
    pool = ThreadPoolExecutor(max(1, min(concurrency, count)), "endpoint")
    try:
        while True:
            try:
                if problem is None:
                    for number in islice(todo, concurrency - len(running)):
                        running[pool.submit(call, number)] = number
                if not running:
                    break
                arrived, _ = wait(running, return_when=FIRST_COMPLETED)
            except BaseException as error:
                if problem is not None:
                    raise
                problem = error
                cancelled.set()
                continue
            numbered = [(running.pop(future), future) for future in arrived]
            errors = [e for _, future in numbered if (e := future.exception()) is not None]
            if errors:
                problem = problem or errors[0]
                cancelled.set()
            batch = [(n, future.result()) for n, future in numbered if not future.exception()]
            if batch:
                yield batch
    finally:
        cancelled.set()
        pool.shutdown(wait=True, cancel_futures=True)
    if problem is not None:
        raise problem
