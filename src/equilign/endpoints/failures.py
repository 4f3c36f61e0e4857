"""What can go wrong between a request and its answer, and what helps."""

import math
from email.utils import parsedate_to_datetime

from equilign.errors import EquilignError

LATER = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
"""Statuses that a second try may cure."""


class EndpointError(EquilignError):
    """A server refused a request for good, or did not answer any try.

    Attributes:
        reason: short name for counting: ``timeout``, ``connection``, ``http_503``, ``bad_body``.
        code: the server's own error code, empty where it gave none.
        final: whether a later try would fail in the same way.
    """

    def __init__(self, message: str, *, reason: str, code: str = "", final: bool = False) -> None:
        super().__init__(message)
        self.reason, self.code, self.final = reason, code, final
        self.exit_code = 2 if final else 1


class Failure(Exception):
    """One try without a usable reply; `EndpointError` is what the caller sees of it."""

    def __init__(
        self,
        reason: str,
        detail: str,
        *,
        billed: bool,
        final: bool = False,
        pause: float = 0.0,
        code: str = "",
    ) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.billed = reason, detail, billed
        self.final, self.pause, self.code = final, pause, code


def error_fields(reply: object) -> tuple[str, str]:
    """Code and message of an error body, in the shapes that servers use."""
    error = reply.get("error", reply) if isinstance(reply, dict) else reply
    if isinstance(error, dict):
        code = error.get("code") or error.get("type") or ""
        return str(code), str(error.get("message") or error.get("detail") or "")
    return "", str(error)[:300]


def pause_seconds(header: str, now: float) -> float:
    """``Retry-After``: seconds or a date; 0 when absent or unreadable."""
    try:
        value = float(header)
    except ValueError:
        try:
            value = parsedate_to_datetime(header).timestamp() - now
        except (TypeError, ValueError, OverflowError):
            return 0.0
    return max(0.0, value) if math.isfinite(value) else 0.0


def cure(failure: Failure, api_key_env: str | None) -> str:
    """One sentence on what to do."""
    refused = (
        "The server does not accept an option of the request: remove it, or set what it wants "
        "instead"
    )
    cures = {
        "http_400": refused,
        "http_422": refused,
        "http_401": f"The key was not accepted: check {api_key_env or 'api_key_env'}",
        "http_403": f"The key may not do this: check {api_key_env or 'api_key_env'} and the model",
        "http_404": "The model or the address is unknown there: check model and base_url "
        "(it usually ends in /v1)",
        "http_429": "The account's limit is reached: come back later, or lower concurrency",
        "connection": "See that the server is up and base_url right",
        "timeout": "Raise timeout, or lower concurrency",
        "cancelled": "The run was stopped",
    }
    return cures.get(failure.reason, "Look at the server's log, and start again later") + "."
