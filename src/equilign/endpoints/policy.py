"""How patient to be with a server, and who counts what is sent to it."""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from equilign.errors import ConfigError


@dataclass(frozen=True)
class RetryPolicy:
    """How long to be patient.

    Attributes:
        timeout: seconds that one try may take, from connecting to the last byte.
        tries: of one request, the first included.
        first_wait: seconds before the second try; doubles each time, with up to 50 % taken off
            at random so that clients do not come back all at once.
        longest_wait: limit of that doubling, in seconds.
        longest_pause: a server that asks for a longer pause (``Retry-After``) is given up on.
    """

    timeout: float = 60.0
    tries: int = 6
    first_wait: float = 0.5
    longest_wait: float = 30.0
    longest_pause: float = 300.0

    def __post_init__(self) -> None:
        for name in ("timeout", "first_wait", "longest_wait", "longest_pause"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be a positive number of seconds; got {value!r}")
        if not isinstance(self.tries, int) or self.tries < 1:
            raise ConfigError(f"tries must be a whole number >= 1; got {self.tries!r}")


@dataclass(frozen=True)
class Clock:
    """Time, so that tests need not wait.

    Attributes:
        now: seconds of a clock that never goes back.
        wall: seconds since 1970, for ``Retry-After`` dates.
        wait: waits so many seconds, or until the event is set.
    """

    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    wait: Callable[[threading.Event, float], object] = threading.Event.wait


class Meter(Protocol):
    """Who counts what is sent, and may forbid more."""

    def charge(self, payload: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the meter's own
        """Called before each try; raises to forbid it. Returns a ticket."""
        ...

    def settle(self, ticket: Any, reply: Mapping[str, Any]) -> None:  # noqa: ANN401
        """Called with the reply of that try."""
        ...

    def fail(self, ticket: Any, *, billed: bool) -> None:  # noqa: ANN401
        """Called when that try brought no reply; ``billed`` if the server may have worked."""
        ...
