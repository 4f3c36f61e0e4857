"""The page's server: the standard library's, with bounded threads and little patience.

One request per connection, so that an idle browser holds no thread. Every answer is on the disk
before it is acknowledged.
"""

import contextlib
import ipaddress
import socket
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from http.server import HTTPServer
from typing import Any

from equilign.errors import ConfigError
from equilign.labelling.access import Access, is_loopback
from equilign.labelling.handler import Handler
from equilign.labelling.store import LabelStore


class LabelServer(HTTPServer):
    """Serves the page and takes the answers.

    Args:
        store: comparisons and answers.
        host: address or name to listen on.
        port: 0 takes a free one.
        token: what requests must carry; required where ``host`` is not loopback.
        question: what people are asked.
        names: further host names under which people reach it (behind a proxy, say).
        threads: requests worked on at once; more wait.
        patience: seconds that a client may take to send its request.

    Raises:
        ConfigError: the address cannot be used, or others could reach it without a token.
    """

    request_queue_size = 256
    allow_reuse_address = True

    def __init__(  # noqa: PLR0913 - each has a default
        self,
        store: LabelStore,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        token: str | None = None,
        question: str = "Which answer is better?",
        names: Iterable[str] = (),
        threads: int = 32,
        patience: float = 10.0,
    ) -> None:
        if token is None and not is_loopback(host):
            raise ConfigError(f"others can reach {host}, so a token is needed")
        if threads < 1:
            raise ConfigError(f"threads must be >= 1; got {threads}")
        self.store = store
        self.access = Access.of(host, token, names)
        self.question = question
        self.patience = patience
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="label")
        self._free = threading.Semaphore(threads)
        self._busy: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        self._stopping = False
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(host).version == 6:
                self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            self._pool.shutdown(wait=False)
            raise ConfigError(
                f"cannot listen on {host}, port {port}: {error}. Choose another --port "
                "(0 takes a free one)."
            ) from error
        self.host, self.port = host, int(self.server_address[1])

    def server_bind(self) -> None:
        """Bind without asking a name server who we are, which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    @property
    def url(self) -> str:
        """Where the page is, with the token if there is one."""
        host = self.host
        if host in ("0.0.0.0", "::", ""):
            host = socket.gethostname()
        elif ":" in host:
            host = f"[{host}]"
        query = "" if self.access.token is None else f"?token={self.access.token}"
        return f"http://{host}:{self.port}/{query}"

    # -- threads ----------------------------------------------------------------------------

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Hand a connection to a free thread; wait for one where all are busy."""
        while not self._free.acquire(timeout=0.5):
            self.service_actions()
            if self._stopping:
                self.shutdown_request(request)
                return
        with self._lock:
            self._busy[request] = time.monotonic()
        self._pool.submit(self._work, request, client_address)

    def _work(self, request: socket.socket, client_address: Any) -> None:  # noqa: ANN401
        try:
            request.settimeout(self.patience)
            self.finish_request(request, client_address)
        except (OSError, ValueError):
            pass  # the client went away, or was sent away
        except Exception:
            self.handle_error(request, client_address)
        finally:
            with self._lock:
                self._busy.pop(request, None)
            self.shutdown_request(request)
            self._free.release()

    def service_actions(self) -> None:
        """Send away clients that feed their request in drop by drop."""
        late = time.monotonic() - 2.0 * self.patience
        with self._lock:
            slow = [s for s, since in self._busy.items() if since < late]
        for connection in slow:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """A bug of ours: its last line on stderr; the page has an error and keeps its answer."""
        sys.stderr.write(f"equilign: label server: {sys.exc_info()[1]!r}\n")

    def server_close(self) -> None:
        """Stop listening and let running requests end."""
        self._stopping = True
        super().server_close()
        with self._lock:
            idle = list(self._busy)
        for connection in idle:  # reading ends at once, answering may end
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
        self._pool.shutdown()
        self.store.close()
