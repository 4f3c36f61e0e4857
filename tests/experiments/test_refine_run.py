"""The run of a refinement with players that need no model: lines, numbers, stops."""

import json
import os

import numpy as np
import pytest

from equilign.errors import RunDirectoryError
from equilign.evaluation.best_of_n import spend_budgets
from equilign.evaluation.intervals import clustered_mean
from equilign.experiments.refine import run as run_module
from equilign.experiments.refine.rows import Lines, whole_bytes, written
from equilign.experiments.refine.run import work
from equilign.experiments.refine.summary import summarise
from equilign.files import read_jsonl
from tests.experiments.refining import Fake, config_of, prompts_file, verdict


def silent(*args):
    pass


def run(config, folder, **options):
    fake = Fake(config, folder, **options)
    tally = work(fake.task, silent)
    return fake, summarise(tally, config), read_jsonl(folder / "answers.jsonl")


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """A power cut is not what is tested here, and disks are slow."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def ten(tmp_path):
    return prompts_file(tmp_path / "p.jsonl", 10)


# -- lines ----------------------------------------------------------------------------------


def test_what_is_kept(ten, tmp_path):
    found = {
        keep: run(config_of(ten, keep=keep, rounds=2), tmp_path / keep)[2]
        for keep in ("last", "all", "best")
    }
    for last, everything, best in zip(*found.values(), strict=True):
        chain = everything["completions"]
        assert len(chain) == 3
        assert last["completion"] == chain[2]
        means = [np.mean([verdict(a, b) for b in {*chain} - {a}] or [0.5]) for a in chain]
        assert best["completion"] == chain[int(np.argmax(np.round(means, 12)))]
        assert best["refinement"]["picked"] == [chain.index(best["completion"])]
        assert [r["prompt"] for r in (last, everything, best)] == [f"p{last['id']}"] * 3
    assert any(r["completion"] != b["completion"] for r, b in zip(found["last"], found["best"]))  # noqa: B905


def test_numbers_of_a_line_are_those_of_its_chain(ten, tmp_path):
    _, _, lines = run(config_of(ten, keep="all", rounds=3), tmp_path / "run")
    for line in lines:
        texts, numbers = line["completions"], line["refinement"]
        assert numbers["tokens"] == [[len(t) for t in texts]]
        wins = [verdict(t, texts[0]) for t in texts[1:]]
        assert numbers["wins"][0] == pytest.approx(wins)
        assert numbers["unchanged"] == [[a == b for a, b in zip(texts, texts[1:])]]  # noqa: B905, RUF007
        assert numbers["stopped"] == [None]


def test_several_answers_of_the_leader_begin_several_chains(ten, tmp_path):
    fake, _, lines = run(config_of(ten, keep="all", num_samples=3, rounds=1), tmp_path / "run")
    assert [len(line["completions"]) for line in lines] == [6] * 10
    first_shown = fake.follower.calls[0]
    assert first_shown[:4] == [f"p0|{t}" for t in lines[0]["completions"][::2]] + [
        f"p1|{lines[1]['completions'][0]}"
    ]
    _, _, kept = run(config_of(ten, num_samples=3, rounds=1), tmp_path / "last")
    assert kept[0]["completions"] == lines[0]["completions"][1::2]


def test_chains_are_the_same_whatever_is_kept_judged_or_compared(ten, tmp_path):
    """So that an option changes what is written, never what is sampled."""
    _, _, plain = run(config_of(ten, keep="all"), tmp_path / "a", judged=False)
    _, _, judged = run(config_of(ten, keep="all", compare=True), tmp_path / "b")
    assert [r["completions"] for r in plain] == [r["completions"] for r in judged]
    _, _, shorter = run(config_of(ten, keep="all", rounds=1), tmp_path / "c")
    assert [r["completions"] for r in shorter] == [r["completions"][:2] for r in plain]
    _, _, fewer = run(config_of(ten, keep="all", max_prompts=8), tmp_path / "d")
    assert [r["completions"] for r in fewer] == [r["completions"] for r in plain][:8]


def test_lines_come_in_order_chunk_by_chunk(ten, tmp_path):
    fake = Fake(config_of(ten, rounds=1), tmp_path / "run")
    seen = []
    work(fake.task, silent, lambda raw: seen.append((json.loads(raw)["id"], fake.calls)))
    assert [i for i, _ in seen] == list(range(10))
    # A chunk's lines are out before the next chunk's players are asked.
    assert [calls for _, calls in seen] == [4] * 4 + [8] * 4 + [12] * 2


def test_columns_stay_and_alpaca_goes_back_where_it_came_from(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [
        {"instruction": "Say", "output": "hm", "generator": "m1", "dataset": "d"},
        {
            "prompt": [{"role": "user", "content": "q"}],
            "completions": ["u", "v"],
            "instruction": "i",
        },
        {"prompt": "t", "completion": "w", "refinement": {"old": 1}, "chains": []},
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    config = config_of(path, answers=str(path), rounds=1)
    fake, _, (one, two, three) = run(config, tmp_path / "run")
    assert set(one) == {"instruction", "output", "generator", "dataset", "refinement"}
    assert one["generator"] == "m1, refined by F"
    assert one["output"] not in ("", "hm")
    assert set(two) == {"prompt", "completions", "instruction", "refinement"}
    assert len(two["completions"]) == 2
    assert "old" not in three["refinement"]
    shown = fake.follower.calls[0]
    assert [p if isinstance(p, str) else p[1]["content"] for p in shown] == ["hm", "u", "v", "t|w"]
    assert fake.leader.calls == []
    # The output is an input like any other.
    again = config_of(path, answers=str(tmp_path / "run" / "answers.jsonl"), rounds=1)
    _, _, lines = run(again, tmp_path / "again")
    assert lines[0]["generator"] == "m1, refined by F, refined by F"


# -- numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize("abstains", [False, True])
def test_the_summary_follows_from_the_answers(tmp_path, abstains):
    """Recomputed from the texts in plain loops, masked pairs included."""
    path = prompts_file(tmp_path / "p.jsonl", 30)
    config = config_of(path, keep="all", num_samples=2, rounds=2, compare=True)
    _, found, lines = run(config, tmp_path / "run", abstains=abstains)
    chains = [[r["completions"][:3], r["completions"][3:]] for r in lines]
    assert (found["prompts"], found["chains"]) == (30, 60)
    masked = 0
    for number, row in enumerate(found["rounds"], 1):
        verdicts = [[verdict(c[number], c[0], abstains) for c in pair] for pair in chains]
        means = np.array([np.mean(k) for v in verdicts if (k := [w for w in v if w == w])])
        wanted = clustered_mean(means)
        assert row["round"] == number
        got = (row["win_rate_vs_leader"], row["low"], row["high"], row["judged_prompts"])
        assert got == pytest.approx((wanted.value, wanted.low, wanted.high, wanted.count))
        missing = np.isnan(verdicts).mean()
        assert row["no_verdict_share"] == pytest.approx(missing)
        masked += missing
        lengths = [[len(c[number]) for c in pair] for pair in chains]
        assert row["mean_tokens"] == pytest.approx(np.mean(lengths))
        same = [[c[number] == c[number - 1] for c in pair] for pair in chains]
        assert row["unchanged_share"] == pytest.approx(np.mean(same))
        assert row["too_long_share"] == 0.0
    assert (masked > 0.0) == abstains
    assert found["leader"]["mean_tokens"] == pytest.approx(
        np.mean([[len(c[0]) for c in pair] for pair in chains])
    )
    shares = found["picked"]["round_shares"]
    assert sum(shares) == pytest.approx(1.0 - found["picked"]["no_verdict_share"])
    assert (found["picked"]["no_verdict_share"] > 0.0) == abstains
    compare = found["compare"]
    assert compare["answers"] == [1, 2, 3]
    rates = compare["players"]
    assert len({rates[name]["win_rate"][0] for name in rates}) == 1
    assert compare["head_to_head"]["pick_vs_best_of_n"]["win_rate"][0] == pytest.approx(0.5)
    for row in (*rates.values(), *compare["head_to_head"].values()):
        ends = zip(row["low"], row["win_rate"], row["high"], strict=True)
        assert all(0.0 <= low <= value <= high <= 1.0 for low, value, high in ends)


def test_picked_counts_the_leaders_own_answer_as_a_tie(ten, tmp_path):
    config = config_of(ten, keep="best", rounds=2)
    _, found, lines = run(config, tmp_path / "run")
    rates = []
    for line in lines:
        (place,), (wins,) = line["refinement"]["picked"], line["refinement"]["wins"]
        rates.append(0.5 if place == 0 else wins[place - 1])
    assert 0.5 in rates
    assert found["picked"]["win_rate_vs_leader"] == pytest.approx(np.mean(rates))
    assert found["picked"]["win_rate_vs_leader"] > found["rounds"][-1]["win_rate_vs_leader"]


def test_budgets_use_distinct_answers_of_the_leader(ten, tmp_path):
    """No answer of the Leader serves two chains, nor as its own opponent: put together again."""
    config = config_of(
        ten, keep="all", num_samples=2, rounds=2, compare=True, opponents=3, chunk_size=1
    )
    fake, _, lines = run(config, tmp_path / "run")
    for i, line in enumerate(lines):
        seeds = fake.leader.seeds[2 * i : 2 * i + 2]
        first, further = (
            [c.text for c in fake.leader.sample([f"p{i}"], n, s)[0].completions]
            for n, s in zip((2, 7), seeds, strict=True)
        )
        chains = [line["completions"][:3], line["completions"][3:]]
        assert [c[0] for c in chains] == first
        for k, chain in enumerate(chains):
            texts = [*chain, *further[2 * k : 2 * k + 2], *further[4:]]
            game = np.array([[verdict(a, b) for b in texts] for a in texts])
            wanted = spend_budgets(game, texts, 2, 3)
            for name, values in line["refinement"]["budgets"][k].items():
                assert values == pytest.approx(wanted[name].tolist()), (i, k, name)
    assert len(fake.oracle.calls) == 2 * 10, "once in each order for every prompt"


def test_every_chunk_and_every_stage_draws_for_itself(ten, tmp_path):
    fake, _, _ = run(config_of(ten, rounds=2, compare=True), tmp_path / "run")
    seeds = [*fake.leader.seeds, *fake.follower.seeds]
    assert len(seeds) == 3 * (2 + 2)
    assert len(set(seeds)) == len(seeds)
    other, _, _ = run(config_of(ten, rounds=2, compare=True, seed=1), tmp_path / "other")
    assert set(seeds).isdisjoint([*other.leader.seeds, *other.follower.seeds])


def test_without_an_oracle_there_are_no_win_rates(ten, tmp_path):
    _, found, lines = run(config_of(ten, oracle=None), tmp_path / "run", judged=False)
    assert [r["win_rate_vs_leader"] for r in found["rounds"]] == [None] * 3
    assert found["picked"] is None
    assert found["compare"] is None
    assert "wins" not in lines[0]["refinement"]


def test_an_oracle_that_never_says_anything(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"p{i}", "completion": "g"}) for i in [1]) + "\n")
    config = config_of(path, answers=str(path), rounds=1, keep="best")
    _, found, (line,) = run(config, tmp_path / "run", abstains=True)
    assert found["rounds"][0]["win_rate_vs_leader"] is None
    assert found["rounds"][0]["no_verdict_share"] == 1.0
    assert found["picked"]["no_verdict_share"] == 1.0
    assert line["completion"] != "g", "the last answer"


def test_too_long_for_the_follower_is_counted(ten, tmp_path):
    config = config_of(ten, keep="all", rounds=2)
    fits = lambda p: not p.startswith(("p1|", "p2|"))  # noqa: E731
    _, found, lines = run(config, tmp_path / "run", fits=fits)
    assert [r["too_long_share"] for r in found["rounds"]] == pytest.approx([0.2, 0.2])
    assert [line["refinement"]["stopped"] for line in lines[:3]] == [[None], [1], [1]]
    assert len(set(lines[1]["completions"])) == 1
    assert lines[1]["refinement"]["unchanged"] == [[False, False]], "it was not asked"
    assert lines[1]["refinement"]["wins"] == [[0.5, 0.5]]


# -- stops ----------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def until_killed(monkeypatch, fake, moment):
    """Run, and die in the ``moment``-th write after its bytes are out; False: it lived."""
    real, count = os.fsync, 0

    def sync(handle):
        nonlocal count
        count += 1
        if count == moment:
            raise Killed
        real(handle)

    monkeypatch.setattr(os, "fsync", sync)
    try:
        work(fake.task, silent)
    except Killed:
        return True
    else:
        return False
    finally:
        monkeypatch.setattr(os, "fsync", real)


def test_killed_in_any_write_and_resumed_is_bit_identical(ten, tmp_path, monkeypatch):
    config = config_of(ten, rounds=2, compare=True)
    whole, numbers, _ = run(config, tmp_path / "whole")
    wanted = (tmp_path / "whole" / "answers.jsonl").read_bytes()
    moment = 0
    while True:
        moment += 1
        folder = tmp_path / f"killed-{moment}"
        first = Fake(config, folder)
        if not until_killed(monkeypatch, first, moment):
            break
        kept = [line["id"] for _, line in written(folder / "answers.jsonl")]
        second = Fake(config, folder)
        tally = work(second.task, silent)
        assert (folder / "answers.jsonl").read_bytes() == wanted, moment
        assert summarise(tally, config) == numbers
        asked = {int(p[1:]) for call in second.leader.calls for p in call}
        assert asked.isdisjoint(kept), "a finished prompt was asked again"
        # At most the stage that the stop interrupted is done again; judging asks in two orders.
        assert whole.calls <= first.calls + second.calls <= whole.calls + 2, moment
    assert moment > 3 * 6, "there are six stages and a line write per chunk"


def test_killed_before_the_lines_are_out_asks_nobody_again(ten, tmp_path, monkeypatch):
    config = config_of(ten, rounds=2)
    whole, _, _ = run(config, tmp_path / "whole")

    def die(self, lines):
        raise Killed

    first, second = (Fake(config, tmp_path / "run") for _ in range(2))
    with monkeypatch.context() as patch:
        patch.setattr(Lines, "append", die)
        with pytest.raises(Killed):
            work(first.task, silent)
    work(second.task, silent)
    assert first.calls > 0
    assert first.calls + second.calls == whole.calls
    a, b = ((tmp_path / f / "answers.jsonl").read_bytes() for f in ("run", "whole"))
    assert a == b


def test_cut_at_any_byte_and_resumed_is_bit_identical(tmp_path):
    path = prompts_file(tmp_path / "p.jsonl", 6)
    config = config_of(path, rounds=1, chunk_size=2)
    run(config, tmp_path / "whole")
    wanted = (tmp_path / "whole" / "answers.jsonl").read_bytes()
    for size in range(0, len(wanted), 11):
        folder = tmp_path / "cut"
        folder.mkdir(exist_ok=True)
        (folder / "answers.jsonl").write_bytes(wanted[:size])
        fake = Fake(config, folder)
        work(fake.task, silent)
        assert (folder / "answers.jsonl").read_bytes() == wanted, size
        lines = wanted[:size].count(b"\n")
        assert len(fake.leader.calls) == 3 - lines // 2, "only unfinished chunks"


def test_a_failed_write_leaves_whole_lines(tmp_path, monkeypatch):
    lines = Lines(tmp_path / "x.jsonl")
    lines.append([b"{}\n"])

    def full(handle):
        raise OSError(28, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space"):
            lines.append([b'{"a": 1}\n'])
    lines.append([b'{"b": 2}\n'])
    lines.close()
    assert (tmp_path / "x.jsonl").read_bytes() == b'{}\n{"b": 2}\n'


def test_whole_bytes_looks_back_over_many_blocks(tmp_path, monkeypatch):
    path = tmp_path / "x"
    assert whole_bytes(path) == 0
    monkeypatch.setattr("equilign.experiments.refine.rows._BLOCK", 4)
    for text in (b"", b"abc", b"\n", b"a\n", b"ab\nlong tail of bytes", b"a\nb\nc\n", b"abc\nabcd"):
        path.write_bytes(text)
        assert whole_bytes(path) == text.rfind(b"\n") + 1


def test_a_finished_run_asks_nobody(ten, tmp_path):
    config = config_of(ten)
    run(config, tmp_path / "run")
    fake = Fake(config, tmp_path / "run")
    seen = []
    work(fake.task, silent, seen.append)
    assert fake.calls == 0
    assert b"".join(seen) == (tmp_path / "run" / "answers.jsonl").read_bytes()


def test_other_prompts_are_refused_before_anything_is_written(ten, tmp_path):
    config = config_of(ten)
    run(config, tmp_path / "run")
    before = (tmp_path / "run" / "answers.jsonl").read_bytes()
    ten.write_text(ten.read_text().replace("p7", "q7"))
    with pytest.raises(RunDirectoryError, match="line 8"):
        work(Fake(config, tmp_path / "run").task, silent)
    prompts_file(ten, 9)
    with pytest.raises(RunDirectoryError, match="fewer prompts"):
        work(Fake(config, tmp_path / "run").task, silent)
    (tmp_path / "run" / run_module.SUMMARY).write_text("{}")
    prompts_file(ten, 11)
    with pytest.raises(RunDirectoryError, match="finished run with fewer prompts"):
        work(Fake(config, tmp_path / "run").task, silent)
    assert (tmp_path / "run" / "answers.jsonl").read_bytes() == before


def test_stages_of_other_prompts_are_not_taken(tmp_path, monkeypatch):
    """The file changed after a stop, in a chunk of which no line was written."""
    path = prompts_file(tmp_path / "p.jsonl", 4)
    config = config_of(path, rounds=2)
    assert until_killed(monkeypatch, Fake(config, tmp_path / "run"), 4)
    assert list((tmp_path / "run" / "partial").iterdir())
    path.write_text(path.read_text().replace("p2", "q2"))
    work(Fake(config, tmp_path / "run").task, silent)
    work(Fake(config, tmp_path / "fresh").task, silent)
    a, b = ((tmp_path / f / "answers.jsonl").read_bytes() for f in ("run", "fresh"))
    assert a == b


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    """Rows are read as chunks need them: never more than one chunk ahead of the lines."""
    path = prompts_file(tmp_path / "p.jsonl", 40)
    fake = Fake(config_of(path, rounds=1, chunk_size=4), tmp_path / "run", judged=False)
    read, most = 0, 0
    plain = run_module.Source.read

    def counted(self, raw, where):
        nonlocal read
        read += bool(self.path)
        return plain(self, raw, where)

    monkeypatch.setattr(run_module.Source, "read", counted)

    def echo(raw):
        nonlocal most
        most = max(most, read - json.loads(raw)["id"])

    work(fake.task, silent, echo)
    assert read == 40
    assert most <= 4
