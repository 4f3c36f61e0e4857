"""SLHF from beginning to end: where runs end, who moves when, and what a crash leaves behind."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig

from equilign.errors import ModelError
from equilign.games import PreferenceGame, solve
from equilign.oracles import CallableOracle
from equilign.trainers.motion import PlayersMove
from equilign.trainers.players import player_folders
from equilign.trainers.slhf import SLHFConfig, SLHFTrainer
from tests.enumerable import BANDIT, MatrixOracle, texts_of, tiny_model, tiny_tokenizer
from tests.trainers.launch import start
from tests.trainers.test_every_method import DieAfterRound
from tests.trainers.test_resume import PROMPTS as SAMPLED_PROMPTS
from tests.trainers.test_resume import Died, prefer_b
from tests.trainers.two_players import (
    PROMPTS,
    TEMPLATE,
    Table,
    build,
    games,
    ids_of,
    logps_of,
    policies,
)

TEXTS = texts_of(BANDIT)
ADAPTER = LoraConfig(r=3, lora_alpha=3, target_modules=["table"])


def bandit(folder, players, **options):
    """Answers of one token by players that look everything up."""
    torch.manual_seed(0)
    extra = {"peft_config": ADAPTER} if players == "adapters" else {}
    settings = {
        "num_rounds": 50,
        "epochs_per_round": 4,
        "learning_rate": 0.1,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "kappa": 1.0,
        **options,
    }
    return build(
        folder, model=Table(), oracle=MatrixOracle(games(3), TEXTS), responses=BANDIT,
        players=players, **extra, **settings,
    )  # fmt: skip


def equilibrium(start, prompt, ref_follower):
    game = PreferenceGame(games(3)[prompt], start[prompt][0], 0.3)
    return solve(game, "stackelberg", beta_follower=0.2, ref_follower=ref_follower)


@pytest.mark.parametrize(
    ("players", "reference"),
    [
        ("shared", "context"),
        ("adapters", "context"),
        ("separate", "prompt"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("shared", "prompt"), ("adapters", "prompt"), ("separate", "context"))
        ),
    ],
)
def test_runs_end_at_the_stackelberg_equilibrium(tmp_path, players, reference):
    trainer = bandit(tmp_path, players, follower_reference=reference)
    start = policies(trainer, BANDIT, TEXTS)
    alone = {p: np.exp(logps_of(trainer, "follower", ids_of(p), BANDIT)) for p in PROMPTS}
    trainer.train()
    end = policies(trainer, BANDIT, TEXTS)
    for p in PROMPTS:
        goal = equilibrium(start, p, start[p][1] if reference == "context" else alone[p])
        np.testing.assert_allclose(end[p][0], goal.policy, atol=0.01)
        np.testing.assert_allclose(end[p][1], goal.follower, atol=0.01)
        assert np.abs(start[p][0] - goal.policy).max() > 0.05
        assert np.abs(start[p][1] - goal.follower).max(axis=1).min() > 0.05
    last = [r for r in trainer.metrics.rows() if r["kind"] == "round"][-1]
    assert last["kl_to_reference_nats"] > 0.01
    assert last["leader_win_rate"] + last["follower_win_rate"] == pytest.approx(1.0)


@pytest.mark.parametrize("players", ["adapters", "separate"])
def test_rows_that_the_leader_never_plays_stay_at_the_reference(tmp_path, players):
    trainer = bandit(tmp_path, players, num_rounds=4)
    trainer.sampler.kept = BANDIT[1:]  # never the first one
    start = policies(trainer, BANDIT, TEXTS)
    trainer.train()
    end = policies(trainer, BANDIT, TEXTS)
    for p in PROMPTS:
        np.testing.assert_array_equal(end[p][1][0], start[p][1][0])
        assert np.abs(end[p][1][1:] - start[p][1][1:]).max(axis=1).min() > 0.01


@pytest.mark.slow
def test_the_authors_payoff_ends_elsewhere(tmp_path):
    """Without the Follower's KL the Leader plays for ``E_omega P`` alone."""
    trainer = bandit(tmp_path, "shared", leader_pays_follower_kl=False)
    start = policies(trainer, BANDIT, TEXTS)
    trainer.train()
    end = policies(trainer, BANDIT, TEXTS)
    apart = 0.0
    for p in PROMPTS:
        goal = equilibrium(start, p, start[p][1])
        worth = (goal.follower * games(3)[p]).sum(axis=1)
        law = start[p][0] * np.exp(worth / 0.3)
        np.testing.assert_allclose(end[p][0], law / law.sum(), atol=0.01)
        apart = max(apart, np.abs(law / law.sum() - goal.policy).max())
    assert apart > 0.03


