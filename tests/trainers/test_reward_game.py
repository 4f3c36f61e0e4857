"""STA-RLHF and relatives: gradients against the tabular game, and the order of every move."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import TrainerCallback

from equilign.errors import ConfigError, DataError
from equilign.methods import get_method
from equilign.oracles import Ensemble
from equilign.play.reward_game import fit_reward, policy_gradient, response_term, reward_gradient
from equilign.tasks.word_collector import WordCollector
from equilign.trainers.game_trainer import GameConfig
from equilign.trainers.reward_game_config import PAPER, PAPER_SEEDS, RewardGameConfig
from tests.enumerable import TEXTS, MatrixOracle, random_prefs
from tests.trainers.reward_games import FAMILY, Tables, build
from tests.trainers.scored import (
    PROMPTS,
    TableReward,
    distance,
    flat_gradient,
    objective,
    policy_of,
    shake,
    table_rewards,
)

BETA, RIDGE = 0.5, 0.02


def cyclic():
    return MatrixOracle({p: random_prefs(i) for i, p in enumerate(PROMPTS)})


def truth():
    """A Bradley-Terry world."""
    rewards = table_rewards()
    return MatrixOracle(
        {p: 1.0 / (1.0 + np.exp(r[None, :] - r[:, None])) for p, r in rewards.items()}
    )


def fitted(oracle, model, ridge=RIDGE):
    """The reward that the trainer's objective has its maximum at, prompt by prompt."""
    # The likelihood is a mean over two prompts, the ridge is not.
    laws = policy_of(model)
    return np.stack([
        fit_reward(oracle.games[p], np.exp(laws[p]), ridge * len(PROMPTS)) for p in PROMPTS
    ])  # fmt: skip


def at_the_fit(folder, name, oracle, ridge=RIDGE, **options):
    """A trainer in the middle of a round: the reward fitted, the rows told what they are worth."""
    undamped = {"damping": 0.0, "relative_damping": 0.0}
    trainer = build(folder, name, oracle=oracle, ridge=ridge, beta=BETA, **undamped, **options)
    start = policy_of(trainer.policy)
    trainer.start_round(0)
    shake(trainer.policy)
    (player,) = trainer.players.values()
    with torch.no_grad():
        player.function.table.copy_(torch.tensor(fitted(oracle, trainer.policy, ridge)))
    rows = trainer.play_chunk(0, 0, [0, 1])
    rows = json.loads(json.dumps(rows))
    worth = trainer.side.valued(
        rows, trainer.side.annotated(rows, 0), total=trainer.rule.total_derivative
    )
    for row, told in zip(rows, worth, strict=True):
        row.update(told)
    return trainer, start, rows


def gradient(trainer, rows):
    loss, _ = trainer.batch_loss(trainer.policy, rows)
    return -flat_gradient(loss, trainer.policy)


# -- the gradient ---------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", ["none", "mean"])
def test_naive_is_the_partial_derivative(tmp_path, baseline):
    oracle = cyclic()
    trainer, start, rows = at_the_fit(tmp_path, "sta-naive", oracle, baseline=baseline)
    rewards = dict(zip(PROMPTS, fitted(oracle, trainer.policy), strict=True))
    expected = flat_gradient(objective(trainer.policy, start, rewards, BETA), trainer.policy)
    assert distance(gradient(trainer, rows), expected) < 1e-6
    assert float(expected.norm()) > 1e-2


@pytest.mark.parametrize("solver", ["woodbury", "cg"])
def test_total_is_the_derivative_of_the_objective_with_its_fit(tmp_path, solver):
    """By finite differences, the reward fitted anew at every point."""
    oracle = cyclic()
    trainer, start, rows = at_the_fit(
        tmp_path, "sta-total", oracle, solver=solver, cg_iterations=60
    )
    found = gradient(trainer, rows)
    policy = trainer.policy
    naive = flat_gradient(
        objective(policy, start, dict(zip(PROMPTS, fitted(oracle, policy), strict=True)), BETA),
        policy,
    )

    def value():
        rewards = dict(zip(PROMPTS, fitted(oracle, policy), strict=True))
        return float(objective(policy, start, rewards, BETA).detach())

    generator = torch.Generator().manual_seed(0)
    directions = [naive, found, *torch.randn(2, len(found), generator=generator).double()]
    for direction in directions:
        along = direction / direction.norm()
        step, ends = 1e-4, []
        for sign in (1.0, -1.0):
            move(policy, sign * step * along)
            ends.append(value())
            move(policy, -sign * step * along)
        want = (ends[0] - ends[1]) / (2 * step)
        assert abs(float(found @ along) - want) < 1e-4 * float(found.norm())
    assert distance(found, naive) > 0.05, "the correction is nothing; the test is vacuous"


