"""A label server in a process of its own, and people who answer it over HTTP."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def call(port, path, body=None, method="POST", headers=None, raw=None, host="127.0.0.1"):
    """Status and parsed body (bytes if it is no JSON) of one request."""
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if data is not None else {}
        connection.request(method, path, data, {**sent, **(headers or {})})
        response = connection.getresponse()
        content = response.read()
        kind = response.headers.get_content_type()
        return response.status, json.loads(
            content
        ) if content and kind == "application/json" else content
    finally:
        connection.close()


class ServerProcess:
    """`equilign label serve` as a user starts it."""

    def __init__(self, database, *files, port=None, options=()):
        self.database, self.files, self.options = database, files, options
        self.port = free_port() if port is None else port
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "equilign", "label", "serve", *map(str, self.files)),
                *("--database", str(self.database), "--port", str(self.port)),
                *("--no-browser", "--json", *self.options),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        self.started = json.loads(line)
        return self.started

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._close()

    def stop(self, how=signal.SIGINT):
        self.process.send_signal(how)
        code = self.process.wait(timeout=30)
        told = self.process.stderr.read()
        self._close()
        return code, told

    def _close(self):
        self.process.stdout.close()
        self.process.stderr.close()


def by_length(shown):
    """Prefers the longer answer; ties where they are as long."""
    left, right = len(shown["left"]), len(shown["right"])
    return "left" if left > right else "right" if left < right else "tie"


@dataclass
class Person:
    """Answers until there is nothing left, and insists like the page where nobody replies."""

    name: str
    port: int
    choose: object = by_length
    most: int = 10**9
    patience: float = 60.0
    linger: float = 0.0
    acknowledged: dict = field(default_factory=dict)
    errors: list = field(default_factory=list)
    sent_twice: int = 0

    def insist(self, path, body):
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return call(self.port, path, {"annotator": self.name, **body})
            except (OSError, http.client.HTTPException, ValueError):
                self.sent_twice += path == "/api/answer"
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def work(self):
        try:
            self._work()
        except Exception as error:
            self.errors.append(error)

    def _work(self):
        status, found = self.insist("/api/next", {})
        assert status == 200, found
        quiet_until = time.monotonic() + self.linger
        while len(self.acknowledged) < self.most:
            shown = found["comparison"]
            if shown is None:
                if time.monotonic() > quiet_until:
                    return
                time.sleep(0.02)
                status, found = self.insist("/api/next", {})
                continue
            quiet_until = time.monotonic() + self.linger
            choice, key = self.choose(shown), os.urandom(8).hex()
            body = {"pair": shown["pair"], "choice": choice, "key": key, "seconds": 1.5}
            status, found = self.insist("/api/answer", body)
            assert status == 200, found
            self.acknowledged[key] = (shown["pair"], choice, shown["left"], shown["right"])


def work_together(people, meanwhile=lambda: None):
    threads = [threading.Thread(target=p.work, daemon=True) for p in people]
    for thread in threads:
        thread.start()
    meanwhile()
    for thread in threads:
        thread.join()
    for person in people:
        assert person.errors == []


def check_nothing_lost_or_doubled(store, people):
    """What was acknowledged is stored, once, as it was meant; and nothing else is."""
    stored = store.answers()
    assert len({a.key for a in stored}) == len(stored)
    assert len({(a.pair, a.annotator) for a in stored}) == len(stored)
    by_key = {a.key: a for a in stored}
    acknowledged = {k: (p.name, *v) for p in people for k, v in p.acknowledged.items()}
    assert by_key.keys() == acknowledged.keys()
    with store.file.reading() as connection:
        texts = dict(connection.execute("SELECT hash, text FROM texts").fetchall())
    for key, (name, pair, choice, left, _) in acknowledged.items():
        answer = by_key[key]
        assert (answer.annotator, answer.pair) == (name, pair)
        assert answer.a_left == (texts[answer.a] == left)
        meant = {"tie": 0.5, "skip": None, "left": float(answer.a_left)}
        assert answer.value == meant.get(choice, float(not answer.a_left))
