"""The whole STA-RLHF reproduction at its smallest, stops included."""

import json
import shutil

import pytest

from equilign.errors import RunDirectoryError
from equilign.experiments.reproduce import PAPERS, SCALES, reproduce
from equilign.experiments.sta.contestants import CONTESTANTS
from equilign.experiments.sta.scales import SCALES as SIZES
from equilign.experiments.sta.tasks import TASKS

TINY = SIZES["tiny"]


def test_it_is_known_by_name():
    assert PAPERS["sta-rlhf"].scales == SCALES


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sta") / "run"
    told = []
    summary = reproduce(
        "sta-rlhf", folder, scale="tiny", seed=1, progress=lambda *x: told.append(x)
    )
    return folder, summary, told


@pytest.mark.slow
def test_what_it_returns_and_writes(tiny):
    folder, summary, told = tiny
    keys = {"paper", "scale", "claims", "tables", "figures", "seconds", "peak_memory_mb"}
    assert keys | {"output_dir", "pieces"} <= set(summary)
    assert json.loads((folder / "results.json").read_text()) == summary
    json.dumps(summary, allow_nan=False)
    assert (folder / "report.html").stat().st_size > 10_000
    assert all((folder / name).is_file() for name in (*summary["figures"], *summary["pieces"]))
    assert not any((folder / "training").iterdir()), "optimiser states are removed"
    # The paper's first seed, shifted; the start model, on each task nine methods and the timing.
    assert len(summary["pieces"]) == 1 + len(TASKS) * (len(CONTESTANTS) + 1)
    assert all(name.endswith("-seed-10467.json") for name in summary["pieces"])
    assert ("STA naive, Unique Nouns, seed 10467", 0, TINY.rounds, TINY.rounds) in told
    assert len(summary["claims"]) == 9


@pytest.mark.slow
def test_all_methods_saw_as_many_examples(tiny):
    folder, summary, _ = tiny
    wanted = TINY.rounds * TINY.batch
    for name in summary["pieces"]:
        piece = json.loads((folder / name).read_text())
        if "evaluations" in piece:
            assert piece["evaluations"][-1]["examples"] == wanted
            assert piece["played"]["examples"][-1:] in ([wanted], [])


@pytest.mark.slow
def test_resume_makes_only_what_is_missing(tiny, tmp_path):
    folder, summary, _ = tiny
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    kept = copy / "pieces" / "unique-nouns.ppo-seed-10467.json"
    before = kept.stat().st_mtime_ns
    gone = "unique-nouns.parl"
    (copy / "pieces" / f"{gone}-seed-10467.json").unlink()
    for path in (*copy.glob(f"answers/{gone}-*"), *copy.glob(f"pieces/parts/{gone}-*")):
        path.unlink()
    with pytest.raises(RunDirectoryError, match="--resume"):
        reproduce("sta-rlhf", copy, scale="tiny", seed=1, progress=print)
    again = reproduce("sta-rlhf", copy, scale="tiny", seed=1, resume=True, progress=print)
    assert kept.stat().st_mtime_ns == before
    timed = {"times"}
    assert [t for t in again["tables"] if t["name"] not in timed] == [
        t for t in summary["tables"] if t["name"] not in timed
    ]
