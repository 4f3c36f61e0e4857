"""A training round waits for people and goes on; a run that was stopped asks nothing twice."""

import json
import threading

import numpy as np
import pytest
import torch

from equilign.formats import answer_pairs, load_rows
from equilign.labelling import LabelStore
from equilign.labelling.server import LabelServer
from equilign.oracles import Human
from tests.labelling.people import Person
from tests.trainers.test_resume import Died, make, weights

OPTIONS = {
    "num_rounds": 2,
    "prompts_per_round": 2,
    "chunk_prompts": 2,
    "num_generations": 4,
    "per_device_train_batch_size": 2,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
}


def more_b(shown):
    left, right = shown["left"].count("b"), shown["right"].count("b")
    return "left" if left > right else "right" if left < right else "tie"


@pytest.fixture
def page(tmp_path):
    """A file, and people who answer whatever appears in it until the test ends."""
    store = LabelStore(tmp_path / "labels.sqlite")
    server = LabelServer(store)
    people = [Person(f"person {i}", server.port, more_b, linger=120.0) for i in range(2)]
    threads = [threading.Thread(target=p.work, daemon=True) for p in people]
    threads.append(threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True))

    def start():
        for thread in threads:
            thread.start()

    yield store, start, people
    for person in people:
        person.most = 0
    for thread in threads[:-1]:
        if thread.ident is not None:
            thread.join(timeout=30)
    if threads[-1].ident is not None:
        server.shutdown()
        threads[-1].join()
    server.server_close()
    assert [p.errors for p in people] == [[], []]


def games(folder):
    rows = []
    for path in sorted((folder / "rounds").glob("*.jsonl")):
        rows += [json.loads(line) for line in path.read_text().splitlines()]
    return rows


def check_votes(rows):
    for row in rows:
        texts = row["completions"]
        for i, a in enumerate(texts):
            for j, b in enumerate(texts):
                more = np.sign(a.count("b") - b.count("b"))
                assert row["prefs"][i][j] == (0.5 if a == b else 0.5 + more / 2)


def test_rounds_wait_for_people_and_go_on(tmp_path, page):
    store, start, _ = page
    told = []
    oracle = Human(store.path, poll=0.02, tell=told.append)
    trainer = make(tmp_path / "run", oracle=oracle, **OPTIONS)
    before = weights(trainer)
    start()
    trainer.train()
    rows = games(tmp_path / "run")
    assert len(rows) == 4
    check_votes(rows)
    assert any(not torch.equal(before[n], w) for n, w in weights(trainer).items())
    asked = {
        (r["prompt"], *sorted([a, b]))
        for r in rows
        for a in r["completions"]
        for b in r["completions"]
        if a != b
    }
    assert len(store.answers()) == len(asked), "each pair once, in one order"
    # The round's file is itself something to compare.
    files = sorted((tmp_path / "run" / "rounds").glob("*.jsonl"))
    pairs = [pair for path in files for pair in answer_pairs(load_rows(path))]
    assert {(x, *sorted([a, b])) for x, a, b in pairs} == asked
    assert any(line.startswith("people answered ") for line in told)


def test_a_run_that_was_stopped_while_it_waited_goes_on(tmp_path, page):
    """The same run at once, and in two parts with the answers given in between."""
    store, start, _ = page

    def stop(message):
        raise Died

    with pytest.raises(Died):
        make(tmp_path / "run", oracle=Human(store.path, tell=stop), **OPTIONS).train()
    wanted = store.standing().wanted
    assert wanted > 0, "its questions stay"
    start()
    trainer = make(tmp_path / "run", oracle=Human(store.path, poll=0.02), **OPTIONS)
    trainer.train(resume_from_checkpoint=True)
    check_votes(games(tmp_path / "run"))
    answers = store.answers()
    assert len({a.pair for a in answers}) == len(answers)
    count = len(answers)
    again = make(tmp_path / "again", oracle=Human(store.path, poll=0.02), **OPTIONS)
    again.train()
    assert len(store.answers()) == count, "a rerun asks nothing twice"
    for name, value in weights(again).items():
        assert torch.equal(value, weights(trainer)[name])


def test_pairs_nobody_was_asked_about_are_left_out_of_training(tmp_path, page):
    store, start, _ = page
    start()
    oracle = Human(store.path, poll=0.02, budget=3)
    trainer = make(tmp_path / "run", oracle=oracle, **OPTIONS)
    trainer.train()
    rows = games(tmp_path / "run")
    assert any(p is None for row in rows for line in row["prefs"] for p in line)
    assert all(bool(torch.isfinite(w).all()) for w in weights(trainer).values())
