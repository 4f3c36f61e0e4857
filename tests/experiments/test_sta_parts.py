"""The parts of the STA-RLHF reproduction, each on its own."""

import json
from dataclasses import replace

import numpy as np
import pytest

from equilign.errors import ConfigError, RunDirectoryError
from equilign.experiments.sta import pieces, results, run
from equilign.experiments.sta.charts import deviation, running_mean
from equilign.experiments.sta.contestants import CONTESTANTS, DPO, NAIVE, REVERSED, TIMED
from equilign.experiments.sta.pareto import front, heights_over, mixture
from equilign.experiments.sta.pieces import GIVEN, Setting, answer_start, given_pairs, train_piece
from equilign.experiments.sta.scales import SCALES, get_scale
from equilign.experiments.sta.tasks import CONSTRAINED, NOUNS, TASKS, WORDS, task_named, utilities
from equilign.experiments.sta.watching import START
from equilign.formats import preference_pairs
from equilign.methods import get_method
from equilign.rollout import Completion, Group
from equilign.tasks.stories import story_prompts
from equilign.tasks.word_collector import WordCollector

TINY = SCALES["tiny"]


# -- fronts -------------------------------------------------------------------------------------


def test_a_front_has_no_dominated_point():
    kl, reward = [0.0, 2.0, 1.0, 3.0, 2.5], [1.0, 2.0, 1.5, 1.9, 2.0]
    assert front(kl, reward) == [0, 2, 1]
    # Of points as near as each other the better one, of equal ones the first.
    assert front([1.0, 1.0, 1.0], [0.5, 0.7, 0.7]) == [1]


def test_every_point_left_out_is_dominated():
    rng = np.random.default_rng(0)
    kl, reward = rng.random(40), rng.random(40)
    kept = front(kl.tolist(), reward.tolist())
    for i in range(40):
        better = [(kl[j] <= kl[i]) and (reward[j] >= reward[i]) for j in kept if j != i]
        assert any(better) != (i in kept)


@pytest.mark.parametrize(
    ("at", "wanted"),
    [(0.0, [1, 0, 0]), (0.5, [0.5, 0.5, 0]), (1.0, [0, 1, 0]), (2.5, [0, 0.25, 0.75])],
)
def test_neighbours_are_mixed_to_the_distance(at, wanted):
    found = mixture([0.0, 1.0, 3.0], at)
    np.testing.assert_allclose(found, wanted)
    assert found @ [0.0, 1.0, 3.0] == pytest.approx(at)


def test_beyond_the_farthest_point_it_stands_alone():
    np.testing.assert_array_equal(mixture([0.0, 1.0], 7.0), [0.0, 1.0])
    with pytest.raises(ValueError, match="more than"):
        mixture([0.5, 1.0], 0.2)


def _flat(reward):
    """Two seeds, the points, three prompts."""
    return np.tile(np.array(reward, dtype=float)[None, :, None], (2, 1, 3))


def test_height_is_that_over_the_others_points():
    kl = np.tile([0.0, 2.0], (2, 1))
    mine, other = _flat([1.0, 5.0]), _flat([1.0, 2.0])
    other_kl = np.tile([0.0, 1.0], (2, 1))
    # On the line from (0, 1) to (2, 5) there is 3 at distance 1.
    np.testing.assert_allclose(heights_over(kl, mine, other_kl, other), 1.0)
    # Beyond mine: 5 at distance 2 against 2 at distance 4.
    np.testing.assert_allclose(heights_over(kl, mine, 4 * other_kl, other), 3.0)
    # The other way round: of (2, 5) the other one reaches 2.
    np.testing.assert_allclose(heights_over(other_kl, other, kl, mine), -3.0)


def test_height_is_told_at_each_point():
    kl = np.tile([0.0, 1.0, 2.0], (2, 1))
    found = heights_over(kl, _flat([0.0, 3.0, 4.0]), kl, _flat([0.0, 1.0, 5.0]))
    assert found.shape == (2, 2, 3)
    np.testing.assert_allclose(found[:, 0, 0], [2.0, -1.0])