# -- who moves when -------------------------------------------------------------------------


def weights_of(trainer, role):
    return [p.detach().clone() for p in trainer.player_weights(role)]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("players", ["adapters", "separate"])
def test_the_leader_moves_at_every_kth_step_only(tmp_path, players):
    """With momentum and weight decay, which would move it without any gradient."""
    trainer = bandit(
        tmp_path, players, leader_update_every=3, num_rounds=2, weight_decay=0.1,
        lr_scheduler_type="constant",
    )  # fmt: skip
    seen = [{role: weights_of(trainer, role) for role in trainer.roles}]
    inner = trainer.report_step
    trainer.report_step = lambda: (
        inner(), seen.append({role: weights_of(trainer, role) for role in trainer.roles}),
    )  # fmt: skip
    trainer.train()
    assert len(seen) == 9
    moved = [not same(a["leader"], b["leader"]) for a, b in itertools.pairwise(seen)]
    assert moved == [False, False, True, False, False, True, False, False]
    assert all(not same(a["follower"], b["follower"]) for a, b in itertools.pairwise(seen))


def test_a_shared_model_leaves_the_leaders_loss_out(tmp_path):
    trainer = bandit(tmp_path, "shared", leader_update_every=2, num_rounds=1)
    before = policies(trainer, BANDIT, TEXTS)
    after = []
    inner = trainer.report_step
    trainer.report_step = lambda: (inner(), after.append(policies(trainer, BANDIT, TEXTS)))
    trainer.train()
    for p in PROMPTS:
        np.testing.assert_array_equal(after[0][p][0], before[p][0])
        assert np.abs(after[0][p][1] - before[p][1]).max() > 0.01
        assert np.abs(after[1][p][0] - after[0][p][0]).max() > 0.001


@pytest.mark.parametrize("optim", ["sgd", "adamw_torch"])
def test_kappa_is_the_ratio_of_the_steps(tmp_path, optim):
    """Under Adam too, which a factor of the loss would not change."""
    steps = {}
    for kappa in (1.0, 4.0):
        trainer = bandit(
            tmp_path / str(kappa), "separate", kappa=kappa, optim=optim, num_rounds=1,
            epochs_per_round=1, learning_rate=1e-3, weight_decay=0.01,
        )  # fmt: skip
        before = {role: weights_of(trainer, role) for role in trainer.roles}
        trainer.train()
        after = {role: weights_of(trainer, role) for role in trainer.roles}
        steps[kappa] = {r: after[r][0] - before[r][0] for r in trainer.roles}
    torch.testing.assert_close(steps[4.0]["leader"], steps[1.0]["leader"])
    torch.testing.assert_close(steps[4.0]["follower"], 4.0 * steps[1.0]["follower"])
    assert float(steps[1.0]["follower"].abs().max()) > 1e-6


def test_a_frozen_player_is_said(tmp_path):
    """As PEFT leaves it when an adapter is made active by hand."""
    trainer = bandit(tmp_path, "adapters")
    trainer.pair.enter = lambda role: (
        setattr(trainer.pair, "role", role), trainer.pair.adapted.set_adapter(role),
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"the (leader|follower) got no gradient .* adapter"):
        trainer.train()


def test_a_step_that_is_lost_in_rounding_is_said(tmp_path):
    trainer = bandit(tmp_path, "separate", learning_rate=1e-30, lr_scheduler_type="constant")
    with pytest.raises(ModelError, match=r"the leader did not move .* 1e-30 is lost in torch.fl"):
        trainer.train()


@pytest.mark.parametrize("how", ["warm-up", "ties"])
def test_nothing_to_move_for_is_no_error(tmp_path, how):
    """A learning rate of zero at first, and games that nobody can win."""
    trainer = bandit(tmp_path, "separate", num_rounds=1, warmup_steps=2)
    if how == "ties":
        trainer._oracle = MatrixOracle({p: np.full((3, 3), 0.5) for p in PROMPTS}, TEXTS)
    before = weights_of(trainer, "leader")
    trainer.train()
    (check,) = [c for c in trainer.callback_handler.callbacks if isinstance(c, PlayersMove)]
    assert check._open == (set() if how == "warm-up" else {"leader", "follower"})
    assert same(weights_of(trainer, "leader"), before) == (how == "ties")


