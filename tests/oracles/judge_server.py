"""A chat server on this machine that judges by a rule, misbehaves on demand, and counts."""

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

Pair = tuple[str, str, str]
VALUE = {"A": 1.0, "tie": 0.5, "B": 0.0}

_BLOCK = re.compile(
    r"^----- BEGIN (PROMPT|ANSWER A|ANSWER B) ([0-9a-f]{16}) -----\n"
    r"(.*?)\n----- END \1 \2 -----$",
    re.DOTALL | re.MULTILINE,
)


def shown_pair(body: Mapping[str, Any]) -> Pair:
    """Prompt and answers of a request, as an attentive reader finds them."""
    text = next(m["content"] for m in body["messages"] if m["role"] == "user")
    blocks = {name: content for name, _, content in _BLOCK.findall(text)}
    return blocks["PROMPT"], blocks["ANSWER A"], blocks["ANSWER B"]


def longer_wins(pair: Pair) -> str:
    _, a, b = pair
    return "tie" if len(a) == len(b) else "AB"[len(b) > len(a)]


def pairs(n: int) -> tuple[list[str], list[str], list[str]]:
    """``n`` different questions."""
    return (
        [f"prompt {i}" for i in range(n)],
        [f"first {'x' * (i % 5)} {i}" for i in range(n)],
        [f"second {'y' * (i % 3)} {i}" for i in range(n)],
    )


def expected(prompts: list[str], a: list[str], b: list[str]) -> np.ndarray:
    """Their verdicts."""
    return np.array([VALUE[longer_wins(p)] for p in zip(prompts, a, b, strict=True)])


@dataclass
class Status:
    """An HTTP error."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)
    body: str = '{"error": {"message": "not now", "code": null}}'


@dataclass
class Raw:
    """A body sent as it is, with a true or a false length."""

    body: bytes
    length: int | None = None
    pause: float = 0.0
    """Seconds between bytes."""


@dataclass
class Reply:
    """A well-formed chat reply."""

    text: str | None
    finish: str = "stop"
    extra: dict[str, Any] = field(default_factory=dict)
    logprobs: Any = None
    usage: Any = "count"


@dataclass
class Hang:
    """No answer until the server is released."""


@dataclass
class Drop:
    """The connection is closed without a word."""


Action = Status | Raw | Reply | Hang | Drop


class JudgeServer:
    """Use as `with JudgeServer(...) as server`.

    Args:
        answer: what to do for a pair and the number of the attempt at it (from 0).
    """

    def __init__(self, answer: Callable[[Pair, int], Action] | None = None) -> None:
        self.answer = answer or (lambda pair, attempt: Reply(longer_wins(pair)))
        self.attempts: Counter[Pair] = Counter()
        self.answered: Counter[Pair] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = self._now = 0
        self.released = threading.Event()
        self.lock = threading.Lock()
        self._http = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"judge": self})
        )
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def requests(self) -> int:
        return self.attempts.total()

    def __enter__(self) -> "JudgeServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @contextmanager
    def visit(self, body: dict[str, Any], headers: dict[str, str]):
        pair = shown_pair(body)
        with self.lock:
            attempt = self.attempts[pair]
            self.attempts[pair] += 1
            self.bodies.append(body)
            self.headers.append(headers)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            yield pair, attempt
        finally:
            with self.lock:
                self._now -= 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    judge: "JudgeServer"

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(length))
        with self.judge.visit(body, dict(self.headers)) as (pair, attempt):
            action = self.judge.answer(pair, attempt)
            if isinstance(action, Hang):
                self.judge.released.wait(30)
                action = Reply(longer_wins(pair))
            try:
                self._act(action)
            except OSError:
                self.close_connection = True
                return
            if isinstance(action, Reply):
                with self.judge.lock:
                    self.judge.answered[pair] += 1

    def _act(self, action: Action) -> None:
        if isinstance(action, Drop):
            self.close_connection = True
            self.connection.close()
        elif isinstance(action, Status):
            self._send(action.code, action.body.encode(), headers=action.headers)
        elif isinstance(action, Raw):
            close = {"Connection": "close"}
            self._send(200, action.body, action.length, action.pause, close)
        else:
            self._send(200, json.dumps(_chat(action)).encode())

    def _send(self, code, body, length=None, pause=0.0, headers=None) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        for piece in [body] if not pause else [body[i : i + 1] for i in range(len(body))]:
            self.wfile.write(piece)
            self.wfile.flush()
            if pause and self.judge.released.wait(pause):
                return


def _chat(reply: Reply) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply.text, **reply.extra}
    choice = {"index": 0, "message": message, "finish_reason": reply.finish}
    if reply.logprobs is not None:
        choice["logprobs"] = {"content": reply.logprobs}
    result: dict[str, Any] = {"object": "chat.completion", "choices": [choice]}
    if reply.usage == "count":
        result["usage"] = {"prompt_tokens": 100, "completion_tokens": 2, "total_tokens": 102}
    elif reply.usage is not None:
        result["usage"] = reply.usage
    return result
