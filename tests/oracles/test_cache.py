"""Verdicts on disk: asked once, by whomever, whatever is killed."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equilign.errors import BudgetError, ConfigError, DataError, DiskFullError, OracleError
from equilign.oracles import CallableOracle, ScoredOracle, compare_symmetric, score_groups
from equilign.oracles.cache import CachedOracle
from equilign.oracles.database import Database
from equilign.oracles.llm_judge import LLMJudge
from equilign.oracles.verdict_store import Question, VerdictStore, content_key
from equilign.text import text_hash
from tests.oracles.judge_server import (
    VALUE,
    Hang,
    JudgeServer,
    Reply,
    Status,
    expected,
    longer_wins,
    pairs,
)


@dataclass
class Counting:
    """Counts what it is asked; may fail on the way, or have no verdict."""

    asked: Counter = field(default_factory=Counter)
    fail_at: int | None = None
    no_verdict: tuple[str, ...] = ()
    abstains = True

    def compare(self, prompts, a, b):
        verdicts = []
        for pair in zip(prompts, a, b, strict=True):
            if self.asked.total() == self.fail_at:
                raise OracleError("broken")
            self.asked[pair] += 1
            verdicts.append(np.nan if pair[0] in self.no_verdict else VALUE[longer_wins(pair)])
        return np.array(verdicts)


@dataclass
class Streaming(Counting):
    """Gives each verdict out as soon as it has it."""

    def stream(self, prompts, a, b):
        for i, pair in enumerate(zip(prompts, a, b, strict=True)):
            yield [(i, float(self.compare(*([x] for x in pair))[0]))]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "verdicts.sqlite"


def rows(path, sql):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


# -- one process ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Counting, Streaming])
def test_a_rerun_asks_nothing(kind, path):
    n = 300  # more than one window of claims
    for number in range(2):
        oracle = kind()
        cached = CachedOracle(oracle, path, "judge")
        np.testing.assert_array_equal(cached.compare(*pairs(n)), expected(*pairs(n)))
        assert oracle.asked.total() == (n if number == 0 else 0)
        statistics = cached.statistics
        assert (statistics.asked, statistics.cached) == ((n, 0) if number == 0 else (0, n))
        assert statistics.stored == n
        cached.close()
    assert rows(path, "SELECT count(*) FROM claims") == [(0,)]


def test_known_verdicts_are_read_without_writing(path, monkeypatch):
    cached = CachedOracle(Counting(), path, "judge")
    cached.compare(*pairs(3))
    monkeypatch.setattr(cached.store.database, "transaction", None)
    np.testing.assert_array_equal(cached.compare(*pairs(3)), expected(*pairs(3)))
    monkeypatch.undo()
    cached.close()


def test_orders_prompts_and_judges_are_kept_apart(path):
    oracle = Counting()
    cached = CachedOracle(oracle, path, "judge")
    assert compare_symmetric(cached, ["p", "q"], ["one", "one"], ["three"] * 2).tolist() == [0, 0]
    assert cached.compare(["p"], ["three"], ["one"]).tolist() == [1.0]
    assert sorted(oracle.asked.values()) == [1] * 4
    other = Counting()
    with_other_key = CachedOracle(other, path, "judge, but colder")
    with_other_key.compare(["p"], ["one"], ["three"])
    assert other.asked.total() == 1
    cached.close()
    with_other_key.close()


def test_a_question_asked_twice_in_a_call_is_paid_once(path):
    oracle = Counting()
    cached = CachedOracle(oracle, path, "judge")
    assert cached.compare(["p"] * 3, ["aa"] * 3, ["b"] * 3).tolist() == [1.0] * 3
    assert oracle.asked.total() == 1
    assert (cached.statistics.asked, cached.statistics.cached) == (1, 2)
    assert cached.compare([], [], []).shape == (0,)
    cached.close()


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), min_size=2, unique=True))
def test_different_questions_have_different_keys(questions):
    assert len({content_key(*q) for q in questions}) == len(questions)


def test_keys_of_texts_that_only_look_alike():
    assert text_hash("\ud800") != text_hash("\\ud800")
    assert content_key("ab", "c", "d") != content_key("a", "bc", "d")
    assert content_key("p", "x", None) != content_key("p", "x", "")


@pytest.mark.parametrize("text", ["", "\0", "\ud800 half", "é\u202e", "'; DROP TABLE verdicts;--"])
def test_any_text_can_be_stored(text, path):
    for asked in (1, 0):
        oracle = Counting()
        cached = CachedOracle(oracle, path, "judge")
        assert cached.compare([text], [text + "longer"], [text]).tolist() == [1.0]
        assert oracle.asked.total() == asked
        cached.close()


def test_the_file_can_be_audited(path):
    cached = CachedOracle(Counting(), path, "judge")
    cached.compare(["Who?"], ["Me."], ["Somebody."])
    cached.close()
    found = rows(
        path,
        "SELECT v.judge, p.text, a.text, b.text, v.value FROM verdicts v JOIN texts p "
        "ON p.hash=v.prompt JOIN texts a ON a.hash=v.a JOIN texts b ON b.hash=v.b",
    )
    assert found == [("judge", "Who?", "Me.", "Somebody.", 0.0)]


def test_abstentions_are_counted_and_asked_again(path):
    for number in (1, 2):
        oracle = Counting(no_verdict=("prompt 1",))
        cached = CachedOracle(oracle, path, "judge")
        assert np.isnan(cached.compare(*pairs(3))).tolist() == [False, True, False]
        assert oracle.asked.total() == (3 if number == 1 else 1)
        assert cached.statistics.abstained == 1
        assert cached.statistics.abstained_ever == number
        assert cached.statistics.stored == 2
        cached.close()


def test_abstentions_can_be_stored(path):
    for asked in (3, 0):
        oracle = Counting(no_verdict=("prompt 1",))
        cached = CachedOracle(oracle, path, "judge", store_abstentions=True)
        assert np.isnan(cached.compare(*pairs(3))).tolist() == [False, True, False]
        assert oracle.asked.total() == asked
        cached.close()


def test_a_judge_that_does_not_abstain_may_not_start_to(path):
    cached = CachedOracle(CallableOracle(lambda p, a, b: float("nan")), path, "judge")
    assert cached.abstains is False
    with pytest.raises(OracleError, match="nan for pair 0"):
        cached.compare(["p"], ["a"], ["b"])
    assert cached.statistics.stored == 0
    cached.close()


def test_a_wrong_verdict_of_a_stream_is_not_stored(path):
    class Wrong(Streaming):
        def stream(self, prompts, a, b):
            yield [(0, 1.0)]
            yield [(1, 1.5)]

    cached = CachedOracle(Wrong(), path, "judge")
    with pytest.raises(OracleError, match=r"1\.5 .*prompt 1"):
        cached.compare(*pairs(2))
    assert rows(path, "SELECT value FROM verdicts") == [(1.0,)]
    cached.close()


def test_a_stream_that_ends_early_is_an_error(path):
    class Short(Streaming):
        def stream(self, prompts, a, b):
            yield [(0, 1.0)]

    cached = CachedOracle(Short(), path, "judge")
    with pytest.raises(OracleError, match="without 1 of 2 verdicts"):
        cached.compare(*pairs(2))
    cached.close()


@pytest.mark.parametrize(("kind", "kept"), [(Streaming, 30), (Counting, 24)])
def test_what_was_paid_before_a_failure_is_kept(kind, kept, path):
    oracle = kind(fail_at=30)
    cached = CachedOracle(oracle, path, "judge", batch_size=8)
    with pytest.raises(OracleError, match="broken"):
        cached.compare(*pairs(50))
    assert cached.statistics.stored == kept
    assert rows(path, "SELECT count(*) FROM claims") == [(0,)]
    oracle.fail_at = None
    np.testing.assert_array_equal(cached.compare(*pairs(50)), expected(*pairs(50)))
    assert oracle.asked.total() == 50 + (30 - kept)
    cached.close()


def test_scores_are_cached_and_only_there_if_the_judge_has_them(path):
    class Scored(Counting):
        def score(self, prompts, answers):
            self.asked.update(zip(prompts, answers, strict=True))
            return np.array([float(len(a)) for a in answers])

    oracle = Scored()
    cached = CachedOracle(oracle, path, "judge")
    assert isinstance(cached, ScoredOracle)
    for _ in range(2):
        assert cached.score(["p", "q", "p"], ["aa", "aa", "aa"]).tolist() == [2.0] * 3
    assert oracle.asked.total() == 2
    cached.compare(["p"], ["aa"], [""])  # no mix-up of a score with a comparison to nothing
    assert oracle.asked.total() == 3
    plain = CachedOracle(Counting(), path, "judge 2")
    assert not isinstance(plain, ScoredOracle)
    with pytest.raises(AttributeError, match="no attribute 'score'"):
        _ = plain.score
    cached.close()
    plain.close()


def test_groups_are_played_through_the_cache(path):
    oracle = Counting()
    cached = CachedOracle(oracle, path, "judge")
    groups = [["a", "bb", "ccc", "bb"]]
    first = score_groups(cached, ["p"], groups)
    again = score_groups(cached, ["p"], groups)
    np.testing.assert_array_equal(first, again)
    assert oracle.asked.total() == 6
    cached.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"key": ""}, "needs a key"), ({"key": "k", "batch_size": 0}, "batch_size must be >= 1")],
)
def test_options_that_cannot_be(options, message, path):
    with pytest.raises(ConfigError, match=message):
        CachedOracle(Counting(), path, **options)


def test_the_judges_own_identity_is_its_key(path):
    def cached(**options):
        judge = LLMJudge("m", "http://localhost:1/v1", api_key_env=None, **options)
        return CachedOracle(judge, path, "spec with all options")

    a, b, c = cached(max_requests=1), cached(max_requests=2), cached(temperature=1.0)
    assert a.key == b.key != c.key
    for oracle in (a, b, c):
        oracle.close()


# -- files that are no caches -----------------------------------------------------------------


def test_a_foreign_database(path):
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"verdicts\.sqlite is a database of another program"):
        CachedOracle(Counting(), path, "judge")
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"not a database, but long enough to be one" * 50, b"SQLite"])
def test_a_file_that_is_no_database(content, path):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot use .*verdicts\.sqlite.*name another file"):
        CachedOracle(Counting(), path, "judge")
    assert path.read_bytes() == content


def test_a_newer_file(path):
    CachedOracle(Counting(), path, "judge").close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(DataError, match=r"newer version of equilign.*upgrade"):
        CachedOracle(Counting(), path, "judge")


def test_a_damaged_file(path):
    cached = CachedOracle(Counting(), path, "judge")
    cached.compare(*pairs(200))
    cached.close()
    raw = bytearray(path.read_bytes())
    raw[4096:] = b"\xa5" * (len(raw) - 4096)
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"cannot use .*verdicts\.sqlite.*\.recover"):
        CachedOracle(Counting(), path, "judge").compare(*pairs(200))


def test_a_folder_and_a_place_that_is_none(tmp_path):
    with pytest.raises(DataError, match="cannot use"):
        CachedOracle(Counting(), tmp_path, "judge")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="folder that you may write to"):
        CachedOracle(Counting(), tmp_path / "file" / "v.sqlite", "judge")


def test_a_full_disk_loses_nothing_of_before(path):
    cached = CachedOracle(Streaming(), path, "judge")
    cached.compare(*pairs(20))
    connection = cached.store.database._connection()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    prompts, a, b = (["long " * 500 + t for t in column] for column in pairs(300))
    with pytest.raises(DiskFullError, match="--resume"):
        cached.compare(prompts, a, b)
    cached.close()
    again = CachedOracle(Counting(), path, "judge")
    again.compare(*pairs(20))
    assert again.oracle.asked.total() == 0
    again.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_process_does_not_share_the_connection(path):
    cached = CachedOracle(Counting(), path, "judge")
    cached.compare(*pairs(5))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            cached.compare(*pairs(8))
            cached.close()
            code = 0 if cached.oracle.asked.total() == 8 else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    cached.compare(*pairs(8))
    assert cached.oracle.asked.total() == 5
    cached.close()


# -- claims -----------------------------------------------------------------------------------


def question(i):
    return Question(content_key(f"p{i}", "a", "b"), f"p{i}", "a", "b")


def test_a_claim_is_respected_until_it_is_given_back(path):
    store = VerdictStore(path, "judge")
    with store.owner() as one, store.owner() as two:
        assert store.claim([question(0), question(1)], one).mine == [0, 1]
        found = store.claim([question(1), question(2)], two)
        assert (found.mine, found.busy) == ([1], [0])
        assert store.save([(question(1), 0.25)], one, abstentions=False) == [0.25]
        found = store.claim([question(0), question(1)], two)
        assert (found.known, found.busy) == ({1: 0.25}, [0])
        store.release(one)
        assert store.claim([question(0)], two).mine == [0]
    assert rows(path, "SELECT count(*) FROM claims") == [(0,)]
    store.database.close()


def test_the_first_verdict_stays(path):
    store = VerdictStore(path, "judge")
    assert store.save([(question(0), 0.25)], "x", abstentions=False) == [0.25]
    assert store.save([(question(0), 1.0)], "y", abstentions=False) == [0.25]
    store.database.close()


def claim_of(path, owner, expires):
    store = VerdictStore(path, "judge")
    store.claim([question(0)], owner)
    with store.database.transaction() as connection:
        connection.execute("UPDATE claims SET expires=?", (time.time() + expires,))
    return store


def test_a_claim_expires(path):
    store = claim_of(path, "elsewhere|1|1|x", expires=60)
    assert store.claim([question(0)], "me|1|1|y").busy == [0]
    store.database.close()
    store = claim_of(path, "elsewhere|1|1|x", expires=-1)
    assert store.claim([question(0)], "me|1|1|y").mine == [0]
    store.database.close()


def test_a_claim_of_a_dead_process_is_free_at_once(path):
    from equilign.oracles.verdict_store import _place, _started

    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = f"{_place()}|{process.pid}|{_started(process.pid)}|x"
    store = claim_of(path, owner, expires=60)
    assert store.claim([question(0)], "me|1|1|y").busy == [0]
    process.kill()
    deadline = time.time() + 30
    while _started(process.pid) and time.time() < deadline:
        time.sleep(0.01)
    # Not yet waited for: a zombie is dead, too.
    found = store.claim([question(0)], "me|1|1|y")
    process.stdin.close()
    process.wait()
    assert found.mine == [0]
    store.database.close()


def test_a_claim_of_a_process_whose_number_was_given_anew(path):
    from equilign.oracles.verdict_store import _place

    store = claim_of(path, f"{_place()}|{os.getpid()}|123|x", expires=60)
    assert store.claim([question(0)], "me|1|1|y").mine == [0]
    store.database.close()


def test_claims_are_renewed_while_the_judge_thinks(path):
    store = VerdictStore(path, "judge", lease=0.3)
    with store.owner() as owner:
        # As seen from elsewhere, where only the lease says that the owner lives.
        store.claim([question(0)], owner)
        ((first,),) = rows(path, "SELECT expires FROM claims")
        deadline, last = time.time() + 30, first
        while last < first + 0.3 and time.time() < deadline:
            time.sleep(0.02)
            ((last,),) = rows(path, "SELECT expires FROM claims")
        assert last >= first + 0.3
    store.database.close()


def test_threads_that_ask_the_same_pay_once(path):
    lock = threading.Lock()

    class Slow(Counting):
        def compare(self, prompts, a, b):
            time.sleep(0.05)
            with lock:
                return super().compare(prompts, a, b)

    oracle = Slow()
    cached = CachedOracle(oracle, path, "judge", batch_size=4)
    results = [None] * 4

    def work(i):
        results[i] = cached.compare(*pairs(12))
        cached.store.database.close_thread()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(oracle.asked.values()) == {1}
    assert len(oracle.asked) == 12
    for result in results:
        np.testing.assert_array_equal(result, expected(*pairs(12)))
    cached.close()


def test_an_abstention_of_another_process_is_not_waited_for(path):
    """Its claim is given back without a verdict; the waiting one asks by itself."""
    store = VerdictStore(path, "judge")
    held = store.owner()
    owner = held.__enter__()
    q = Question(content_key("p", "aa", "b"), "p", "aa", "b")
    store.claim([q], owner)
    threading.Timer(0.1, lambda: store.save([(q, float("nan"))], owner, abstentions=False)).start()
    oracle = Counting()
    cached = CachedOracle(oracle, path, "judge")
    assert cached.compare(["p"], ["aa"], ["b"]).tolist() == [1.0]
    assert oracle.asked.total() == 1
    held.__exit__(None, None, None)
    cached.close()
    store.database.close()


# -- several processes and kills, with a paid judge -------------------------------------------

WORKER = """
import json, sys
from equilign.errors import BudgetError
from equilign.oracles.cache import CachedOracle
from equilign.oracles.llm_judge import LLMJudge
from tests.oracles.judge_server import pairs

