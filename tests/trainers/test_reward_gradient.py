"""REINFORCE and RLOO: the exact gradient, the closed form, and what TRL does with the same data."""

import itertools
import json
import math
import re

import numpy as np
import pytest
import torch

from equilign.errors import ConfigError, OracleError
from equilign.oracles import CallableOracle
from equilign.rollout import Completion, Group, SamplingConfig, TransformersSampler
from equilign.rollout.generate import cut_at_end
from equilign.rules.reward_gradient import REINFORCE, RLOO, regularised_optimum
from equilign.trainers.reward_gradient import (
    ReinforceConfig,
    ReinforceTrainer,
    RLOOConfig,
    RLOOTrainer,
)
from equilign.trainers.reward_source import choose_reward, group_rewards
from tests.enumerable import END, RESPONSES, TEXTS, MatrixOracle, random_prefs, tiny_model
from tests.trainers.scored import (
    PROMPTS,
    TableReward,
    build,
    distance,
    flat_gradient,
    objective,
    policy_of,
    prompt_ids,
    shake,
    table_rewards,
)


def group(prompt, *which, weights=()):
    answers = tuple(
        Completion(RESPONSES[i], TEXTS[i], cut_at_end(RESPONSES[i], frozenset({END}))[1])
        for i in which
    )
    return Group(prompt, prompt_ids(prompt), answers, weights)


class Scripted:
    """Answers with given responses, in turn."""

    def __init__(self, *choices):
        self.choices = choices

    def sample(self, prompts, num_samples, seed):
        return [group(p, *c) for p, c in zip(prompts, itertools.cycle(self.choices), strict=False)]


def ready(trainer):
    """At the start of its first round, with a policy that is not the reference any more."""
    start = policy_of(trainer.policy)
    trainer.start_round(0)
    shake(trainer.policy)
    return start


# -- the gradient ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rloo", {}),
        ("reinforce", {}),
        ("reinforce", {"baseline": "none"}),
        ("reinforce", {"baseline": "constant", "baseline_value": 0.5}),
        ("rloo", {"epsilon": None}),
    ],
)
def test_one_step_is_the_exact_gradient(tmp_path, name, options):
    trainer = build(tmp_path, name, **options)
    start = ready(trainer)
    expected = flat_gradient(objective(trainer.policy, start, table_rewards(), 0.5), trainer.policy)
    rows = trainer.play_chunk(0, 0, [0, 1])
    loss, _ = trainer.batch_loss(trainer.policy, json.loads(json.dumps(rows)))
    assert distance(-flat_gradient(loss, trainer.policy), expected) < 1e-6
    assert float(expected.norm()) > 1e-2


@pytest.mark.parametrize("name", ["rloo", "reinforce"])
def test_two_samples_are_unbiased_over_all_pairs(tmp_path, name):
    """The mean gradient over all 49 groups of two, each with its probability."""
    trainer = build(tmp_path, name, sampler=Scripted(), chunk_prompts=1)
    start = ready(trainer)
    rewards = {p: table_rewards()[PROMPTS[0]] for p in PROMPTS}
    trainer._oracle = TableReward(rewards)
    law = np.exp(policy_of(trainer.policy)[PROMPTS[0]])
    total = 0.0
    for i, j in itertools.product(range(len(RESPONSES)), repeat=2):
        trainer.sampler = Scripted((i, j))
        loss, _ = trainer.batch_loss(trainer.policy, trainer.play_chunk(0, 0, [0]))
        total = total + law[i] * law[j] * loss
    from equilign.rollout import completion_logps

    ids = [prompt_ids(PROMPTS[0])] * len(RESPONSES)
    logps = completion_logps(trainer.policy, ids, RESPONSES, pad_id=END)
    worth = torch.tensor(rewards[PROMPTS[0]]) - 0.5 * (logps - torch.tensor(start[PROMPTS[0]]))
    expected = flat_gradient((logps.exp() * worth).sum(), trainer.policy)
    assert distance(-flat_gradient(total, trainer.policy), expected) < 1e-6


def test_the_reference_is_the_start_and_not_the_policy(tmp_path):
    trainer = build(tmp_path, "rloo")
    start = ready(trainer)
    rows = trainer.play_chunk(0, 0, [0, 1])
    now = policy_of(trainer.policy)
    for p, row in zip(PROMPTS, rows, strict=True):
        np.testing.assert_allclose(row["logps"]["reference"], start[p], atol=1e-6)
        np.testing.assert_allclose(row["logps"]["current"], now[p], atol=1e-6)
        assert np.abs(now[p] - start[p]).max() > 0.01


