"""The page's server: what it serves, and everything that it refuses."""

import http.client
import json
import socket
import threading
import time

import pytest

from equilign.errors import ConfigError
from equilign.labelling.access import Access, is_loopback, split_host
from equilign.labelling.server import LabelServer

from .conftest import questions
from .people import Person, call, check_nothing_lost_or_doubled, work_together


@pytest.fixture
def server(store, serve):
    store.add(questions(4))
    return serve(store)


@pytest.fixture
def guarded(store, serve):
    store.add(questions(4))
    return serve(store, token="the-token")


def ask(server, path="/api/next", body=None, **options):
    return call(server.port, path, {"annotator": "ann"} if body is None else body, **options)


def raw(port, data, wait=5.0):
    """Bytes sent as they are, and all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as connection:
        connection.sendall(data)
        found = b""
        while part := connection.recv(65536):
            found += part
        return found


def test_a_person_answers(server):
    status, found = ask(server)
    shown = found["comparison"]
    assert status == 200
    assert set(shown) == {"pair", "prompt", "left", "right"}
    assert found["standing"] == {"answered": 0, "wanted": 4, "mine": 0, "last": None}
    body = {"annotator": "ann", "pair": shown["pair"], "choice": "left", "key": "k1", "seconds": 2}
    status, found = ask(server, "/api/answer", body)
    assert (status, found["stored"], found["repeated"]) == (200, True, False)
    assert found["comparison"]["pair"] != shown["pair"]
    assert found["standing"] == {"answered": 1, "wanted": 4, "mine": 1, "last": "k1"}
    status, found = ask(server, "/api/answer", body)
    assert (status, found["repeated"], found["standing"]["answered"]) == (200, True, 1)
    status, found = ask(server, "/api/undo", {"annotator": "ann", "key": "k1"})
    assert (status, found["undone"], found["comparison"]) == (200, True, shown)
    status, found = ask(server, "/api/undo", {"annotator": "ann", "key": "k1"})
    assert (status, found["repeated"]) == (200, True)
    assert [a.seconds for a in server.store.answers(undone=True)] == [2.0]


def test_the_page_allows_nothing_from_elsewhere(server):
    for path, kind in (
        ("/", "text/html"),
        ("/page.js", "text/javascript"),
        ("/page.css", "text/css"),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        assert response.status == 200
        assert response.headers.get_content_type() == kind
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert "*" not in policy
        assert "frame-ancestors 'none'" in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in response.headers
        for word in ("http://", "https://", "innerHTML", "eval(", "document.write", "style="):
            assert word not in text, (path, word)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "", "a b", "10.0.0.7",
             "user@127.0.0.1", "127.0.0.1/x", "[::1", "127.0.0.1:x"]
)  # fmt: skip
def test_another_host_is_refused(server, host):
    status, found = ask(server, headers={"Host": host.format(port=server.port)})
    assert status == 403, found
    assert call(server.port, "/", method="GET", headers={"Host": host})[0] == 403
    assert server.store.answers() == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST", "[::1]:{port}"]
)
def test_our_own_names_are_served(server, host):
    assert ask(server, headers={"Host": host.format(port=server.port)})[0] == 200


def test_two_hosts_or_none_are_refused(server):
    for hosts in (b"", b"Host: 127.0.0.1\r\nHost: 127.0.0.1\r\n"):
        found = raw(server.port, b"GET / HTTP/1.1\r\n" + hosts + b"\r\n")
        assert b" 403 " in found.splitlines()[0]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost:{port}"},
        {"Origin": ""},
        {"Origin": "file://127.0.0.1:{port}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_requests_of_other_pages_are_refused(server, headers):
    headers = {k: v.format(port=server.port) for k, v in headers.items()}
    shown = server.store.assign("ann")
    body = {"annotator": "ann", "pair": shown.pair, "choice": "left", "key": "k"}
    assert ask(server, "/api/answer", body, headers=headers)[0] == 403
    assert server.store.answers() == []


def test_our_own_page_is_served(server):
    headers = {"Origin": f"http://127.0.0.1:{server.port}", "Sec-Fetch-Site": "same-origin"}
    assert ask(server, headers=headers)[0] == 200


def test_no_or_a_wrong_token_is_refused(guarded):
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic the-token"},
        {"Authorization": "Bearer the-token-and-more"},
        {"Authorization": "Bearer "},
        {"Cookie": "equilign-label=wrong"},
        {"Cookie": "other=the-token"},
        {"Cookie": "equilign-label"},
        {"Authorization": "Bearer \xe9"},
    ):
        assert ask(guarded, headers=headers)[0] == 401, headers
        assert call(guarded.port, "/", method="GET", headers=headers)[0] == 401
    assert call(guarded.port, "/?token=wrong", method="GET")[0] == 401
    assert ask(guarded, "/api/next?token=the-token")[0] == 401, "only pages take it from the URL"


def test_the_token_in_the_address_becomes_a_cookie(guarded):
    connection = http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=10)
    connection.request("GET", guarded.url.partition(str(guarded.port))[2])
    response = connection.getresponse()
    response.read()
    connection.close()
    assert (response.status, response.headers["Location"]) == (303, "/")
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    value = cookie.partition(";")[0]
    assert call(guarded.port, "/", method="GET", headers={"Cookie": value})[0] == 200
    assert ask(guarded, headers={"Cookie": f"x=1; {value}"})[0] == 200
    assert ask(guarded, headers={"Authorization": "Bearer the-token"})[0] == 200


def test_others_can_reach_it_only_with_a_token(store):
    with pytest.raises(ConfigError, match="token"):
        LabelServer(store, "0.0.0.0")
    assert is_loopback("127.0.0.1")
    assert is_loopback("127.8.8.8")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("192.168.1.4")
    assert not is_loopback("localhost.evil.example")


def test_names_of_a_server_that_others_reach():
    access = Access.of("0.0.0.0", "t", ["label.example"])
    assert access.host_is_ours("192.168.1.4:80"), "no name server can point at an address"
    assert access.host_is_ours("LABEL.example:1")
    assert access.host_is_ours(f"{socket.gethostname()}:1")
    assert not access.host_is_ours("evil.example")
    assert split_host("[::1]:5") == ("::1", 5)
    assert split_host("a@b") is None


def test_a_server_on_all_addresses(store, serve):
    store.add(questions(1))
    server = serve(store, host="0.0.0.0", token="t")
    assert ask(server)[0] == 401
    assert ask(server, headers={"Authorization": "Bearer t"})[0] == 200
    headers = {"Authorization": "Bearer t", "Host": "evil.example"}
    assert ask(server, headers=headers)[0] == 403


def test_a_server_on_the_other_loopback(store, serve):
    store.add(questions(1))
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = serve(store, host="::1")
    assert server.url == f"http://[::1]:{server.port}/"
    assert ask(server, host="::1")[0] == 200
    assert ask(server, host="::1", headers={"Host": "evil.example"})[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "/../labels.sqlite",
        "/..%2f..%2fetc/passwd",
        "/page.js/../../store.py",
        "/%2e%2e/store.py",
        "//etc/passwd",
        "/store.py",
        "/page.html",
        "/labels.sqlite",
        "/static/..\\..\\store.py",
        "/page.js%00.html",
        "/.",
    ],
)
def test_no_other_file_is_served(server, path):
    status, found = call(server.port, path, method="GET")
    assert status == 404
    assert found == {"error": "there is no such page"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/next", 405),
        ("GET", "/api/answer", 405),
        ("POST", "/", 405),
        ("PUT", "/api/answer", 405),
        ("DELETE", "/api/answer", 405),
        ("PATCH", "/", 405),
        ("OPTIONS", "/api/answer", 405),
        ("POST", "/api/other", 404),
        ("BREW", "/", 501),
    ],
)
def test_wrong_methods_and_calls(server, method, path, status):
    assert ask(server, path, method=method)[0] == status


def test_head_has_no_body(server):
    status, found = call(server.port, "/", method="HEAD")
    assert (status, found) == (405, b"")


@pytest.mark.parametrize("size", [16_385, 900_000])
def test_an_oversized_body_is_refused(server, size):
    status, found = call(server.port, "/api/next", raw=b"x" * size)
    assert status == 413, found


def test_a_body_that_claims_to_be_huge_is_not_waited_for(store, serve):
    server = serve(store, patience=0.5)
    for claim in (b"99999999999", b"9" * 400, b"20000000"):
        start = time.monotonic()
        request = (
            b"POST /api/next HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        )
        found = raw(server.port, request + b"Content-Length: " + claim + b"\r\n\r\n{}", wait=20)
        assert time.monotonic() - start < 15
        assert found == b"" or b" 413 " in found.splitlines()[0]
    assert ask(server)[0] == 200, "and others are served"


@pytest.mark.parametrize("length", ["-1", "ten", "1e3", "", "+5", "\u0665"])
def test_a_length_that_is_none(server, length):
    head = f"POST /api/next HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
    head += "Content-Type: application/json\r\n\r\n"
    assert b" 411 " in raw(server.port, head.encode() + b"{}").splitlines()[0]


def test_no_length_and_chunks(server):
    head = b"POST /api/next HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert b" 411 " in raw(server.port, head + b"\r\n").splitlines()[0]
    chunked = b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    assert b" 411 " in raw(server.port, head + chunked).splitlines()[0]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"not json",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe",
        b"[" * 9000,
        b"{'a': 1}",
        b"7",
    ],
)
def test_malformed_json_is_refused(server, body):
    status, found = call(server.port, "/api/next", raw=body)
    assert status == 400
    assert "JSON" in found["error"]


def test_other_content_types_are_refused(server):
    # A form of a foreign page can be sent as text without asking; JSON cannot.
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        status, _ = ask(server, headers={"Content-Type": kind})
        assert status == 415


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"annotator": ""}, 400),
        ({"annotator": None}, 400),
        ({"annotator": "x" * 65}, 400),
        ({"annotator": ["ann"]}, 400),
        ({"annotator": "bob"}, 409),
        ({"pair": 999}, 404),
        ({"pair": "1"}, 400),
        ({"pair": True}, 400),
        ({"pair": 1.0}, 400),
        ({"pair": 10**30}, 400),
        ({"pair": -1}, 404),
        ({"choice": "both"}, 400),
        ({"choice": 1}, 400),
        ({"key": ""}, 400),
        ({"key": 5}, 400),
        ({"key": "k" * 200}, 400),
        ({"key": "\ud800"}, 400),
        ({"seconds": -1}, 400),
        ({"seconds": "2"}, 400),
        ({"seconds": float("nan")}, 400),
        ({"seconds": 1e400}, 400),
        ({"seconds": True}, 400),
    ],
)
def test_answers_that_are_none(server, change, status):
    shown = ask(server)[1]["comparison"]
    body = {"annotator": "ann", "pair": shown["pair"], "choice": "left", "key": "k", "seconds": 1}
    found = ask(server, "/api/answer", {**body, **change})
    assert found[0] == status, found
    assert set(found[1]) == {"error"}
    assert server.store.answers() == []
    assert ask(server, "/api/answer", body)[0] == 200


def test_conflicts_of_undo(server):
    assert ask(server, "/api/undo", {"annotator": "ann", "key": "none"})[0] == 404
    shown = ask(server)[1]["comparison"]
    body = {"annotator": "ann", "pair": shown["pair"], "choice": "tie", "key": "k"}
    assert ask(server, "/api/answer", body)[0] == 200
    assert ask(server, "/api/undo", {"annotator": "bob", "key": "k"})[0] == 409
    second = {"annotator": "ann", "pair": shown["pair"], "choice": "left", "key": "k2"}
    assert ask(server, "/api/answer", second)[0] == 409
    third = {"annotator": "ann", "pair": shown["pair"], "choice": "left", "key": "k"}
    assert ask(server, "/api/answer", third)[0] == 409
    assert [a.value for a in server.store.answers()] == [0.5]


def test_threads_are_bounded_and_idle_clients_are_sent_away(store, serve):
    store.add(questions(2))
    server = serve(store, threads=3, patience=1.0)
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(12)]
    try:
        status, _ = ask(server)
        assert status == 200, "it comes to everybody's turn"
        names = [t.name for t in threading.enumerate() if t.name.startswith("label")]
        assert len(names) <= 3
    finally:
        for connection in idle:
            connection.close()


def test_clients_that_send_drop_by_drop_are_sent_away(store, serve):
    server = serve(store, threads=1, patience=0.4)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
        start = time.monotonic()
        ended = False
        while not ended and time.monotonic() - start < 10:
            try:
                slow.sendall(b"G")
                slow.settimeout(0.1)
                ended = slow.recv(1) == b""
            except TimeoutError:
                pass
            except OSError:
                ended = True
        assert ended
    assert ask(server)[0] == 200


def test_a_port_that_is_taken(store, server):
    with pytest.raises(ConfigError, match="--port"):
        LabelServer(store, port=server.port)


def test_what_breaks_does_not_break_the_server(server, monkeypatch, capsys):
    def broken(*args):
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(server.store, "assign", broken)
        with pytest.raises((OSError, http.client.HTTPException)):
            ask(server)
    assert ask(server)[0] == 200
    assert "a bug" in capsys.readouterr().err


def test_twelve_people_at_once(store, serve):
    store.add(questions(120), wanted=2)
    server = serve(store)
    people = [Person(f"person {i}", server.port, linger=2.0) for i in range(12)]
    work_together(people)
    check_nothing_lost_or_doubled(store, people)
    with store.file.reading() as connection:
        votes = connection.execute("SELECT votes FROM pairs").fetchall()
    assert votes == [(2,)] * 120
    shares = {t.share for t in store.tallies(questions(120))}
    assert shares == {0.0}, "all prefer the longer answer, wherever it stands"


def test_json_is_plain(server):
    server.store.add([("p", "\u2028 </script>", "é 😀")])
    found = ask(server)
    assert json.loads(json.dumps(found[1])) == found[1]
