"""The client: one request, its retries, and a key that stays secret."""

import json
import math
import os
import random
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from equilign.endpoints.failures import (
    LATER,
    EndpointError,
    Failure,
    cure,
    error_fields,
    pause_seconds,
)
from equilign.endpoints.policy import Clock, Meter, RetryPolicy
from equilign.errors import ConfigError
from equilign.text import visible

if TYPE_CHECKING:
    import httpx2

_MOST_BYTES = 64 * 1024 * 1024


@dataclass(repr=False, eq=False)
class Endpoint:
    """One server; safe to use from several threads and after a fork.

    Attributes:
        base_url: up to and including ``/v1``; the paths of requests are added to it.
        api_key_env: name of the environment variable that holds the key; None for servers that
            need none. The key is read for each client, kept in memory only, and blacked out of
            every message.
        retry: how patient to be.
        clock: time.
        on_retry: called with the reason before each further try.

    Raises:
        ConfigError: no http(s) address, or the variable is not set.
    """

    base_url: str
    api_key_env: str | None = "OPENAI_API_KEY"
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    clock: Clock = field(default_factory=Clock)
    on_retry: Callable[[str], None] = lambda reason: None

    def __post_init__(self) -> None:
        parts = urlsplit(str(self.base_url))
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"base_url must be an http(s) address such as http://localhost:8000/v1; "
                f"got {self.shown_url!r}"
            )
        self._lock = threading.Lock()
        self._client: httpx2.Client | None = None
        self._process = 0
        self._key()
        self._not_before = -math.inf
        self._random = random.Random()  # not seeded: equal jitter on all ranks is no jitter

    def __repr__(self) -> str:
        return f"Endpoint({self.shown_url!r})"

    @property
    def shown_url(self) -> str:
        """The address without user, password and query, for messages and cache keys."""
        parts = urlsplit(str(self.base_url))
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    def post(
        self,
        path: str,
        payload: Mapping[str, Any],
        meter: Meter | None = None,
        cancelled: threading.Event | None = None,
    ) -> dict[str, Any]:
        """The server's JSON object.

        Args:
            path: added to ``base_url``.
            payload: a JSON object.
            meter: asked before each try, told afterwards.
            cancelled: once set, nothing is tried again.

        Raises:
            EndpointError: refused for good, or no answer after all tries.
            OracleError: whatever ``meter`` raises.
        """
        cancelled = cancelled or threading.Event()
        for number in range(1, self.retry.tries + 1):
            self._wait(self._not_before - self.clock.now(), cancelled)
            failure = Failure("cancelled", "cancelled", billed=False)
            if not cancelled.is_set():
                try:
                    return self._metered(path, payload, meter)
                except Failure as error:
                    failure = error
            if failure.pause > 0:
                # The limit is the server's, not this request's: all threads keep it.
                with self._lock:
                    until = self.clock.now() + failure.pause
                    self._not_before = max(self._not_before, until)
            if failure.final or cancelled.is_set() or number == self.retry.tries:
                raise self._given_up(failure, number) from None
            self.on_retry(failure.reason)
            self._back_off(failure, number, cancelled)
        raise AssertionError("unreachable")

    def control(self, path: str, payload: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One request that is not tried again, of a server's administration.

        Args:
            path: added to ``base_url``.
            payload: a JSON object to post; without one, the path is read.

        Returns:
            The JSON object; ``{"text": ...}`` for any other body.

        Raises:
            EndpointError: any failure.
        """
        try:
            body = self._received("GET" if payload is None else "POST", path, payload)
        except Failure as error:
            raise self._given_up(error, 1) from None
        try:
            reply = json.loads(body)
        except (ValueError, RecursionError):
            reply = None
        return reply if isinstance(reply, dict) else {"text": body.decode(errors="replace")}

    def close(self) -> None:
        """Close idle connections; the next request opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def __del__(self) -> None:
        if getattr(self, "_client", None) is not None and self._process == os.getpid():
            self.close()

    # -- one try ----------------------------------------------------------------------------

    def _metered(
        self, path: str, payload: Mapping[str, Any], meter: Meter | None
    ) -> dict[str, Any]:
        if meter is None:
            return self._once(path, payload)
        ticket = meter.charge(payload)
        try:
            reply = self._once(path, payload)
        except BaseException as error:
            meter.fail(ticket, billed=not isinstance(error, Failure) or error.billed)
            raise
        meter.settle(ticket, reply)
        return reply

    def _once(self, path: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        return self._parsed(self._received("POST", path, payload))

    def _received(self, method: str, path: str, payload: Mapping[str, Any] | None) -> bytes:
        httpx2 = _library()
        deadline = self.clock.now() + self.retry.timeout
        # ASCII: half of a surrogate pair, which a language model can emit, has no UTF-8.
        sent = None if payload is None else json.dumps(dict(payload)).encode("ascii")
        body = bytearray()
        try:
            with self._connected().stream(method, self._url(path), content=sent) as response:
                for piece in response.iter_bytes():
                    body += piece
                    if self.clock.now() > deadline or len(body) > _MOST_BYTES:
                        raise Failure("timeout", "the answer took too long", billed=True)
        except httpx2.ConnectError as error:
            raise Failure("connection", self._hide(str(error)), billed=False) from None
        except httpx2.TimeoutException as error:
            billed = not isinstance(error, httpx2.ConnectTimeout | httpx2.PoolTimeout)
            raise Failure("timeout", type(error).__name__, billed=billed) from None
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise Failure("connection", self._hide(str(error)), billed=True) from None
        except httpx2.InvalidURL as error:
            raise Failure("url", self._hide(str(error)), billed=False, final=True) from None
        if response.status_code != 200:
            raise self._status_failure(response, bytes(body))
        return bytes(body)

    def _parsed(self, body: bytes) -> dict[str, Any]:
        try:
            reply = json.loads(body)
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict):
            shown = self._hide(body[:200].decode(errors="replace"))
            raise Failure("bad_body", f"no JSON object: {shown!r}", billed=True)
        if reply.get("error"):  # some gateways wrap an upstream failure in a 200
            code, message = error_fields(reply)
            raise Failure("bad_body", self._hide(f"{code} {message}".strip()), billed=True)
        return reply

    def _status_failure(self, response: "httpx2.Response", body: bytes) -> "Failure":
        status = response.status_code
        try:
            code, message = error_fields(json.loads(body))
        except (ValueError, RecursionError):
            code, message = "", body[:300].decode(errors="replace")
        pause = pause_seconds(response.headers.get("retry-after", ""), self.clock.wall())
        final = status not in LATER or code == "insufficient_quota"
        detail = self._hide(f"HTTP {status} {code} {message}".strip())
        if pause > self.retry.longest_pause:
            detail += f"; it asks to come back in {pause:.0f} s"
            final = True
        return Failure(f"http_{status}", detail, billed=False, final=final, pause=pause, code=code)

    # -- patience ---------------------------------------------------------------------------

    def _back_off(self, failure: "Failure", number: int, cancelled: threading.Event) -> None:
        wait = min(self.retry.longest_wait, self.retry.first_wait * 2.0 ** (number - 1))
        wait *= 1.0 - 0.5 * self._random.random()
        self._wait(max(wait, failure.pause), cancelled)

    def _wait(self, seconds: float, cancelled: threading.Event) -> None:
        if seconds > 0 and not cancelled.is_set():
            self.clock.wait(cancelled, seconds)

    def _given_up(self, failure: "Failure", tries: int) -> EndpointError:
        detail = failure.detail.rstrip(".")
        if failure.final:
            said = f"{self.shown_url} refused a request: {detail}. "
        else:
            said = f"{self.shown_url} gave no answer in {tries} tries; the last: {detail}. "
        return EndpointError(
            said + cure(failure, self.api_key_env),
            reason=failure.reason,
            code=failure.code,
            final=failure.final,
        )

    # -- connection and secrets -------------------------------------------------------------

    def _connected(self) -> "httpx2.Client":
        httpx2 = _library()
        with self._lock:
            # Sockets must not be shared with the process that this one was forked from.
            if self._client is None or self._process != os.getpid():
                key = self._key()
                headers = {"Content-Type": "application/json"}
                self._client = httpx2.Client(
                    headers=headers | ({"Authorization": f"Bearer {key}"} if key else {}),
                    timeout=httpx2.Timeout(
                        self.retry.timeout, connect=min(self.retry.timeout, 20.0)
                    ),
                    limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
                )
                self._process = os.getpid()
            return self._client

    def _url(self, path: str) -> str:
        parts = urlsplit(self.base_url)
        return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))

    def _key(self) -> str | None:
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise ConfigError(
                f"the environment variable {self.api_key_env} is not set: put the API key of "
                f"{self.shown_url} there, or set api_key_env to null for a server without keys"
            )
        if not key.isascii() or not key.isprintable():
            raise ConfigError(f"{self.api_key_env} holds characters that no API key has")
        return key

    def _hide(self, text: str) -> str:
        """Text of a server or library, fit for a message: no key, one line, short."""
        secrets = [os.environ.get(self.api_key_env or "", "").strip()]
        parts = urlsplit(self.base_url)
        secrets += [parts.password or "", parts.query]
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
        # Servers like to quote the key, shortened by their own rules.
        text = re.sub(r"\b(sk|key|api|hf|xai|gsk)[-_][\w*.-]{6,}", "***", text)
        return visible(text, newlines=False)[:300]


def _library() -> Any:  # noqa: ANN401 - a module
    """httpx2, which neither the package nor a local judge needs."""
    try:
        return import_module("httpx2")
    except ModuleNotFoundError:
        raise ConfigError(
            'asking a server needs httpx2: pip install "equilign[lm]" (or httpx2 alone)'
        ) from None