url, path, n, options = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
judge = LLMJudge("m", url, api_key_env=None, **options)
cached = CachedOracle(judge, path)
try:
    result = cached.compare(*pairs(n)).tolist()
except BudgetError as error:
    result = str(error)
print(json.dumps([result, cached.statistics.asked]))
cached.close()
judge.close()
"""


def stored_in(path):
    return rows(path, "SELECT count(*) FROM verdicts")[0][0]


def worker(server, path, n, **options):
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, server.url, str(path), str(n), json.dumps(options)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_four_processes_share_the_work_and_pay_once(path):
    n = 60

    def answer(pair, attempt):
        time.sleep(0.01)
        return Reply(longer_wins(pair))

    with JudgeServer(answer) as server:
        workers = [worker(server, path, n, concurrency=3) for _ in range(4)]
        outputs = [json.loads(w.communicate(timeout=200)[0]) for w in workers]
    for verdicts, _ in outputs:
        assert verdicts == expected(*pairs(n)).tolist()
    assert set(server.attempts.values()) == {1}
    assert server.requests == n
    assert sum(asked for _, asked in outputs) == n


def test_a_budget_holds_for_all_processes_together(path):
    n = 40
    with JudgeServer() as server:
        workers = [worker(server, path, n, max_requests=25, concurrency=2) for _ in range(2)]
        outputs = [json.loads(w.communicate(timeout=200)[0])[0] for w in workers]
        assert server.requests == 25
        assert any("max_requests=25" in str(out) for out in outputs)
        assert set(server.attempts.values()) == {1}
        (out, asked) = json.loads(
            worker(server, path, n, max_requests=40).communicate(timeout=200)[0]
        )
    assert (out, asked) == (expected(*pairs(n)).tolist(), 15)
    assert server.requests == n


def test_a_kill_in_the_middle_of_a_batch_loses_nothing_that_was_answered(path):
    n, answered, concurrency = 30, 11, 4
    order = []

    def answer(pair, attempt):
        with server.lock:
            order.append(pair)
            late = len(order) > answered
        return Hang() if late and not server.released.is_set() else Reply(longer_wins(pair))

    with JudgeServer(answer) as server:
        process = worker(server, path, n, concurrency=concurrency, timeout=30)
        deadline = time.time() + 30
        while server.requests < answered + concurrency and time.time() < deadline:
            time.sleep(0.01)
        while stored_in(path) < answered and time.time() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert stored_in(path) == answered
        before = server.attempts.copy()
        paid = set(order[:answered])
        server.released.set()
        # The claims of the dead process do not hold the rerun up until their lease ends.
        begun = time.time()
        result, asked = json.loads(worker(server, path, n).communicate(timeout=200)[0])
        assert time.time() - begun < 50
    assert result == expected(*pairs(n)).tolist()
    assert asked == n - answered
    again = server.attempts - before
    assert set(again.values()) == {1}
    assert not paid & set(again)
    assert sum(again.values()) == n - answered


def test_kills_at_random_moments(path):
    """Whatever is killed when: at the end every verdict is there, and right."""
    n, concurrency, kills = 40, 3, 3

    def answer(pair, attempt):
        time.sleep(0.02)
        return Reply(longer_wins(pair))

    rng = np.random.default_rng(0)
    with JudgeServer(answer) as server:
        for _ in range(kills):
            process = worker(server, path, n, concurrency=concurrency)
            process.stdout.read(0)
            deadline = time.time() + 20
            target = server.requests + int(rng.integers(2, 10))
            while server.requests < target and time.time() < deadline and process.poll() is None:
                time.sleep(0.002)
            process.kill()
            process.communicate()
        result, _ = json.loads(worker(server, path, n).communicate(timeout=200)[0])
    assert result == expected(*pairs(n)).tolist()
    assert len(server.attempts) == n
    # Only what was under way at a kill can be asked again.
    assert server.requests <= n + kills * (concurrency + 1)
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


# -- the budget and the cache -----------------------------------------------------------------


def test_the_budget_stops_exactly_and_resumes(path):
    n = 20
    with JudgeServer() as server:
        judge = LLMJudge("m", server.url, api_key_env=None, max_requests=8, concurrency=3)
        cached = CachedOracle(judge, path)
        with pytest.raises(BudgetError, match=r"max_requests=8.*8 requests.*12 questions") as info:
            cached.compare(*pairs(n))
        assert str(path) in str(info.value)
        assert cached.statistics.stored == 8 == server.requests
        cached.close()
        judge.close()
        # The same cap again: nothing more is sent. What is known is still answered.
        judge = LLMJudge("m", server.url, api_key_env=None, max_requests=8)
        cached = CachedOracle(judge, path)
        with pytest.raises(BudgetError):
            cached.compare(*pairs(n))
        known = {tuple(map(str, p)) for p in server.answered}
        columns = [[p[i] for p in sorted(known)] for i in range(3)]
        np.testing.assert_array_equal(cached.compare(*columns), expected(*columns))
        assert server.requests == 8
        cached.close()
        judge.close()
        judge = LLMJudge("m", server.url, api_key_env=None, max_requests=20)
        cached = CachedOracle(judge, path)
        np.testing.assert_array_equal(cached.compare(*pairs(n)), expected(*pairs(n)))
        assert judge.statistics.requests == server.requests == n
        cached.close()
        judge.close()
    assert set(server.attempts.values()) == {1}


def test_requests_before_the_cache_was_there_count_too(path):
    with JudgeServer() as server:
        judge = LLMJudge("m", server.url, api_key_env=None, max_requests=5)
        judge.compare(*pairs(3))
        cached = CachedOracle(judge, path)
        assert judge.statistics.requests == 3
        with pytest.raises(BudgetError):
            cached.compare(*pairs(3))
        assert server.requests == 5
        cached.close()
        judge.close()


def test_a_failed_judge_keeps_what_it_answered(path):
    def answer(pair, attempt):
        if pair[0] == "prompt 5" and not server.released.is_set():
            return Status(401)
        return Reply(longer_wins(pair))

    with JudgeServer(answer) as server:
        judge = LLMJudge("m", server.url, api_key_env=None, concurrency=2)
        cached = CachedOracle(judge, path)
        with pytest.raises(OracleError, match="HTTP 401"):
            cached.compare(*pairs(10))
        stored = cached.statistics.stored
        assert stored in (5, 6)  # the one beside the failure was under way
        assert server.requests == stored + 1
        server.released.set()
        np.testing.assert_array_equal(cached.compare(*pairs(10)), expected(*pairs(10)))
        assert server.requests == 11
        cached.close()
        judge.close()


def test_both_orders_of_a_paid_pair_are_asked_once(path):
    with JudgeServer(lambda pair, n: Reply("A")) as server:
        judge = LLMJudge("m", server.url, api_key_env=None)
        cached = CachedOracle(judge, path)
        for _ in range(2):
            verdicts = compare_symmetric(cached, *pairs(4))
            np.testing.assert_array_equal(verdicts, 0.5)  # it always says A: only bias
        assert server.requests == 8
        assert judge.statistics.first_wins == 1.0
        cached.close()
        judge.close()


def test_a_transaction_that_fails_leaves_nothing(path):
    database = Database(path)

    def write():
        with database.transaction() as connection:
            connection.execute("INSERT INTO abstentions VALUES ('x', 1)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert rows(path, "SELECT * FROM abstentions") == []
    database.close()
