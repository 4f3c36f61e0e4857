"""The whole reproduction at its smallest, stops included."""

import json
import shutil

import pytest

from equilign.cli.main import _exit_code
from equilign.errors import ConfigError, RunDirectoryError
from equilign.experiments.reproduce import check_request, reproduce
from equilign.experiments.sppo import pieces
from equilign.experiments.sppo.contestants import CONTESTANTS
from equilign.experiments.sppo.pieces import Setting, train_piece
from equilign.experiments.sppo.scales import SCALES
from equilign.files import read_jsonl
from equilign.tasks.prompts import restaurant_prompts

TINY = SCALES["tiny"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sppo") / "run"
    told = []
    summary = reproduce("sppo", folder, scale="tiny", seed=3, progress=lambda *x: told.append(x))
    return folder, summary, told


def test_what_it_returns_and_writes(tiny):
    folder, summary, told = tiny
    keys = {"paper", "scale", "claims", "tables", "figures", "seconds", "peak_memory_mb"}
    assert keys | {"output_dir"} <= set(summary)
    assert json.loads((folder / "results.json").read_text()) == summary
    assert (folder / "report.html").stat().st_size > 10_000
    assert all((folder / name).is_file() for name in (*summary["figures"], *summary["pieces"]))
    assert len(summary["pieces"]) == (len(CONTESTANTS) + 1) * TINY.seeds
    assert not any((folder / "training").iterdir()), "weights of finished pieces are removed"
    assert ("SPPO, seed 3000", 0, 3, 3) in told
    assert ("judging, seed 3001", 0, 2, 2) in told
    assert summary["peak_memory_mb"] > 100


def test_all_methods_cost_the_same(tiny):
    folder, _, _ = tiny
    for seed in (3000, 3001):
        found = {
            c.method: json.loads((folder / "pieces" / f"{c.method}-seed-{seed}.json").read_text())
            for c in CONTESTANTS
        }
        for number in range(TINY.rounds):
            costs = [
                tuple(piece["rounds"][number][k] for k in ("prompts", "samples", "steps"))
                for piece in found.values()
            ]
            assert costs == [(4, 8, 4)] * 3
            for piece in found.values():
                # At most K (K - 1) verdicts per prompt; equal answers are not asked about.
                assert piece["rounds"][number]["verdicts"] <= 4 * 2


def test_seeds_play_other_prompts_and_policies_answer_for_themselves(tiny):
    folder, _, _ = tiny
    answers = {p.stem: read_jsonl(p) for p in (folder / "answers").glob("*.jsonl")}
    assert answers["start-seed-3000"] != answers["start-seed-3001"]
    # The same model, drawn again: no policy shares its random numbers with another.
    assert answers["start-seed-3000"] != answers["start-again-seed-3000"]
    first = [row["completions"][0] for row in answers["start-seed-3000"]]
    for method in ("sppo", "iterated-dpo"):
        assert [r["completions"][0] for r in answers[f"{method}-1-seed-3000"]] != first
    assert {len(r["completions"]) for r in answers["sppo-3-seed-3000"]} == {TINY.best_of}
    assert {len(r["completions"]) for r in answers["sppo-1-seed-3000"]} == {TINY.samples}


@pytest.mark.slow
def test_resume_makes_only_what_is_missing(tiny, tmp_path):
    folder, summary, _ = tiny
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    kept = (copy / "pieces" / "sppo-seed-3000.json").stat().st_mtime_ns
    (copy / "pieces" / "iterated-ipo-seed-3001.json").unlink()
    (copy / "pieces" / "judged-seed-3001.json").unlink()
    for path in (copy / "answers").glob("iterated-ipo-*-seed-3001.*"):
        path.unlink()
    with pytest.raises(RunDirectoryError, match="--resume"):
        reproduce("sppo", copy, scale="tiny", seed=3, progress=print)
    again = reproduce("sppo", copy, scale="tiny", seed=3, resume=True, progress=print)
    assert (copy / "pieces" / "sppo-seed-3000.json").stat().st_mtime_ns == kept
    assert again["claims"] == summary["claims"]
    assert again["tables"] == summary["tables"]


class Stop(Exception):
    pass


@pytest.mark.parametrize(
    "method",
    [
        "sppo",
        pytest.param("iterated-dpo", marks=pytest.mark.slow),
        pytest.param("iterated-ipo", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_piece_goes_on_to_the_same_answers(tmp_path, method):
    options = {("eta" if method == "sppo" else "beta"): 1.0, "learning_rate": 1e-3}
    answers = {}
    for stopped in (False, True):
        setting = Setting(
            tmp_path / str(stopped),
            TINY,
            restaurant_prompts("align")[:12],
            restaurant_prompts("evaluate")[:2],
        )

        def run(tell, setting=setting):
            train_piece(setting, method, method, options, 5, tell=tell)

        if stopped:

            def stop(done, total):
                if done == 2:
                    raise Stop

            with pytest.raises(Stop):
                run(stop)
            assert not setting.piece_file(method, 5).exists()
        run(lambda done, total: None)
        answers[stopped] = [read_jsonl(setting.answers_file(f"{method}-{n}", 5)) for n in (1, 2, 3)]
        piece = json.loads(setting.piece_file(method, 5).read_text())
        answers[stopped].append([piece["rounds"], piece["kl_nats"]])
    assert answers[True] == answers[False]
    assert piece["kl_nats"][-1] != 0.0


def test_verdicts_and_trained_answers_are_counted_from_the_round(tmp_path):
    rows = [
        {
            "completions": ["a", "b", "a"],
            "completion_ids": [[1], [1, 2], [1]],
            "loss_weights": [0.5, 0.5, 0.0],
            "trained": [0, 1],
        },
        {
            "completions": ["a", "b", "c"],
            "completion_ids": [[1], [1, 2], [1, 2, 3]],
            "pairs": [],
        },
    ]
    (tmp_path / "rounds").mkdir()
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "rounds" / "sppo-001.jsonl").write_text(text)
    metrics = [
        {"kind": "step", "round": 1, "loss": 2.0},
        {"kind": "step", "round": 1, "loss": 4.0},
        {"kind": "step", "round": 2, "loss": 9.0},
        {"kind": "round", "round": 1, "cyclic_prompts_share": 0.5},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(m) + "\n" for m in metrics))
    found = pieces._round(tmp_path, "sppo", 1)
    assert found == {
        "prompts": 2,
        "samples": 6,
        "verdicts": 2 + 6,
        "trained_answers": 2,
        "steps": 2,
        "loss": 3.0,
        "tokens": pytest.approx(10 / 6),
        "cyclic_prompts_share": 0.5,
    }


def test_scales_are_the_papers_own():
    check_request("sppo", "paper", 0)
    with pytest.raises(
        ConfigError, match="omwu has no scale 'paper'; there are: quick, full, tiny"
    ):
        check_request("omwu", "paper", 0)


def test_the_papers_scale_says_what_is_missing_and_exits_2(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    folder = tmp_path / "run"
    arguments = ["reproduce", "sppo", "--scale", "paper", "--output-dir", str(folder)]
    assert _exit_code(arguments) == 2
    out, err = capsys.readouterr()
    said = " ".join(err.split())
    assert out == ""
    for words in ("a GPU", "llm-blender/PairRM-hf", "recipes/sppo_paper", "was not run here"):
        assert words in said
    assert "Traceback" not in err
    assert not folder.exists()