def test_one_who_never_improved_is_compared_with_as_the_start():
    kl = np.tile([0.0, 2.0], (2, 1))
    found = heights_over(kl, _flat([1.0, 5.0]), kl, _flat([1.0, 0.5]))
    np.testing.assert_allclose(found, 4.0)


def test_heights_keep_seeds_and_prompts_apart():
    rng = np.random.default_rng(1)
    mine, other = rng.random((3, 2, 4)), rng.random((3, 2, 4))
    mine[:, 1] += 2.0
    other[:, 1] += 1.0
    kl = np.tile([0.0, 1.0], (3, 1))
    (found,) = heights_over(kl, mine, kl, other)
    np.testing.assert_allclose(found, mine[:, 1] - other[:, 1])


# -- who and what ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_evaluations_are_at_equal_distances(scale):
    assert scale.between * scale.evaluations == scale.rounds
    assert scale.rounds * scale.batch >= scale.fit_batches


def test_an_unknown_scale_is_refused():
    with pytest.raises(ConfigError, match="no scale 'huge'; there are: tiny, quick, full"):
        get_scale("huge")


@pytest.mark.parametrize("who", [*CONTESTANTS, TIMED], ids=lambda c: c.name)
def test_options_fit_the_method(who, tmp_path):
    scale = SCALES["quick"]
    _, config_class = get_method(who.method).load()
    each = who.batches_per_round(scale)
    args = config_class(
        output_dir=str(tmp_path),
        use_cpu=True,
        num_rounds=scale.rounds // each,
        prompts_per_round=scale.batch * each,
        per_device_train_batch_size=scale.batch,
        **who.options(scale),
    )
    passes = args.epochs_per_round * args.prompts_per_round // scale.batch
    assert passes == who.steps_per_round(scale)
    assert args.num_rounds * args.prompts_per_round == scale.rounds * scale.batch
    assert args.learning_rate == scale.learning_rate
    if who.on_policy:
        assert args.num_generations == scale.answers


def test_titles_and_names_are_distinct():
    everyone = [*CONTESTANTS, TIMED]
    assert len({c.name for c in everyone}) == len({c.title for c in everyone}) == 10


def test_tasks_score_every_answer_for_its_prompt():
    group = _group("Give me time.", ["I want new data.", "Give me time.", "x"])
    assert [t.name for t in TASKS] == [
        "word-collector",
        "constrained-word-collector",
        "unique-nouns",
    ]
    (words,) = utilities(task_named(WORDS.name).make(), [group])
    np.testing.assert_array_equal(words, [3.0, 2.0, 0.0])
    (kept,) = utilities(CONSTRAINED.make(), [group])
    np.testing.assert_array_equal(kept, [3.0, 0.0, 0.0])
    (nouns,) = utilities(NOUNS.make(), [group])
    assert nouns.shape == (3,)


def _group(prompt, texts):
    return Group(
        [{"role": "user", "content": prompt}], (), tuple(Completion((), t, True) for t in texts)
    )


def test_pairs_are_best_and_worst_and_ties_are_replaced():
    oracle = WordCollector(["new", "data"])
    groups = [
        _group("a", ["x", "new data", "new"]),
        _group("b", ["new", "data"]),
        _group("c", ["data", "x"]),
    ]
    found = preference_pairs(given_pairs(groups, oracle, 5))
    assert [(p.chosen, p.rejected) for p in found] == [
        ("new data", "x"),
        ("data", "x"),
        ("new data", "x"),
        ("data", "x"),
        ("new data", "x"),
    ]
    assert {p.chosen_prob for p in found} == {1.0}


def test_where_all_tie_nothing_can_be_learnt():
    (one,) = preference_pairs(given_pairs([_group("b", ["x", "y"])], WordCollector(), 1))
    assert one.chosen_prob == 0.5


def test_running_means_and_deviations():
    np.testing.assert_allclose(running_mean(np.array([[2.0, 4.0, 9.0]])), [[2.0, 3.0, 5.0]])
    np.testing.assert_allclose(deviation(np.array([[1.0, 5.0], [3.0, 5.0]])), [2**0.5, 0.0])
    np.testing.assert_array_equal(deviation(np.array([[1.0, 5.0]])), [0.0, 0.0])