def move(model, by):
    start = 0
    with torch.no_grad():
        for p in model.parameters():
            p.add_(by[start : start + p.numel()].view_as(p))
            start += p.numel()


def test_bradley_terry_truth_needs_no_correction(tmp_path):
    runs = []
    for name in ("sta-naive", "sta-total"):
        trainer, _, rows = at_the_fit(tmp_path / name, name, truth(), ridge=1e-8)
        runs.append(gradient(trainer, rows))
    assert distance(runs[1], runs[0]) < 1e-4
    biased, _, rows = at_the_fit(tmp_path / "c", "sta-total", truth(), ridge=0.05)
    assert distance(gradient(biased, rows), runs[0]) > 1e-2


def test_responses_are_those_of_the_matrix_game(tmp_path):
    oracle = cyclic()
    trainer, _, rows = at_the_fit(tmp_path, "sta-total", oracle)
    for row in rows:
        prefs, pi = oracle.games[row["prompt"]], np.array(row["weights"])
        reward = fit_reward(prefs, pi, RIDGE * 2)
        expected = response_term(prefs, pi, reward, RIDGE * 2)
        found = policy_gradient(pi, np.array(row["responses"]))
        np.testing.assert_allclose(found, expected, atol=1e-7)
    assert trainer.side.told["response_rms"] > 1e-4


def test_samples_of_all_pairs_share_their_responses(tmp_path):
    """Of K samples: twice the mean gain of the pairs with the others (a U-statistic)."""
    trainer = build(tmp_path, "sta-total", listed=False, reward_model=Tables(), pairs="all",
                    labels="soft", oracle=cyclic_spoken())  # fmt: skip
    trainer.start_round(0)
    rows = trainer.play_chunk(0, 0, [0, 1])
    with torch.no_grad():
        trainer.players["reward"].function.table.normal_()
    batches = trainer.side.annotated(rows, 0)
    player = trainer.players["reward"]
    shares = [[0.125] * 4] * 2
    flat, found = player.response(
        batches["reward"], shares, solver="woodbury", damping=0.1, iterations=0
    )
    from equilign.trainers.reward_player import spread

    extra, _ = spread(flat, found, [row["weights"] for row in rows], selected=False)
    for x in range(2):
        gains = np.zeros((4, 4))
        for place, (i, j, _) in enumerate(batches["reward"].pairs[x]):
            gains[i, j] = gains[j, i] = found.gain[place + 6 * x]
        np.testing.assert_allclose(extra[x], 2.0 * gains.sum(axis=1) / 3.0, atol=1e-9)


def cyclic_spoken():
    from tests.trainers.scored import SPOKEN

    return MatrixOracle({p: random_prefs(i) for i, p in enumerate(PROMPTS)}, SPOKEN)


# -- steps ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 2])
def test_a_reward_step_is_the_matrix_games(tmp_path, size):
    """Plain gradient ascent, however many answers are read at a time."""
    oracle = cyclic()
    trainer = build(tmp_path, "sta-naive", oracle=oracle, ridge=RIDGE, reward_batch_size=size,
                    reward_learning_rate=0.7)  # fmt: skip
    trainer.start_round(0)
    rows = trainer.play_chunk(0, 0, [0, 1])
    batches = trainer.side.annotated(rows, 0)
    expected = np.zeros((2, len(TEXTS)))
    for _ in range(3):
        for x, row in enumerate(rows):
            pi = np.array(row["weights"])
            slope = reward_gradient(oracle.games[row["prompt"]], pi, expected[x], RIDGE * 2)
            expected[x] = expected[x] + 0.7 * slope / 2
        trainer.side.step(batches)
    found = trainer.players["reward"].function.table.detach()
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.abs(expected).max() > 1e-2


class Diary(TrainerCallback):
    """S: samples. R: the reward steps. V: it says what answers are worth. T: its response.
    P: the policy steps."""

    def __init__(self):
        self.moves = ""

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.moves += "P"

    def watch(self, trainer):
        player = trainer.players["reward"]
        places = ((trainer.sampler, "sample", "S"), (player, "step", "R"),
                  (player, "rewards", "V"), (player, "response", "T"))  # fmt: skip
        for owner, name, letter in places:
            setattr(owner, name, self.told(getattr(owner, name), letter))

    def told(self, function, letter):
        def wrapped(*args, **kwargs):
            self.moves += letter
            return function(*args, **kwargs)

        return wrapped


