"""The whole reproduction at its smallest, stops included."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from equilign.errors import RunDirectoryError
from equilign.experiments.reproduce import reproduce
from equilign.experiments.slhf.contestants import BASELINES, KAPPAS, main_slhf
from equilign.experiments.slhf.judging import PLAYERS
from equilign.experiments.slhf.pieces import START, Setting, train_piece
from equilign.experiments.slhf.playing import LEADERS, LONG, OTHER, OTHERS, chain_name, reply_name
from equilign.experiments.slhf.scales import SCALES
from equilign.files import read_jsonl
from equilign.tasks.prompts import restaurant_prompts
from equilign.trainers.players import player_folders

TINY = SCALES["tiny"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slhf") / "run"
    told = []
    summary = reproduce("slhf", folder, scale="tiny", seed=3, progress=lambda *x: told.append(x))
    return folder, summary, told


def test_what_it_returns_and_writes(tiny):
    folder, summary, told = tiny
    keys = {"paper", "scale", "claims", "tables", "figures", "seconds", "peak_memory_mb"}
    assert keys | {"output_dir", "models"} <= set(summary)
    assert json.loads((folder / "results.json").read_text()) == summary
    json.dumps(summary, allow_nan=False)  # plain numbers, also where one seed has no interval
    assert (folder / "report.html").stat().st_size > 10_000
    assert all((folder / name).is_file() for name in (*summary["figures"], *summary["pieces"]))
    assert not any((folder / "training").iterdir()), "optimiser states are removed"
    # Per seed: three methods, half, played, judged; per kappa a training and its verdicts.
    assert len(summary["pieces"]) == TINY.seeds * 6 + 2 * TINY.kappa_seeds * len(KAPPAS) + 1
    assert ("RLOO, seed 3000", 0, TINY.rounds, TINY.rounds) in told
    assert len(summary["claims"]) == 22


def test_all_methods_sample_alike(tiny):
    folder, _, _ = tiny
    for seed in (3000, 3001):
        found = [
            json.loads((folder / "pieces" / f"{c.name}-seed-{seed}.json").read_text())["costs"]
            for c in (*BASELINES, main_slhf())
        ]
        counts = [(c["prompts"], c["samples"]) for c in found]
        assert counts == [(4, 24)] * 3


def test_everyone_replied_to_everyone(tiny):
    folder, _, _ = tiny
    names = {p.stem for p in (folder / "answers").glob("*.jsonl")}
    for leader in LEADERS:
        assert f"{chain_name(leader, 1)}-seed-3000" in names
        assert (f"{chain_name(leader, TINY.steps)}-seed-3001" in names) == (leader in LONG)
        for who in (OTHER, *OTHERS):
            assert f"{reply_name(who, leader)}-seed-3001" in names


def test_what_was_measured(tiny):
    folder, _, _ = tiny
    judged = json.loads((folder / "pieces" / "judged-seed-3000.json").read_text())
    assert judged["players"] == list(PLAYERS)
    wins = np.array(judged["oracles"]["training"]["wins"])
    assert wins.shape == (TINY.eval_prompts, len(PLAYERS), len(PLAYERS))
    np.testing.assert_allclose(wins + wins.transpose(0, 2, 1), 1.0, atol=1e-5)
    for row in judged["corrections"].values():
        assert {k: len(v) for k, v in row.items()} == dict.fromkeys(LEADERS, TINY.eval_prompts)
    assert {len(g) for g in judged["graphs"].values()} == {TINY.eval_prompts}
    trained = json.loads((folder / "pieces" / f"{main_slhf().name}-seed-3000.json").read_text())
    assert trained["kl_nats"] != 0.0
    assert len(trained["curve"]["follower_win_rate"]) == TINY.rounds


def test_policies_answer_for_themselves(tiny):
    folder, _, _ = tiny
    answers = {p.stem: read_jsonl(p) for p in (folder / "answers").glob("*.jsonl")}
    first = {
        tuple(row["completions"][0] for row in answers[f"{name}-seed-{seed}"])
        for name in (START, "start-again", *(c.name for c in BASELINES), main_slhf().name)
        for seed in (3000, 3001)
    }
    assert len(first) == 10


def test_the_follower_can_be_given_to_refine(tiny):
    folder, summary, _ = tiny
    name = f"models/{main_slhf().name}-seed-3000"
    assert name in summary["models"]
    where = player_folders(folder / name)["follower"]
    assert (where / "follower_prompt.json").is_file()
    assert (where / "tokenizer.json").is_file()


@pytest.mark.slow
def test_resume_makes_only_what_is_missing(tiny, tmp_path):
    folder, summary, _ = tiny
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    kept = (copy / "pieces" / "rloo-seed-3000.json").stat().st_mtime_ns
    for name in ("nash-md-pg-seed-3001", "judged-seed-3001", "played-seed-3001"):
        (copy / "pieces" / f"{name}.json").unlink()
    for path in (copy / "answers").glob("nash-md-pg-seed-3001.*"):
        path.unlink()
    for path in (copy / "answers").glob("chain-*-seed-3001.*"):
        path.unlink()
    with pytest.raises(RunDirectoryError, match="--resume"):
        reproduce("slhf", copy, scale="tiny", seed=3, progress=print)
    again = reproduce("slhf", copy, scale="tiny", seed=3, resume=True, progress=print)
    assert (copy / "pieces" / "rloo-seed-3000.json").stat().st_mtime_ns == kept
    assert again["claims"] == summary["claims"]
    costs = [t for t in again["tables"] if t["name"] == "costs"]
    assert [t for t in again["tables"] if t not in costs] == [
        t for t in summary["tables"] if t["name"] != "costs"
    ]


class Stop(Exception):
    pass


@pytest.mark.slow
def test_a_stopped_piece_goes_on_to_the_same_answers(tmp_path):
    who = main_slhf()
    answers = {}
    for stopped in (False, True):
        setting = Setting(
            tmp_path / str(stopped),
            replace(TINY, save_every=1),
            restaurant_prompts("align")[:4],
            restaurant_prompts("evaluate")[:2],
        )

        def run(tell, setting=setting):
            train_piece(setting, who, 1e-3, 5, tell=tell)

        if stopped:

            def stop(done, total):
                if done == 2:
                    raise Stop

            with pytest.raises(Stop):
                run(stop)
            assert not setting.piece_file(who.name, 5).exists()
        run(lambda done, total: None)
        piece = json.loads(setting.piece_file(who.name, 5).read_text())
        answers[stopped] = [
            read_jsonl(setting.answers_file(who.name, 5)),
            piece["costs"],
            piece["curve"],
            piece["kl_nats"],
        ]
    assert answers[True] == answers[False]
