"""The server as a process: stopped, killed, started again, with people at work."""

import signal
import time

import pytest

from equilign.labelling import LabelStore

from .conftest import questions
from .people import Person, call, check_nothing_lost_or_doubled, work_together


@pytest.mark.timeout(300)
def test_killed_while_people_work(process, quick_folder, pairs_file):
    """Kill -9 twice in the middle: what was acknowledged is there, and nothing counts twice."""
    count, path = 300, quick_folder / "labels.sqlite"
    server = process(path, pairs_file(count))
    server.start()
    people = [Person(f"person {i}", server.port, linger=3.0) for i in range(6)]

    def accidents():
        for share in (0.2, 0.6):
            while sum(len(p.acknowledged) for p in people) < share * count:
                time.sleep(0.005)
            server.kill()
            time.sleep(0.1)
            server.start()

    work_together(people, accidents)
    code, told = server.stop()
    assert code == 0
    assert f"stopped; {count} of {count} answers" in told
    assert "Traceback" not in told
    store = LabelStore(path)
    check_nothing_lost_or_doubled(store, people)
    assert [t.votes for t in store.tallies(questions(count))] == [1] * count
    assert [t.share for t in store.tallies(questions(count))] == [0.0] * count
    assert sum(p.sent_twice for p in people) > 0, "nobody noticed the accidents"
    store.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_people_and_ten_thousand_comparisons(process, quick_folder, pairs_file):
    count, path = 10_000, quick_folder / "labels.sqlite"
    server = process(path, pairs_file(count))
    server.start()
    people = [Person(f"person {i}", server.port, linger=5.0) for i in range(50)]
    start = time.monotonic()

    def accident():
        while sum(len(p.acknowledged) for p in people) < count // 2:
            time.sleep(0.05)
        server.kill()
        server.start()

    work_together(people, accident)
    print(f"{count} answers of 50 people in {time.monotonic() - start:.0f} s")
    assert server.stop()[0] == 0
    store = LabelStore(path)
    check_nothing_lost_or_doubled(store, people)
    assert [t.votes for t in store.tallies(questions(count))] == [1] * count
    store.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_when_told(process, quick_folder, pairs_file, how):
    server = process(quick_folder / "labels.sqlite", pairs_file(2))
    started = server.start()
    assert started["url"] == f"http://127.0.0.1:{server.port}/"
    assert (started["added"], started["answered"], started["wanted"]) == (2, 0, 2)
    assert call(server.port, "/", method="GET")[0] == 200
    code, told = server.stop(how)
    assert code == 0
    assert "Traceback" not in told


def test_it_stops_when_everything_is_answered(process, quick_folder, pairs_file):
    options = ("--until-done", "--overlap", "2", "--question", "Which is shorter?")
    server = process(quick_folder / "labels.sqlite", pairs_file(3), options=options)
    assert server.start()["wanted"] == 6
    asked = call(server.port, "/api/next", {"annotator": "ann"})[1]["question"]
    assert asked == "Which is shorter?"
    work_together([Person(name, server.port, most=3) for name in ("ann", "bob")])
    assert server.process.wait(timeout=30) == 0
    server.stop()


def test_the_token_is_printed_once_where_others_can_reach_it(process, quick_folder, pairs_file):
    options = ("--host", "0.0.0.0")
    server = process(quick_folder / "l.sqlite", pairs_file(2), options=options)
    url = server.start()["url"]
    token = url.partition("?token=")[2]
    assert len(token) >= 32
    assert call(server.port, "/api/next", {"annotator": "ann"})[0] == 401
    headers = {"Authorization": f"Bearer {token}"}
    assert call(server.port, "/api/next", {"annotator": "ann"}, headers=headers)[0] == 200
    store = LabelStore(server.database)
    assert token not in (store.note("url") or token), "it stays out of the file"
    store.close()


def test_the_address_with_the_token_works_after_a_restart(process, quick_folder, pairs_file):
    options = ("--require-token",)
    server = process(quick_folder / "l.sqlite", pairs_file(2), options=options)
    url = server.start()["url"]
    kept = quick_folder / "l.sqlite.token"
    assert kept.stat().st_mode & 0o777 == 0o600
    server.kill()
    assert server.start()["url"] == url
    server.kill()
    server.options = ("--new-token",)
    other = server.start()["url"]
    assert "?token=" in other
    assert other != url
    server.stop()