ORDERS = {
    "sta-naive": "SRRRVP SRRRVP SRRRVP SRRRVP",
    "sta-total": "SRRRVTP SRRRVTP SRRRVTP SRRRVTP",
    "simultaneous": "SVRP SVRP SVRP SVRP",
    "reversed": "SVPPP SRVPPP SRVPPP SRVPPP SR",
    "parl": "SVP SVP SVP SRVP SVP SVP SR",
    "rlhf": "S RRRR SVP SVP SVP SVP",
}


@pytest.mark.parametrize("name", ORDERS)
def test_moves_come_in_the_order_of_the_rule(tmp_path, name):
    diary = Diary()
    rounds = 6 if name == "parl" else 4
    trainer = build(tmp_path, name, num_rounds=rounds, inner_steps=3, fit_batches=2, fit_epochs=2,
                    chunk_prompts=4, callbacks=[diary])  # fmt: skip
    diary.watch(trainer)
    trainer.train()
    assert diary.moves == ORDERS[name].replace(" ", "")
    rule = trainer.rule
    assert rule is FAMILY[name][0].rule
    assert rule.name == name == trainer.method


def test_the_old_reward_is_that_from_before_the_step(tmp_path):
    """Simultaneous: the first policy step knows nothing of the first pairs."""
    runs = {}
    for name in ("simultaneous", "sta-naive"):
        trainer = build(tmp_path / name, name, num_rounds=1, inner_steps=1, beta=0.0,
                        reward_learning_rate=1.0, learning_rate=0.1, optim="sgd")  # fmt: skip
        before = policy_of(trainer.policy)
        trainer.train()
        after = policy_of(trainer.policy)
        runs[name] = max(np.abs(after[p] - before[p]).max() for p in PROMPTS)
        assert float(trainer.players["reward"].function.table.detach().abs().max()) > 1e-2
    assert runs["simultaneous"] == 0.0
    assert runs["sta-naive"] > 1e-4


def test_reversed_reuses_its_batch_and_parl_does_not(tmp_path):
    for name in ("reversed", "parl"):
        trainer = build(tmp_path / name, name, num_rounds=4, inner_steps=2, learning_rate=0.01)
        trainer.train()
        files = sorted(p.name for p in (tmp_path / name / "rounds").iterdir())
        assert files == [f"{name}-{i:03d}.jsonl" for i in range(1, 6)]
        steps = trainer.state.global_step
        assert steps == (8 if name == "reversed" else 4)
        assert trainer.players["reward"].steps == (4 if name == "reversed" else 2)


@pytest.mark.slow
def test_rlhf_ends_at_the_optimum_of_its_reward(tmp_path):
    from equilign.rules.reward_gradient import regularised_optimum

    trainer = build(tmp_path, "rlhf", num_rounds=150, learning_rate=0.005, optim="adamw_torch",
                    reward_learning_rate=5.0, fit_batches=1, fit_epochs=200,
                    ridge=1e-4)  # fmt: skip
    start = policy_of(trainer.policy)
    trainer.train()
    now = policy_of(trainer.policy)
    table = trainer.players["reward"].function.table.detach().numpy()
    for p, reward in zip(PROMPTS, table, strict=True):
        goal = np.exp(regularised_optimum(start[p], reward, 0.5))
        np.testing.assert_allclose(np.exp(now[p]), goal, atol=0.01)
        assert np.abs(np.exp(start[p]) - goal).max() > 0.05


# -- several annotators ---------------------------------------------------------------------


def test_two_who_agree_are_one(tmp_path):
    one = MatrixOracle(cyclic_spoken().games, cyclic_spoken().texts)
    both = Ensemble({"x": one, "y": one}, {"x": 3.0, "y": 1.0})
    runs = []
    for oracle, options in ((one, {}), (both, {"followers": "members", "aggregation": "mean"}),
                            (both, {"followers": "members", "aggregation": "min"})):  # fmt: skip
        torch.manual_seed(0)
        trainer = build(tmp_path / str(len(runs)), "sta-total", oracle=oracle, listed=False,
                        reward_model="head", num_rounds=2, learning_rate=0.01, labels="soft",
                        reward_learning_rate=0.1, **options)  # fmt: skip
        trainer.train()
        runs.append(trainer)
    assert list(runs[1].players) == ["x", "y"]
    expected = policy_of(runs[0].policy)
    for trainer in runs[1:2]:
        for p in PROMPTS:
            np.testing.assert_allclose(policy_of(trainer.policy)[p], expected[p], atol=1e-3)
    # Of equals, the first is the least.
    assert np.isfinite([*policy_of(runs[2].policy).values()]).all()