# -- one training -------------------------------------------------------------------------------


MICRO = replace(TINY, max_tokens=8, answers=2, inner_steps=1)


def setting_at(folder, scale=MICRO):
    return Setting(folder, scale, story_prompts("align")[:4], story_prompts("evaluate")[:2])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A setting with the start's answers and STA naive."""
    setting = setting_at(tmp_path_factory.mktemp("sta"))
    told = []
    answer_start(setting, 5, tell=lambda *x: None)
    train_piece(setting, NOUNS.name, _who(NAIVE), 5, tell=lambda *x: told.append(x))
    return setting, told


def _who(name):
    return next(c for c in CONTESTANTS if c.name == name)


def test_a_piece_has_every_evaluation(trained):
    setting, told = trained
    piece = setting.read_piece(f"{NOUNS.name}.{NAIVE}", 5)
    assert [e["examples"] for e in piece["evaluations"]] == [0, 2, 4]
    assert piece["evaluations"][0]["kl_nats"] == 0.0
    assert piece["evaluations"][2]["kl_nats"] != 0.0
    assert all(len(e["reward"]) == 2 for e in piece["evaluations"])
    assert piece["played"]["examples"] == [2.0, 4.0]
    assert piece["learning"]["round"] == [1, 2]
    assert len(piece["learning"]["reward_loss"]) == 2
    assert piece["rounds"] == 2
    assert 0.0 < sum(piece["cpu_per_round"]) <= piece["cpu_seconds"]
    assert len(piece["samples"]) == 2
    assert told == [(1, 2), (2, 2)]
    assert not (setting.folder / "training" / f"{NOUNS.name}.{NAIVE}-seed-5").exists()


def test_a_finished_piece_is_left_alone(trained):
    setting, _ = trained
    path = setting.piece_file(f"{NOUNS.name}.{NAIVE}", 5)
    kept = path.stat().st_mtime_ns
    train_piece(setting, NOUNS.name, _who(NAIVE), 5, tell=lambda *x: pytest.fail("trained"))
    answer_start(setting, 5, tell=lambda *x: pytest.fail("sampled"))
    assert path.stat().st_mtime_ns == kept


def test_the_starts_answers_are_kept_for_dpo(trained):
    setting, _ = trained
    assert len(setting.load_answers(START, 5)) == 2
    given = setting.load_answers(GIVEN, 5)
    assert len(given) == 4
    assert {len(g.completions) for g in given} == {MICRO.answers}
    assert setting.read_piece(START, 5)["cpu_seconds"] > 0.0


class Stop(Exception):
    pass


@pytest.mark.parametrize("name", [REVERSED, DPO])
def test_a_stopped_piece_goes_on_to_the_same_answers(trained, tmp_path, name):
    found = []
    for stopped in (False, True):
        setting = setting_at(tmp_path / str(stopped))
        answer_start(setting, 5, tell=lambda *x: None)

        def run_piece(tell, setting=setting):
            train_piece(setting, NOUNS.name, _who(name), 5, tell=tell)

        if stopped:

            def stop(done, total):
                if done == 2:
                    raise Stop

            with pytest.raises(Stop):
                run_piece(stop)
        run_piece(lambda *x: None)
        piece = setting.read_piece(f"{NOUNS.name}.{name}", 5)
        found.append([piece["evaluations"], piece["played"], piece["samples"]])
    assert found[0] == found[1]


def test_an_unreadable_piece_is_named(trained, tmp_path):
    setting = setting_at(tmp_path)
    with pytest.raises(RunDirectoryError, match=r"sta-naive-seed-5\.json: .*delete"):
        results.read_results(setting, [5])


def test_whole_seeds_come_first(tmp_path):
    starts, trainings = run.stages(setting_at(tmp_path), [467, 532])
    assert [w.arguments["seed"] for w in starts] == [467, 532]
    assert len(trainings) == 2 * 3 * 10
    assert [w.arguments["seed"] for w in trainings] == [467] * 30 + [532] * 30
    assert sum(w.function is pieces.time_piece for w in trainings) == 6
    json.dumps([w.title for w in trainings])
    assert len({w.title for w in trainings}) == 60
