"""One request: checked first, then answered. What is not expected is refused.

| request | body | answer |
|---|---|---|
| ``GET /``, ``/page.js``, ``/page.css`` | | the page |
| ``POST /api/next`` | ``annotator`` | what this person compares next |
| ``POST /api/answer`` | ``annotator, pair, choice, key, seconds`` | the same, with ``stored`` |
| ``POST /api/undo`` | ``annotator, key`` | the same, with ``undone`` |

Answers of the API have ``comparison`` (``pair, prompt, left, right``, or null) and ``standing``
(``answered, wanted, mine, last``); refusals have ``error``.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from equilign.errors import ConfigError, DiskFullError, EquilignError
from equilign.labelling.store import check_annotator
from equilign.labelling.tables import AnswerConflict, Assignment, UnknownComparison

if TYPE_CHECKING:
    from equilign.labelling.server import LabelServer

LONGEST_BODY = 16_384
"""Bytes; an answer has about 200."""

_DRAINED = 1_000_000

PAGES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
"""Path -> (file of this package, type). No other path is a file."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """A request that is not served, and why."""

    def __init__(self, status: HTTPStatus, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


@cache
def page_file(name: str) -> bytes:
    """A file of the page."""
    return files("equilign.labelling").joinpath(name).read_bytes()


class Handler(BaseHTTPRequestHandler):
    """Checks host, origin, token, method, path and body, in this order."""

    server: "LabelServer"
    server_version = "equilign"
    sys_version = ""

    def do_GET(self) -> None:
        """Serve the page."""
        self._serve(self._page)

    def do_POST(self) -> None:
        """Serve the API."""
        self._serve(self._api)

    def do_HEAD(self) -> None:
        """Refused, as every other method."""
        self._serve(self._other)

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = do_HEAD

    def log_message(self, format: str, *args: Any) -> None:  # noqa: ANN401
        """Silent: what happens is in the file."""

    # -- one request ------------------------------------------------------------------------

    def _serve(self, work: Callable[[str], None]) -> None:
        try:
            url = self._check()
            work(url)
        except Refused as refusal:
            self._send_error(refusal.status, str(refusal), refusal.headers)
        except UnknownComparison as error:
            self._send_error(HTTPStatus.NOT_FOUND, str(error))
        except AnswerConflict as error:
            self._send_error(HTTPStatus.CONFLICT, str(error))
        except DiskFullError as error:
            self._send_error(HTTPStatus.INSUFFICIENT_STORAGE, str(error))
        except ConfigError as error:
            self._send_error(HTTPStatus.BAD_REQUEST, str(error))
        except EquilignError as error:
            self._send_error(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))

    def _check(self) -> str:
        """The path, if this request may be served at all."""
        access = self.server.access
        if (
            not access.host_is_ours(self.headers.get("Host"))
            or len(self.headers.get_all("Host", [])) != 1
        ):
            raise Refused(HTTPStatus.FORBIDDEN, "this server goes by another name")
        if not access.origin_is_ours(self.headers):  # type: ignore[arg-type]  # a mapping, almost
            raise Refused(HTTPStatus.FORBIDDEN, "requests of other pages are not served")
        url = urlsplit(self.path)
        given = parse_qs(url.query).get("token", [""])[-1] if self.command == "GET" else None
        if not access.token_is_right(self.headers, given):  # type: ignore[arg-type]
            raise Refused(
                HTTPStatus.UNAUTHORIZED,
                "open the address that was printed when the server started: it has the token",
            )
        if given and access.token is not None:
            # The token belongs into the cookie, not into the history of a browser.
            cookie = f"{access.cookie}={access.token}; HttpOnly; SameSite=Strict; Path=/"
            headers = {"Set-Cookie": cookie, "Location": "/"}
            raise Refused(HTTPStatus.SEE_OTHER, "go on", **headers)
        return url.path

    def _page(self, path: str) -> None:
        if path.startswith("/api/"):
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "use POST", Allow="POST")
        if path not in PAGES:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such page")
        name, kind = PAGES[path]
        self._send(HTTPStatus.OK, page_file(name), kind)

    def _other(self, path: str) -> None:
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "use GET or POST", Allow="GET, POST")

    def _api(self, path: str) -> None:
        if path in PAGES:
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "use GET", Allow="GET")
        calls = {"/api/next": self._next, "/api/answer": self._answer, "/api/undo": self._undo}
        if path not in calls:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such call")
        found = calls[path](self._body())
        self._send(HTTPStatus.OK, json.dumps(found).encode("ascii"), "application/json")

    def _body(self) -> dict[str, Any]:
        kind = self.headers.get_content_type()
        if kind != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        if "Transfer-Encoding" in self.headers:
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "send a Content-Length")
        text = self.headers.get("Content-Length", "")
        if not (text.isascii() and text.isdigit()):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "send a Content-Length")
        if len(text) > 9 or int(text) > LONGEST_BODY:
            self._drain(int(text[:9]))
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {LONGEST_BODY} bytes, please"
            )
        raw = self.rfile.read(int(text))
        try:
            value = json.loads(raw.decode("utf-8"))
        except (ValueError, RecursionError):
            raise Refused(HTTPStatus.BAD_REQUEST, "the body is no JSON") from None
        if not isinstance(value, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "the body must be a JSON object")
        return value

    def _drain(self, size: int) -> None:
        """Read a little of what is refused: who is still sending does not hear the answer."""
        left = min(size, _DRAINED)
        while left > 0:
            read = self.rfile.read(min(left, 65_536))
            if not read:
                return
            left -= len(read)

    # -- the API ----------------------------------------------------------------------------

    def _next(self, body: dict[str, Any]) -> dict[str, Any]:
        annotator = check_annotator(body.get("annotator"))
        return self._reply(annotator, self.server.store.assign(annotator))

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        annotator = check_annotator(body.get("annotator"))
        new, following = self.server.store.answer_and_assign(
            annotator, _pair(body), _text(body, "choice"), _text(body, "key"), _seconds(body)
        )
        return {"stored": True, "repeated": not new, **self._reply(annotator, following)}

    def _undo(self, body: dict[str, Any]) -> dict[str, Any]:
        annotator = check_annotator(body.get("annotator"))
        store = self.server.store
        new = store.undo(annotator, _text(body, "key"))
        return {
            "undone": True,
            "repeated": not new,
            **self._reply(annotator, store.assign(annotator)),
        }

    def _reply(self, annotator: str, following: Assignment | None) -> dict[str, Any]:
        return {
            "comparison": None if following is None else asdict(following),
            "standing": asdict(self.server.store.standing(annotator)),
            "annotator": annotator,
            "question": self.server.question,
        }

    # -- sending ----------------------------------------------------------------------------

    def _send(
        self, status: HTTPStatus, body: bytes, kind: str, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_error(
        self, status: HTTPStatus, message: str, headers: dict[str, str] | None = None
    ) -> None:
        body = json.dumps({"error": message}).encode("ascii")
        self._send(status, body, "application/json", headers)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Malformed requests and unknown methods, in our own form."""
        self._send_error(HTTPStatus(code), message or HTTPStatus(code).phrase)


def _pair(body: dict[str, Any]) -> int:
    pair = body.get("pair")
    if not isinstance(pair, int) or isinstance(pair, bool) or abs(pair) > 2**62:
        raise Refused(HTTPStatus.BAD_REQUEST, '"pair" must be a whole number')
    return pair


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.isascii():
        raise Refused(HTTPStatus.BAD_REQUEST, f'"{name}" must be plain text')
    return value


def _seconds(body: dict[str, Any]) -> float | None:
    value = body.get("seconds")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(HTTPStatus.BAD_REQUEST, '"seconds" must be a number')
    if not (math.isfinite(value) and value >= 0.0):
        raise Refused(HTTPStatus.BAD_REQUEST, '"seconds" must be a number >= 0')
    return float(value)