def test_the_least_of_several_is_one_of_them(tmp_path):
    oracle = Ensemble({"x": cyclic_spoken(), "y": TableReward(table_rewards())})
    trainer = build(tmp_path, "sta-naive", oracle=oracle, listed=False, reward_model="head",
                    followers="members", aggregation="min")  # fmt: skip
    rewards = np.array([[1.0, 2.0, 6.0], [0.5, -1.5, 1.0]])
    least, shares = trainer.side.aggregate(rewards)
    np.testing.assert_allclose(least, [-2.0, -1.5, 1.0])
    np.testing.assert_allclose(shares, [[1, 0, 0], [0, 1, 1]])
    shifted, _ = trainer.side.aggregate(rewards + np.array([[5.0], [-3.0]]))
    np.testing.assert_allclose(shifted, least)


# -- options --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inner_steps": 0}, "inner_steps = 0; it must be >= 1"),
        ({"pairs": "some"}, "pairs = 'some'; use 'best_worst' or 'all'"),
        ({"labels": "x"}, "labels = 'x'"),
        ({"ridge": -1.0}, "ridge = -1.0"),
        ({"ridge": 0.0, "damping": 0.0}, "determined up to a constant"),
        ({"reward_learning_rate": 0.0}, "reward_learning_rate = 0.0"),
        ({"epochs_per_round": 2}, "set inner_steps"),
        ({"reward_lora_rank": 0}, "reward_lora_rank = 0"),
        ({"cg_iterations": 0}, "cg_iterations = 0"),
        ({"beta": -0.1}, "beta = -0.1"),
        ({"relative_damping": -1.0}, "relative_damping = -1.0; it must be >= 0"),
        ({"reward_batch_size": 1}, "reward_batch_size = 1"),
    ],
)
def test_bad_options_name_themselves(tmp_path, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        RewardGameConfig(output_dir=str(tmp_path), use_cpu=True, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy_samples": "pair", "pairs": "all"}, "no single pair"),
        ({"followers": "members"}, "needs an ensemble oracle"),
        ({"oracle": WordCollector(["zebra", "apple"])}, "cannot write 2 of the 2 target words"),
        ({"pairs": "best_worst", "listed": True}, "listed answers have no best and worst"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        build(tmp_path, "sta-naive", **{"listed": False, "num_rounds": 1, **options}).train()


def test_the_papers_settings_are_settings(tmp_path):
    args = FAMILY["sta-total"][1](output_dir=str(tmp_path), use_cpu=True, **PAPER)
    assert (args.beta, args.inner_steps, args.num_generations) == (0.1, 5, 4)
    assert (args.max_completion_length, args.prompts_per_round) == (75, 16)
    assert FAMILY["reversed"][1](output_dir=str(tmp_path), inner_steps=7).epochs_per_round == 7


def test_the_papers_recipe_says_the_same():
    path = Path(__file__).parents[2] / "recipes" / "sta_paper" / "sta-total.yaml"
    args = yaml.safe_load(path.read_text())["args"]
    assert {name: args[name] for name in PAPER} == PAPER
    assert args["seed"] in PAPER_SEEDS


def test_a_round_is_one_policy_step_unless_said_otherwise(tmp_path):
    args = RewardGameConfig(output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=3,
                            gradient_accumulation_steps=2)  # fmt: skip
    assert args.prompts_per_round == 6


def test_every_option_has_help_and_is_read():
    source = "".join(p.read_text() for p in Path("src/equilign/trainers").glob("reward_*.py"))
    for field in RewardGameConfig.__dataclass_fields__.values():
        if field.name not in GameConfig.__dataclass_fields__:
            assert field.metadata.get("help"), field.name
            assert re.search(rf"(?:args|config|self)\.{field.name}\b", source), field.name


def test_they_are_methods():
    for name, classes in FAMILY.items():
        assert get_method(name).load() == classes


def test_prompts_longer_than_the_context_are_an_error(tmp_path):
    prompts = ["b a", "a b " * 40]
    with pytest.raises(DataError, match=r"prompt 2 .* 80 tokens.* context of 16"):
        build(tmp_path, "sta-naive", listed=False, prompts=prompts)
