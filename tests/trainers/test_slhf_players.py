"""Two players in one trainer: whose weights, whose turn, what is judged, and what is saved."""

import json
import math
import re

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from equilign.errors import ConfigError, DataError, ModelError
from equilign.experiments.train import run_train
from equilign.rollout import Completion, Group
from equilign.rollout.follower import FollowerPrompt
from equilign.trainers.players import TwoAdapters, TwoModels, player_folders
from equilign.trainers.slhf import SLHFConfig, SLHFTrainer
from equilign.trainers.slhf_rows import judge
from tests.enumerable import END, RESPONSES, TEXTS, exact_logps, tiny_model, tiny_tokenizer
from tests.experiments.test_recipes import TINY, nobody, recipe
from tests.trainers.test_slhf import LORA, adapter
from tests.trainers.two_players import (
    PROMPTS,
    build,
    distance,
    flat,
    ids_of,
    logps_of,
    shake,
    shown,
)

ROLES = ("leader", "follower")
OTHER = LoraConfig(r=4, target_modules=["up_proj"])


def tied_model():
    torch.manual_seed(4)
    config = LlamaConfig(
        vocab_size=3, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=16, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=END, pad_token_id=END,
    )  # fmt: skip
    return LlamaForCausalLM(config).float()


# -- saving ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("players", "lora"),
    [("shared", False), ("shared", True), ("adapters", True), ("separate", False),
     ("separate", True)],
)  # fmt: skip
def test_what_is_saved_loads_anywhere_and_answers_the_same(tmp_path, players, lora):
    base = tied_model()
    base.save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    trainer = build(
        tmp_path / "run", model=model, players=players, peft_config=LORA if lora else None,
        learning_rate=0.05, num_rounds=1,
    )  # fmt: skip
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    folders = player_folders(tmp_path / "saved")
    own = players != "shared"
    assert list(folders) == list(ROLES)
    assert (folders["leader"] != folders["follower"]) == own
    loader = AutoPeftModelForCausalLM if lora else AutoModelForCausalLM
    prompt = ids_of("a b")
    answers = {}
    for role in ROLES:
        loaded = loader.from_pretrained(folders[role], dtype=torch.float32)
        answers[role] = exact_logps(loaded, prompt)
        np.testing.assert_allclose(answers[role], logps_of(trainer, role, prompt), atol=1e-6)
        assert np.abs(answers[role] - exact_logps(base, prompt)).max() > 1e-3
        assert AutoTokenizer.from_pretrained(folders[role]).eos_token == "e"
    assert (np.abs(answers["leader"] - answers["follower"]).max() > 1e-3) == own
    assert FollowerPrompt.load(folders["follower"]) == trainer.follower_prompt
    assert (FollowerPrompt.load(folders["leader"]) is None) == own


@pytest.mark.parametrize("players", ["adapters", "separate"])
def test_another_models_weights_are_refused(tmp_path, players):
    trainer = build(tmp_path, model=tied_model(), players=players, **adapter(players))
    for role in ROLES:
        trainer.pair.save_player(role, tmp_path / "saved")
    torch.manual_seed(0)
    other = build(
        tmp_path / "other", players=players,
        **({"peft_config": OTHER} if adapter(players) else {}),
    )  # fmt: skip
    with pytest.raises((ModelError, RuntimeError), match=r"holds another adapter|size mismatch"):
        other.pair.load_player("leader", tmp_path / "saved")
    (tmp_path / "empty" / "leader").mkdir(parents=True)
    if players == "separate":
        with pytest.raises(ModelError, match="weights of another model than the leader's"):
            trainer.pair.load_player("leader", tmp_path / "empty")


# -- turns ----------------------------------------------------------------------------------


@pytest.mark.parametrize("players", ["adapters", "separate"])
def test_turns_choose_the_weights_and_freeze_nobody(tmp_path, players):
    trainer = build(tmp_path, players=players, **adapter(players))
    pair = trainer.pair
    assert isinstance(pair, TwoAdapters if players == "adapters" else TwoModels)
    with torch.no_grad():
        for p in pair.weights("follower"):
            p.add_(0.1)
    prompt = ids_of("a b")
    leads = exact_logps(trainer.policy, prompt)
    with trainer.playing("follower"):
        follows = exact_logps(trainer.policy, prompt)
        with trainer.playing("leader"):
            np.testing.assert_array_equal(exact_logps(trainer.policy, prompt), leads)
        np.testing.assert_array_equal(exact_logps(trainer.policy, prompt), follows)
        assert all(p.requires_grad for role in ROLES for p in pair.weights(role))
    assert np.abs(leads - follows).max() > 1e-3
    np.testing.assert_array_equal(exact_logps(trainer.policy, prompt), leads)
    with pytest.raises(ZeroDivisionError), trainer.playing("follower"):
        raise ZeroDivisionError
    assert pair.role == "leader"