def test_batch_loss_does_not_depend_on_the_batch(tmp_path):
    trainer = build(tmp_path, "rloo")
    ready(trainer)
    rows = trainer.play_chunk(0, 0, [0, 1])
    rows[0]["prompt_ids"] = [1, 2, 2, 1]  # another length: padding appears
    shake(trainer.policy, seed=1)
    whole, _ = trainer.batch_loss(trainer.policy, rows)
    parts = [trainer.batch_loss(trainer.policy, [row])[0] for row in rows]
    torch.testing.assert_close(whole, sum(parts) / 2, rtol=1e-6, atol=0.0)


# -- whole runs -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reinforce", "rloo"])
def test_runs_converge_to_the_closed_form(tmp_path, name):
    trainer = build(tmp_path, name, num_rounds=60, epochs_per_round=4, learning_rate=0.005)
    start = policy_of(trainer.policy)
    trainer.train()
    now = policy_of(trainer.policy)
    for p in PROMPTS:
        goal = np.exp(regularised_optimum(start[p], table_rewards()[p], 0.5))
        np.testing.assert_allclose(np.exp(now[p]), goal, atol=0.01)
        assert np.abs(np.exp(start[p]) - goal).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reinforce", "rloo", "ppo"])
def test_sampled_runs_come_near_the_closed_form(tmp_path, name):
    """Real samples in place of expectations."""
    model = tiny_model(seed=3, spread=0.4)
    from tests.enumerable import tiny_tokenizer

    sampler = TransformersSampler(model, tiny_tokenizer(), SamplingConfig(max_new_tokens=2))
    trainer = build(
        tmp_path, name, model=model, sampler=sampler,
        num_rounds=200, num_generations=32, learning_rate=0.01,
    )  # fmt: skip
    start = policy_of(model)
    trainer.train()
    now = policy_of(model)
    for p in PROMPTS:
        goal = np.exp(regularised_optimum(start[p], table_rewards()[p], 0.5))
        assert np.abs(np.exp(now[p]) - goal).max() < 0.06
        assert np.abs(np.exp(start[p]) - goal).max() > 0.1


# -- rewards --------------------------------------------------------------------------------


def test_auto_prefers_the_score(tmp_path):
    scored, compared = TableReward(table_rewards()), CallableOracle(lambda x, a, b: 0.5)
    assert choose_reward(scored, "auto") == "score"
    assert choose_reward(scored, "win_rate") == "win_rate"
    assert choose_reward(compared, "auto") == "win_rate"
    with pytest.raises(ConfigError, match=r"CallableOracle has no score.*'win_rate'"):
        choose_reward(compared, "score")
    with pytest.raises(ConfigError, match="reward = 'score'"):
        build(tmp_path, "rloo", oracle=compared, reward="score")


def test_win_rates_against_the_other_samples():
    game = random_prefs(0)
    oracle = MatrixOracle({"a b": game})
    (found,) = group_rewards(oracle, "win_rate", [group("a b", 0, 3, 5)])
    expected = [(game[0, 3] + game[0, 5]) / 2, (game[3, 0] + game[3, 5]) / 2]
    np.testing.assert_allclose(found[:2], expected)
    weights = tuple(np.arange(1.0, 8.0) / 28.0)
    (found,) = group_rewards(oracle, "win_rate", [group("a b", *range(7), weights=weights)])
    np.testing.assert_allclose(found, game @ np.array(weights))


def test_missing_verdicts_are_left_out_and_never_made_up():
    class Shy:
        abstains = True

        def compare(self, prompts, a, b):
            return np.array([self.verdict(x, y) for x, y in zip(a, b, strict=True)])

        def verdict(self, x, y):
            if TEXTS[2] in (x, y) or {x, y} == {TEXTS[0], TEXTS[1]}:
                return math.nan
            return 0.2 if x == TEXTS[3] else 0.8

    (found,) = group_rewards(Shy(), "win_rate", [group("a b", 0, 1, 2, 3)])
    np.testing.assert_allclose(found, [0.8, 0.8, math.nan, 0.2])