def test_a_player_without_weights_is_refused(tmp_path):
    frozen = Table()
    frozen.requires_grad_(False)
    with pytest.raises(ModelError, match="the follower has no trainable weights"):
        build(tmp_path, model=Table(), follower_model=frozen, players="separate")


# -- resuming -------------------------------------------------------------------------------

ROUNDS = 8
LORA = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])


def sampled(folder, players, lora, **options):
    """Real samples of a tiny Llama."""
    torch.manual_seed(0)
    settings = {
        "num_rounds": ROUNDS,
        "prompts_per_round": 3,
        "num_generations": 3,
        "num_follower_generations": 2,
        "max_completion_length": 3,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.01,
        "optim": "adamw_torch",
        "leader_update_every": 2,
        "follower_template": TEMPLATE,
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 5,
        **options,
    }
    return SLHFTrainer(
        tiny_model(seed=1, dtype=torch.float32, spread=0.3),
        SLHFConfig(output_dir=str(folder), players=players, **settings),
        [{"prompt": p} for p in SAMPLED_PROMPTS],
        CallableOracle(prefer_b),
        tiny_tokenizer(),
        peft_config=LORA if lora else None,
    )


@pytest.mark.parametrize(
    ("players", "lora"),
    [
        ("adapters", True),
        ("separate", False),
        pytest.param("separate", True, marks=pytest.mark.slow),
        pytest.param("shared", False, marks=pytest.mark.slow),
        pytest.param("shared", True, marks=pytest.mark.slow),
    ],
)
def test_four_rounds_and_four_are_eight(tmp_path, players, lora):
    """Bitwise, each player: weights, optimiser and references."""
    whole = sampled(tmp_path / "whole", players, lora)
    before = {role: weights_of(whole, role) for role in whole.roles}
    whole.train()
    cut = sampled(tmp_path / "cut", players, lora)
    cut.add_callback(DieAfterRound(ROUNDS // 2))
    with pytest.raises(Died):
        cut.train()
    resumed = sampled(tmp_path / "cut", players, lora)
    with torch.no_grad():  # nothing may be taken from what the models happen to be
        for p in resumed.policy.parameters():
            if p.requires_grad:
                p.add_(1.0)
    resumed.train(resume_from_checkpoint=True)
    for role in whole.roles:
        assert same(weights_of(resumed, role), weights_of(whole, role))
        assert not any(
            torch.equal(a, b) for a, b in zip(weights_of(whole, role), before[role], strict=True)
        ), "a weight never moved"
        assert all(p.requires_grad for p in resumed.player_weights(role))
        assert len(resumed.player_weights(role)) == len(before[role])
    for path in sorted((tmp_path / "whole" / "rounds").iterdir()):
        assert (tmp_path / "cut" / "rounds" / path.name).read_bytes() == path.read_bytes()


# -- several processes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("players", "lora"),
    [
        ("adapters", "true"),
        pytest.param("shared", "false", marks=pytest.mark.slow),
        pytest.param("separate", "false", marks=pytest.mark.slow),
        pytest.param("separate", "true", marks=pytest.mark.slow),
    ],
)
def test_two_ranks_are_one_rank(tmp_path, players, lora):
    """Same first round to the byte; the same weights up to the order of summation."""
    script = Path(__file__).parent / "slhf_ranks.py"
    options = (f'players="{players}"', f"lora={lora}", "num_rounds=2", "epochs_per_round=2")
    start(script, tmp_path / "one", 1, "per_device_train_batch_size=4", *options)
    start(script, tmp_path / "two", 2, "per_device_train_batch_size=2", *options)
    rounds = [(tmp_path / n / "rounds" / "slhf-001.jsonl").read_bytes() for n in ("one", "two")]
    assert rounds[0] == rounds[1]
    one, two = (torch.load(tmp_path / n / "weights.pt", weights_only=True) for n in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=2e-4, atol=2e-5)
    begin = dict(sampled(tmp_path / "start", players, lora == "true").policy.named_parameters())
    still = [n for n in one if torch.equal(one[n], begin[n].detach())]
    assert not still, "a weight of a player never moved"
    folders = player_folders(tmp_path / "two" / "saved")
    assert all((f / "config.json").exists() or lora == "true" for f in folders.values())
    assert (folders["follower"] / "follower_prompt.json").exists()