@pytest.mark.parametrize("players", ["adapters", "separate"])
def test_without_their_adapters_the_players_are_the_start_model(tmp_path, players):
    """And afterwards both are trainable, which PEFT's own context does not promise."""
    start = exact_logps(tiny_model(seed=3, spread=0.4), ids_of("a b"))
    trainer = build(tmp_path, players=players, peft_config=LORA)
    assert np.abs(exact_logps(trainer.policy, ids_of("a b")) - start).max() > 1e-3
    with trainer.policy.disable_adapter():
        np.testing.assert_allclose(exact_logps(trainer.policy, ids_of("a b")), start, atol=1e-9)
    assert all(p.requires_grad for role in ROLES for p in trainer.pair.weights(role))


@pytest.mark.parametrize("players", ["adapters", "separate"])
def test_recomputed_activations_are_those_of_their_player(tmp_path, players):
    """Both losses go backward when it is nobody's turn any more."""
    trainer = build(tmp_path, players=players, **adapter(players))
    trainer.start_round(0)
    shake(trainer)
    rows = trainer.play_chunk(0, 0, [0, 1])
    trainer.policy.train()

    def gradients():
        loss, _ = trainer.batch_loss(trainer.policy, rows)
        both = [p for role in ROLES for p in trainer.player_weights(role)]
        return flat(torch.autograd.grad(loss, both))

    plain = gradients()
    trainer.policy.activation_checkpointing_enable()
    # Prompts are then read with every answer, and norms compute in float32: sums round otherwise.
    assert distance(gradients(), plain) < 1e-7
    if players == "adapters":
        with pytest.raises(ConfigError, match="use_reentrant = True computes activations again"):
            trainer.policy.activation_checkpointing_enable({"use_reentrant": True})


def test_gradient_checkpointing_is_an_option(tmp_path):
    trainer = build(
        tmp_path,
        players="adapters",
        num_rounds=1,
        activation_checkpointing=True,
        **adapter("adapters"),
    )
    trainer.train()
    (layer,) = {
        m.gradient_checkpointing
        for m in trainer.policy.modules()
        if "LlamaDecoderLayer" in type(m).__name__
    }
    assert layer


def test_each_player_is_asked_with_its_own_weights(tmp_path):
    args = {"players": "separate", "max_completion_length": 2}
    trainer = SLHFTrainer(
        tiny_model(seed=3), SLHFConfig(output_dir=str(tmp_path), use_cpu=True, **args),
        [{"prompt": p} for p in PROMPTS * 3], lambda: None, tiny_tokenizer(),
        follower_model=tiny_model(seed=9),
    )  # fmt: skip
    for role, seed in (("leader", 3), ("follower", 9)):
        (group,) = trainer.player_sampler(role).sample(["a b"], 2000, 0)
        counts = np.array([sum(c.ids == r for c in group.completions) for r in RESPONSES])
        law = np.exp(exact_logps(tiny_model(seed=seed), ids_of("a b")))
        assert np.abs(counts / 2000 - law).max() < 0.05
        assert (
            np.abs(law - np.exp(exact_logps(tiny_model(seed=12 - seed), ids_of("a b")))).max() > 0.1
        )


def test_a_follower_may_be_shown_a_whole_answer_more(tmp_path):
    trainer = build(tmp_path, max_prompt_length=2, num_rounds=1)
    from equilign.rollout import SamplingConfig, TransformersSampler

    trainer.sampler = TransformersSampler(
        trainer.policy, trainer.tokenizer, SamplingConfig(2, max_prompt_tokens=2)
    )
    assert len(shown("a b", "a b")) > 2
    assert trainer.play_chunk.__self__.player_sampler("follower").sample(["a b a b b"], 1, 0)
    with pytest.raises(DataError, match="prompt 0 has 3 tokens"):
        trainer.player_sampler("leader").sample(["a b a"], 1, 0)


# -- games ----------------------------------------------------------------------------------


def group(prompt, *texts):
    return Group(prompt, (1,), tuple(Completion((1,), t, True) for t in texts))


def test_judges_see_the_original_prompt_and_every_pair_once():
    asked = []

    class Watch:
        abstains = True

        def compare(self, prompts, a, b):
            asked.extend(zip(prompts, a, b, strict=True))
            return np.array([math.nan if "?" in x + y else 0.9 if x < y else 0.4
                             for x, y in zip(a, b, strict=True)])  # fmt: skip

    chat = [{"role": "user", "content": "hello"}]
    led = [group(chat, "a", "a", "?")]
    replied = [[group([], "b", "a"), group([], "b", "b"), group([], "b", "?")]]
    found = judge(Watch(), led, replied)
    assert asked == [("hello", "a", "b"), ("hello", "?", "b"),
                     ("hello", "b", "a"), ("hello", "b", "?")]  # fmt: skip
    win = (0.9 + 1.0 - 0.4) / 2
    np.testing.assert_allclose(found, [[[win, 0.5], [win, win], [math.nan, 0.5]]])