def test_scores_are_checked_and_asked_once():
    asked = []

    class Bad(TableReward):
        def score(self, prompts, answers):
            asked.append(list(answers))
            return super().score(prompts, answers)

    rewards = table_rewards()
    groups = [group("a b", 3, 3, 4)]
    (found,) = group_rewards(Bad(rewards), "score", groups)
    np.testing.assert_allclose(found, rewards["a b"][[3, 3, 4]])
    assert asked == [[TEXTS[3], TEXTS[4]]]
    rewards["a b"][4] = math.nan
    with pytest.raises(OracleError, match=r"score returned nan.*'b e'.*finite"):
        group_rewards(Bad(rewards), "score", groups)
    (found,) = group_rewards(Bad(rewards, abstains=True), "score", groups)
    assert np.isnan(found).tolist() == [False, False, True]
    rewards["a b"][4] = math.inf
    with pytest.raises(OracleError, match="inf"):
        group_rewards(Bad(rewards, abstains=True), "score", groups)

    class Short(TableReward):
        def score(self, prompts, answers):
            return np.zeros(1)

    with pytest.raises(OracleError, match=r"shape \(1,\) for 2 answers"):
        group_rewards(Short(rewards), "score", groups)


@pytest.mark.parametrize(
    ("name", "whiten"), [("reinforce", None), ("rloo", None), ("ppo", True), ("ppo", False)]
)
def test_a_response_without_a_verdict_is_not_trained_on(tmp_path, name, whiten):
    """Its advantage is 0 and nobody's baseline: the others' are as if it had not been there."""
    rewards = table_rewards()
    rewards["a b"][5] = math.nan
    options = {} if whiten is None else {"whiten_advantages": whiten}
    trainer = build(
        tmp_path / "a", name, oracle=TableReward(rewards, abstains=True),
        sampler=Scripted((3, 5, 0)), **options,
    )  # fmt: skip
    ready(trainer)
    (row,) = trainer.play_chunk(0, 0, [0])
    assert row["rewards"][1] is None
    json.dumps(row, allow_nan=False)
    alone = build(tmp_path / "b", name, oracle=TableReward(rewards, abstains=True),
                  sampler=Scripted((3, 0)), model=trainer.policy, **options)  # fmt: skip
    alone.references = trainer.references
    (without,) = alone.play_chunk(0, 0, [0])
    kept = np.concatenate([np.ravel(row["advantages"][0]), np.ravel(row["advantages"][2])])
    expected = np.concatenate([np.ravel(x) for x in without["advantages"]])
    np.testing.assert_allclose(kept, expected, atol=1e-12)
    assert np.abs(kept).max() > 0.01
    assert not np.any(row["advantages"][1])
    loss, _ = trainer.batch_loss(trainer.policy, [row])
    fewer, _ = alone.batch_loss(trainer.policy, [without])
    found = flat_gradient(loss, trainer.policy)
    assert distance(found * 3 / 2, flat_gradient(fewer, trainer.policy)) < 1e-6
    assert trainer.round_summary([row])["unjudged_share"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", ["reinforce", "rloo", "ppo"])
def test_nothing_judged_means_nothing_moves(tmp_path, name):
    rewards = {p: np.full(len(TEXTS), math.nan) for p in PROMPTS}
    trainer = build(
        tmp_path, name, oracle=TableReward(rewards, abstains=True), num_rounds=2, beta=0.1,
        sampler=Scripted((3, 5)), optim="sgd", learning_rate=1.0,
    )  # fmt: skip
    before = [p.detach().clone() for p in trainer.policy.parameters()]
    trainer.train()
    after = list(trainer.policy.parameters())
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
    assert all("reward" not in r for r in trainer.metrics.rows() if r["kind"] == "round")


def test_missing_end_is_fined_on_the_completion_only(tmp_path):
    """The prompt holds an end token, which must not count as the response's."""
    trainer = build(tmp_path, "rloo", missing_eos_penalty=2.0, beta=0.0, sampler=Scripted((3, 1)))
    trainer.prompts = ["a e b", "b a"]
    rewards = table_rewards()
    trainer._oracle = TableReward({"a e b": rewards["a b"], **rewards})
    ready(trainer)
    assert [RESPONSES[3], RESPONSES[1]] == [(1, 2), (1, 0)]
    (row,) = trainer.play_chunk(0, 0, [0])
    assert row["finished"] == [False, True]
    gap = rewards["a b"][3] - 2.0 - rewards["a b"][1]
    np.testing.assert_allclose(row["advantages"], [gap, -gap])
    np.testing.assert_allclose(row["rewards"], rewards["a b"][[3, 1]])  # the oracle's, untouched


def test_reward_is_clipped_before_the_penalty(tmp_path):
    trainer = build(
        tmp_path, "reinforce", baseline="none", beta=0.0, missing_eos_penalty=2.0,
        reward_clip_range=(-0.1, 0.1), sampler=Scripted((3, 1)),
    )  # fmt: skip
    ready(trainer)
    (row,) = trainer.play_chunk(0, 0, [0])
    expected = np.clip(table_rewards()["a b"][[3, 1]], -0.1, 0.1) - [2.0, 0.0]
    np.testing.assert_allclose(row["advantages"], expected)


def test_the_mean_baseline_is_of_all_other_responses_played_together(tmp_path):
    trainer = build(tmp_path, "reinforce", beta=0.0, sampler=Scripted((3, 1), (0, 5)))
    ready(trainer)
    rows = trainer.play_chunk(0, 0, [0, 1])
    rewards = np.ravel([r["rewards"] for r in rows])
    others = [(rewards.sum() - r) / 3 for r in rewards]
    np.testing.assert_allclose(np.ravel([r["advantages"] for r in rows]), rewards - others)


@pytest.mark.parametrize("name", ["rloo", "ppo"])
def test_every_chunk_of_every_round_has_its_own_seed(tmp_path, name):
    seeds = []

    class Watch(Scripted):
        def sample(self, prompts, num_samples, seed):
            seeds.append(seed)
            return super().sample(prompts, num_samples, seed)

    trainer = build(tmp_path, name, sampler=Watch((0, 1)))
    ready(trainer)
    for index, number in ((0, 0), (0, 1), (1, 0), (0, 0)):
        trainer.play_chunk(index, number, [0])
    assert len(set(seeds)) == 3
    assert seeds[0] == seeds[3]


def test_normalised_advantages_have_mean_zero_and_spread_one(tmp_path):
    trainer = build(tmp_path, "rloo", normalize_advantages=True, sampler=Scripted((3, 1), (0, 5)))
    ready(trainer)
    rows = trainer.play_chunk(0, 0, [0, 1])
    values = np.ravel([r["advantages"] for r in rows])
    assert values.mean() == pytest.approx(0.0, abs=1e-9)
    assert values.std(ddof=1) == pytest.approx(1.0, rel=1e-2)


def test_temperature_is_in_every_log_probability(tmp_path):
    plain = build(tmp_path / "a", "rloo")
    warm = build(tmp_path / "b", "rloo", temperature=2.0, model=plain.policy)
    for trainer in (plain, warm):
        trainer.start_round(0)
    (row,) = warm.play_chunk(0, 0, [0])
    ids = torch.tensor([[*prompt_ids("a b"), 1, 0]])
    logits = plain.policy(ids).logits[0, 1:3] / 2.0
    expected = float(logits.detach().log_softmax(-1)[[0, 1], [1, 0]].sum())
    assert row["logps"]["current"][1] == pytest.approx(expected, abs=1e-6)
    _, metrics = warm.batch_loss(warm.policy, [row])
    assert metrics["approx_kl_to_old_nats"] == pytest.approx(0.0, abs=1e-9)


# -- TRL ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"normalize_advantages": True}, {"beta": 0.0}])
def test_equals_trl(tmp_path, options):
    """TRL's own trainer, fed the same samples: advantages, old log-probs, loss and gradient."""
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    from tests.enumerable import tiny_tokenizer

    choices = [(0, 1, 3, 5), (2, 4, 4, 6)]
    settings = {"beta": 0.3, "num_generations": 4, "epsilon": 0.02, **options}
    base = tiny_model(seed=3, spread=0.4, dtype=torch.float32)
    base.save_pretrained(tmp_path / "base")
    ours = build(
        tmp_path / "ours", "rloo", model=base, sampler=Scripted(*choices),
        oracle=TableReward(table_rewards(2.0)), **settings,
    )  # fmt: skip
    args = trl.RLOOConfig(
        output_dir=str(tmp_path / "trl"), use_cpu=True, bf16=False, gradient_checkpointing=False,
        report_to="none", per_device_train_batch_size=8, max_completion_length=2,
        model_init_kwargs={"dtype": "float32"}, disable_dropout=True, **settings,
    )  # fmt: skip
    table = table_rewards(2.0)
    theirs = trl.RLOOTrainer(
        str(tmp_path / "base"),
        reward_funcs=lambda prompts, completion_ids, **_: [
            table[p][RESPONSES.index(tuple(ids))]
            for p, ids in zip(prompts, completion_ids, strict=True)
        ],
        args=args,
        train_dataset=datasets.Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=tiny_tokenizer(),
    )
    ours.start_round(0)
    shake(ours.policy)  # off the reference when played, and off the sampler when trained
    shake(theirs.model)
    flat = [RESPONSES[i] for c in choices for i in c]
    theirs._generate_single_turn = lambda *_: [list(ids) for ids in flat]
    theirs.model.train()
    asked = [{"prompt": p} for p in PROMPTS for _ in range(4)]
    inputs = theirs._generate_and_score_completions(asked)
    rows = ours.play_chunk(0, 0, [0, 1])
    torch.testing.assert_close(
        torch.tensor([r["advantages"] for r in rows]).flatten(), inputs["advantages"],
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    torch.testing.assert_close(
        torch.tensor([r["logps"]["current"] for r in rows]).flatten(), inputs["old_logps"]
    )
    shake(ours.policy, size=0.01, seed=1)
    shake(theirs.model, size=0.01, seed=1)
    mine, metrics = ours.batch_loss(ours.policy, rows)
    other = theirs._compute_loss(theirs.model, inputs)
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)
    clipped = theirs._metrics["train"]["clip_ratio/region_mean"][-1]
    assert metrics["clip_ratio/region_mean"] == pytest.approx(clipped)
    assert 0.0 < clipped < 1.0
    expected = flat_gradient(other, theirs.model)
    assert float(expected.norm()) > 1e-2
    assert distance(flat_gradient(mine, ours.policy), expected) < 1e-4


def test_defaults_are_those_of_trl():
    trl = pytest.importorskip("trl")
    theirs = {f.name: f.default for f in trl.RLOOConfig.__dataclass_fields__.values()}
    ours = {f.name: f.default for f in RLOOConfig.__dataclass_fields__.values()}
    shared = (
        "beta", "num_generations", "learning_rate", "max_completion_length", "epsilon",
        "epsilon_high", "normalize_advantages", "reward_clip_range", "temperature", "top_p",
    )  # fmt: skip
    assert {n: ours[n] for n in shared} == {n: theirs[n] for n in shared}


# -- options --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (RLOOConfig, {"reward": "scores"}, "use 'auto', 'score' or 'win_rate'"),
        (RLOOConfig, {"beta": -1.0}, "beta = -1.0; it must be >= 0"),
        (RLOOConfig, {"beta": math.nan}, "beta = nan"),
        (RLOOConfig, {"missing_eos_penalty": -1.0}, "missing_eos_penalty"),
        (RLOOConfig, {"reward_clip_range": (1.0, 1.0)}, "low < high"),
        (RLOOConfig, {"reward_clip_range": (1.0,)}, "low < high"),
        (RLOOConfig, {"epsilon": 0.0}, "epsilon = 0.0"),
        (RLOOConfig, {"epsilon_high": -0.1}, "epsilon_high = -0.1"),
        (ReinforceConfig, {"baseline": "mena"}, "'none', 'mean' or 'constant'"),
        (ReinforceConfig, {"baseline_value": 0.5}, "set baseline = 'constant'"),
    ],
)
def test_bad_options_name_themselves(tmp_path, config, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        config(output_dir=str(tmp_path), use_cpu=True, **options)


def test_an_oracle_is_needed(tmp_path):
    from tests.enumerable import tiny_tokenizer

    with pytest.raises(ConfigError, match="oracle"):
        RLOOTrainer(
            tiny_model(),
            RLOOConfig(output_dir=str(tmp_path), use_cpu=True, num_rounds=1),
            [{"prompt": "a"}],
            None,
            tiny_tokenizer(),
        )


def test_trainers_carry_their_rules():
    assert (ReinforceTrainer.rule, RLOOTrainer.rule) == (REINFORCE, RLOO)
