"""A completion server on this machine whose replies a test decides."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
DROP = object()
"""A reply: the connection is closed without a word."""


class CompletionServer:
    """Use as `with CompletionServer(answer) as server`.

    Args:
        answer: (path, body, number of the request) -> a JSON object, (status, text), or `DROP`.
    """

    def __init__(self, answer: Callable[[str, Body, int], Any]) -> None:
        self.answer = answer
        self.requests: list[tuple[str, Body]] = []
        self.lock = threading.Lock()
        self.now = self.most_at_once = 0
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def bodies(self) -> list[Body]:
        return [body for _, body in self.requests]

    def __enter__(self) -> "CompletionServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: CompletionServer

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._reply({})

    def do_POST(self) -> None:
        self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}"))

    def _reply(self, body: Body) -> None:
        with self.owner.lock:
            number = len(self.owner.requests)
            self.owner.requests.append((self.path, body))
            self.owner.now += 1
            self.owner.most_at_once = max(self.owner.most_at_once, self.owner.now)
        try:
            answer = self.owner.answer(self.path, body, number)
        finally:
            with self.owner.lock:
                self.owner.now -= 1
        if answer is DROP:
            self.close_connection = True
            self.connection.close()
            return
        status, text = answer if isinstance(answer, tuple) else (200, json.dumps(answer))
        raw = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