class Shy:
    """No verdict on the first of all answers."""

    abstains = True

    def compare(self, prompts, a, b):
        return np.array([math.nan if TEXTS[0] in (x, y) else 0.25 + 0.5 * (x < y)
                         for x, y in zip(a, b, strict=True)])  # fmt: skip


def test_responses_without_a_verdict_are_not_trained_on(tmp_path):
    trainer = build(tmp_path, oracle=Shy(), players="separate")
    trainer.start_round(0)
    shake(trainer)
    rows = trainer.play_chunk(0, 0, [0, 1])
    json.dumps(rows, allow_nan=False)
    first, rest = rows[0]["followers"][0], rows[0]["followers"][1]
    assert [w is None for w in first["wins"]] == [False, *[True] * 6]  # equal texts tie
    assert [a is None for a in rest["advantages"]] == [True, *[False] * 6]
    judged = np.array(rest["weights"][1:]) @ np.array(rest["wins"][1:])
    judged /= sum(rest["weights"][1:])
    np.testing.assert_allclose(
        np.array(rest["advantages"][1:]), judged - np.array(rest["wins"][1:])
    )
    whole = trainer.batch_loss(trainer.policy, rows)[0]
    for row in rows:
        for side in row["followers"]:
            side["ref_logps"] = [
                r if a is not None else [9.0] * len(r)
                for r, a in zip(side["ref_logps"], side["advantages"], strict=True)
            ]
    torch.testing.assert_close(trainer.batch_loss(trainer.policy, rows)[0], whole)
    assert 0.0 < trainer.round_summary(rows)["unjudged_share"] < 1.0


def test_cut_responses_are_fined_on_their_own_players_side(tmp_path):
    plain, fined = (
        build(tmp_path / str(fine), baseline="constant", missing_eos_penalty=fine)
        for fine in (0.0, 0.7)
    )
    rows = []
    for trainer in (plain, fined):
        trainer.start_round(0)
        rows.append(trainer.play_chunk(0, 0, [0])[0])
    cut = [r[-1] != END for r in RESPONSES]
    assert any(cut)
    for side in ("leader", "followers"):
        a, b = (r[side] if side == "leader" else r[side][2] for r in rows)
        lost = np.array(a["advantages"]) - np.array(b["advantages"])
        np.testing.assert_allclose(lost, 0.7 * np.array(cut), atol=1e-9)


def test_a_rounds_numbers_by_hand(tmp_path):
    trainer = build(tmp_path, players="separate")
    trainer.start_round(0)
    start = {p: logps_of(trainer, "leader", ids_of(p)) for p in PROMPTS}
    shake(trainer)
    rows = trainer.play_chunk(0, 0, [0, 1])
    found = trainer.round_summary(rows)
    now = {p: logps_of(trainer, "leader", ids_of(p)) for p in PROMPTS}
    kl = np.mean([np.exp(now[p]) @ (now[p] - start[p]) for p in PROMPTS])
    assert found["kl_to_reference_nats"] == pytest.approx(kl, rel=1e-6)
    won = np.mean([
        sum(np.exp(now[r["prompt"]][i]) * np.dot(s["weights"], s["wins"])
            for i, s in enumerate(r["followers"]))
        for r in rows
    ])  # fmt: skip
    assert found["leader_win_rate"] == pytest.approx(won, rel=1e-6)
    assert found["follower_win_rate"] == pytest.approx(1.0 - won, rel=1e-6)
    lengths = np.array([len(r) for r in RESPONSES])
    tokens = np.mean([np.exp(now[p]) @ lengths for p in PROMPTS])
    assert found["completion_tokens"] == pytest.approx(tokens, rel=1e-6)
    assert found["follower_kl_to_reference_nats"] > 0.0
    assert 1.0 <= found["follower_completion_tokens"] <= 2.0
    assert found["unjudged_share"] == 0.0
    assert 0.0 < found["finished_share"] < 1.0
    assert 0.0 < found["follower_finished_share"] < 1.0


def test_every_chunk_and_player_has_its_own_seed(tmp_path):
    seeds = []
    trainer = build(tmp_path)
    inner = trainer.sampler.sample
    trainer.sampler.sample = lambda prompts, n, seed: (seeds.append(seed), inner(prompts, n, seed))[
        1
    ]
    trainer.start_round(0)
    for index, number in ((0, 0), (0, 1), (1, 0), (0, 0)):
        trainer.play_chunk(index, number, [0])
    assert len(set(seeds)) == 6
    assert seeds[:2] == seeds[6:]


# -- options --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"players": "two"}, "players = 'two'; use 'shared', 'adapters' or 'separate'"),
        ({"kl_gradient": "k1"}, "kl_gradient = 'k1'; use 'to_go', 'own_token_k1' or"),
        ({"baseline": "mean"}, "baseline = 'mean'; use 'leave_one_out' or 'constant'"),
        ({"follower_reference": "none"}, "use 'context' or 'prompt'"),
        ({"kappa": -1.0}, "kappa = -1.0; it must be finite and >= 0"),
        ({"beta_leader": math.nan}, "beta_leader = nan"),
        ({"beta_follower": math.inf}, "beta_follower = inf"),
        ({"missing_eos_penalty": -0.1}, "missing_eos_penalty = -0.1"),
        ({"leader_update_every": 0}, "leader_update_every = 0; it must be >= 1"),
        ({"num_follower_generations": 0}, "num_follower_generations = 0"),
        ({"num_generations": 0}, "num_generations = 0; it must be >= 1"),
        ({"importance_cap": 0.5}, "importance_cap = 0.5; it must be >= 1"),
        ({"baseline_value": math.nan}, "baseline_value = nan"),
        ({"follower_template": "{prompt}"}, "it must show {answer}"),
        ({"follower_model": "x"}, "set players = 'separate'"),
        ({"ddp_find_unused_parameters": True}, "ddp_find_unused_parameters must be false"),
    ],
)
def test_bad_options_name_themselves(tmp_path, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        SLHFConfig(output_dir=str(tmp_path), use_cpu=True, **options)


def test_one_answer_each_is_enough(tmp_path):
    args = SLHFConfig(
        output_dir=str(tmp_path), use_cpu=True, num_generations=1, num_follower_generations=1
    )
    assert args.ddp_find_unused_parameters is False


def test_models_that_do_not_go_together_are_refused(tmp_path):
    wrapped = get_peft_model(tiny_model(), LORA)
    with pytest.raises(ConfigError, match="the model is a PeftModel already"):
        build(tmp_path, model=wrapped, players="adapters")
    with pytest.raises(ConfigError, match="the model is a PeftModel already"):
        build(tmp_path, model=wrapped, players="separate", peft_config=LORA)
    with pytest.raises(ConfigError, match="follower_model has no effect with players = 'shared'"):
        build(tmp_path, follower_model=tiny_model())
    shares = LoraConfig(r=2, target_modules=["q_proj"], bias="all")
    model = tiny_model()
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ConfigError, match=r"peft refuses a second adapter: .* set bias to 'none'"):
        build(tmp_path, model=model, players="adapters", peft_config=shares)
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(ConfigError, match="use LoRA"):
        build(tmp_path, players="separate", peft_config=prompts)


def test_adapters_have_a_default(tmp_path):
    trainer = build(tmp_path, players="adapters")
    config = trainer.pair.adapted.peft_config
    assert sorted(config) == ["follower", "leader"]
    assert config["leader"].r == 64
    counts = {role: sum(p.numel() for p in trainer.pair.weights(role)) for role in ROLES}
    assert counts["leader"] == counts["follower"] > 0


# -- the command ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("players", "peft"),
    [
        ("adapters", "{r: 4, target_modules: all-linear}"),
        pytest.param("adapters", "null", marks=pytest.mark.slow),
        pytest.param("separate", "null", marks=pytest.mark.slow),
        pytest.param("separate", "{r: 4, target_modules: all-linear}", marks=pytest.mark.slow),
    ],
)
def test_the_command_trains_and_compares_the_leader(tmp_path, chat_model, players, peft):
    options = [("players", players), ("peft", peft)]
    if players == "separate":
        options.append(("follower_model", str(chat_model)))
    config = recipe("slhf", ("model", str(chat_model)), *TINY, *options)
    summary = run_train(config, tmp_path / "run", progress=nobody)
    (row,) = summary["methods"]["slhf"]["rounds"]
    assert 0.0 <= row["low"] <= row["win_rate"] <= row["high"] <= 1.0
    folder = tmp_path / "run" / "models" / "slhf"
    weights = (
        "model.safetensors"
        if (players, peft) == ("separate", "null")
        else "adapter_model.safetensors"
    )
    assert all((folder / role / weights).exists() for role in ROLES)
    card = (folder / "README.md").read_text()
    assert 'folder = "leader"' in card
    assert 'FollowerPrompt.load(Path("follower"))' in card
    assert ("AutoPeftModelForCausalLM" in card) == ("adapter" in weights)
    names = {"leader_win_rate", "follower_win_rate", "follower_kl_to_reference_nats"}
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert names <= set(first)
