"""The parts of `equilign train`: data, held-out prompts, the start model, the card, the judges."""

import dataclasses
import json
import logging

import numpy as np
import pytest
import torch
import yaml
from transformers import TrainerControl, TrainerState

from equilign.errors import ConfigError, DataError, EquilignError, OracleError
from equilign.evaluation.callback import Evaluation
from equilign.experiments.demo_options import COMMON, DEMO_OPTIONS, demo_options
from equilign.experiments.demo_pairs import judged_pairs
from equilign.experiments.evaluating import Contest, RoundEvaluation, every, steps_of
from equilign.experiments.judges import describe_oracle, make_oracle, oracle_name
from equilign.experiments.model_card import Card, card_text
from equilign.experiments.summary import training_means
from equilign.experiments.train import StartLogps
from equilign.experiments.train_config import make_config
from equilign.experiments.train_data import load_train_data
from equilign.experiments.train_job import lora_config, prepare
from equilign.experiments.training import train_once, trained_seconds
from equilign.files import write_jsonl
from equilign.formats import preference_pairs
from equilign.methods import METHODS, TRAINED
from equilign.models import load_model, load_tokenizer
from equilign.oracles import CallableOracle, score_groups
from equilign.rollout import SamplingConfig, TransformersSampler, pad_token, score_answers
from equilign.tasks.stories import story_prompts
from equilign.trainers.team import Team

PROMPTS = [{"prompt": f"Question {i}?", "n": i} for i in range(20)]
PAIRS = [{"prompt": f"Q {i // 2}?", "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(20)]
SHORTER = CallableOracle(lambda x, a, b: 0.5 + 0.5 * np.sign(len(b) - len(a)))


def nobody(*args):
    pass


def config(tmp_path, data, **more):
    values = {"model": "shipped", "data": data, "oracle": {"kind": "restaurant"}, **more}
    return make_config("sppo", values, [], tmp_path)


def read(tmp_path, data, kind="prompts", seed=0, compare=True, **more):
    return load_train_data(config(tmp_path, data, **more), kind, seed, compare=compare)


@pytest.fixture
def files(tmp_path):
    write_jsonl(tmp_path / "prompts.jsonl", PROMPTS)
    write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    return tmp_path


# -- data --------------------------------------------------------------------------------------


def test_a_share_of_the_prompts_is_held_out_and_not_trained_on(files):
    data = read(files, {"train": "prompts.jsonl", "eval": 0.25})
    assert len(data.held_out) == 5
    trained = {row["prompt"] for row in data.rows}
    assert trained.isdisjoint(data.held_out)
    assert trained | set(data.held_out) == {row["prompt"] for row in PROMPTS}
    assert all(row["n"] == int(row["prompt"].split()[1][:-1]) for row in data.rows)
    again = read(files, {"train": "prompts.jsonl", "eval": 0.25})
    other = read(files, {"train": "prompts.jsonl", "eval": 0.25}, seed=1)
    assert again.held_out == data.held_out != other.held_out
    assert len(read(files, "prompts.jsonl").held_out) == 2


def test_both_pairs_of_a_held_out_prompt_are_held_out(files):
    data = read(files, {"train": "pairs.jsonl", "eval": 0.3}, "pairs")
    assert len(data.held_out) == 3
    assert len(data.rows) == 14
    assert {p.prompt for p in preference_pairs(data.rows)}.isdisjoint(data.held_out)


def test_nothing_is_held_out_where_nobody_compares(files):
    for more in ({"compare": False}, {"evaluation": {"num_samples": 0}}):
        data = read(files, {"train": "prompts.jsonl", "eval": 0.25}, **more)
        assert len(data.rows) == 20
        assert data.held_out == []
    assert read(files, {"train": "prompts.jsonl", "eval": 0.0}).held_out == []


def test_evaluation_files_are_read_distinct_and_overlap_is_told(files, caplog):
    rows = [*PROMPTS[:2], *PROMPTS[:2], {"prompt": "New?"}]
    write_jsonl(files / "eval.jsonl", rows)
    with caplog.at_level(logging.WARNING, logger="equilign"):
        data = read(files, {"train": "prompts.jsonl", "eval": "eval.jsonl"})
    assert data.held_out == ["Question 0?", "Question 1?", "New?"]
    assert len(data.rows) == 20
    assert "2 of 3 evaluation prompts are also trained on" in caplog.text
    cut = {"num_samples": 4, "max_prompts": 1}
    data = read(files, {"train": "prompts.jsonl", "eval": "eval.jsonl"}, evaluation=cut)
    assert data.held_out == ["Question 0?"]


def test_several_files_are_one_data_set_and_text_can_become_chat(files):
    write_jsonl(files / "more.jsonl", [{"prompt": "More?"}])
    data = read(files, {"train": ["prompts.jsonl", "more.jsonl"], "eval": 0.1, "chat": True})
    assert len(data.rows) + len(data.held_out) == 21
    assert all(row["prompt"][0]["role"] == "user" for row in data.rows)
    pairs = read(files, {"train": "pairs.jsonl", "chat": True}, "pairs")
    assert pairs.rows[0]["chosen"][0] == {"role": "assistant", "content": "a0"}
    assert pairs.held_out[0][0]["role"] == "user"


def test_the_shipped_prompts_have_held_out_ones_of_their_own(files):
    data = read(files, "shipped")
    assert (len(data.rows), len(data.held_out)) == (272, 128)
    assert read(files, {"train": "prompts.jsonl", "eval": "shipped"}).held_out == data.held_out


def test_the_stories_are_a_data_set_too(files):
    data = read(files, "stories")
    assert (len(data.rows), len(data.held_out)) == (272, 128)
    assert [row["prompt"] for row in data.rows] == story_prompts("align")
    assert data.held_out == story_prompts("evaluate")
    assert data.description == "stories: 272 rows; 128 held-out prompts"
    both = read(files, {"train": ["stories", "prompts.jsonl"], "eval": "stories"})
    assert len(both.rows) == 292
    assert both.held_out == data.held_out


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        ("stories", "pairs", "the shipped stories, row 1: a preference needs"),
        ("nowhere.jsonl", "prompts", "there is no file nowhere.jsonl"),
        ("prompts.jsonl", "pairs", r'prompts\.jsonl, line 1: a preference needs "chosen"'),
        ("shipped", "pairs", "the shipped prompts, row 1: a preference needs"),
        ({"train": "one.jsonl"}, "prompts", "1 distinct prompts are too few to hold"),
        ({"train": "prompts.jsonl", "eval": "nowhere.jsonl"}, "prompts", "no file nowhere"),
    ],
)
def test_bad_data_are_refused(files, data, kind, words):
    write_jsonl(files / "one.jsonl", PROMPTS[:1])
    with pytest.raises(DataError, match=words):
        read(files, data, kind)


# -- what is checked before anything is written ------------------------------------------------


def prepared(tmp_path, method="sppo", **values):
    whole = {"model": "shipped", "data": "shipped", "oracle": {"kind": "restaurant"}, **values}
    return prepare(make_config(method, whole, [], tmp_path), tmp_path / "run", progress=nobody)


def test_a_method_that_asks_a_judge_needs_one(tmp_path):
    with pytest.raises(ConfigError, match="SPPO needs a judge: give an `oracle` section"):
        prepared(tmp_path, oracle=None)
    with pytest.raises(ConfigError, match="'restaurant' has no options; got scale"):
        prepared(tmp_path, oracle={"kind": "restaurant", "scale": 1})
    with pytest.raises(ConfigError, match=r"no kind 'restaurnt'\. Did you mean 'restaurant'"):
        prepared(tmp_path, oracle={"kind": "restaurnt"})
    assert not (tmp_path / "run").exists()


def test_a_method_of_pairs_needs_no_judge_and_is_then_not_compared(files):
    job = prepared(files, "dpo", data="pairs.jsonl", oracle=None)
    assert job.oracle is None
    assert job.judge is None
    assert len(job.data.rows) == 20
    job = prepared(files, "dpo", data="pairs.jsonl")
    assert job.oracle is None
    assert job.judge is not None
    assert len(job.data.rows) == 18


def test_conversational_data_need_a_chat_template(files, tmp_path):
    tokenizer = load_tokenizer("shipped")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(files / "plain")
    load_model("shipped").config.save_pretrained(files / "plain")
    with pytest.raises(ConfigError, match="no chat template"):
        prepared(files, tokenizer="plain")
    prepared(files, tokenizer="plain", data="prompts.jsonl")


def test_a_hub_name_says_how_it_is_fetched(tmp_path):
    with pytest.raises(EquilignError, match="fetched only with --download"):
        prepared(tmp_path, model="some/model")


# -- which rounds are compared -----------------------------------------------------------------


def test_every_and_steps():
    label = every(3, 7)
    assert [n for n in range(1, 8) if label(n) == n] == [3, 6, 7]
    assert all(label(n) is None for n in (1, 2, 4, 5))
    step = steps_of(2)
    assert [step(n) for n in range(1, 7)] == [None, 1, None, 2, None, 3]


@pytest.fixture(scope="module")
def small(chat_model):
    return load_model(chat_model), load_tokenizer(chat_model)


def contest(tmp_path, small, judge=SHORTER, held_out=None):
    sampling = SamplingConfig(max_new_tokens=6, batch_size=8)
    evaluation = Evaluation(["One?", "Two?"], judge, sampling, 2, 0, tmp_path / "evaluation")
    return Contest(evaluation, evaluation.answers("start", *small), held_out)


def test_a_second_judge_sees_the_same_answers(tmp_path, small):
    """Its win rate is one minus the first one's when it wants the opposite."""
    longer = CallableOracle(lambda x, a, b: 0.5 + 0.5 * np.sign(len(a) - len(b)))
    both = contest(tmp_path, small, held_out=longer)
    asked = []
    watcher = RoundEvaluation(
        "sppo", both, lambda g: [0.0] * 4, steps_of(2), Team(), lambda n, r: asked.append(n)
    )
    state = TrainerState()
    for epoch in (1.0, 2.0):
        state.epoch = epoch
        watcher.on_epoch_end(
            None, state, TrainerControl(), model=small[0], processing_class=small[1]
        )
    assert asked == [1]
    (row,) = both.results("sppo", [1, 2])
    assert row["round"] == 1
    assert row["held_out"]["win_rate"] == pytest.approx(1.0 - row["win_rate"])
    assert (tmp_path / "evaluation" / "sppo-001.held-out.json").exists()
    silent = CallableOracle(lambda x, a, b: pytest.fail("asked twice"))
    assert dataclasses.replace(both, held_out=silent).results("sppo", [1]) == [row]


def test_only_the_main_process_judges(tmp_path, small):
    other = Team(rank=1, size=2)
    watcher = RoundEvaluation(
        "sppo", contest(tmp_path, small), lambda g: [0.0] * 4, every(1, 1), other
    )
    watcher.team = dataclasses.replace(other, size=1)  # nobody to wait for in this test
    state = TrainerState()
    state.epoch = 1.0
    watcher.on_epoch_end(None, state, TrainerControl(), model=small[0], processing_class=small[1])
    assert not watcher.result_file(1).exists()


class Silent:
    """Judges nothing that begins with its prompt's first letter."""

    abstains = True

    def __init__(self, quiet):
        self.quiet = quiet

    def compare(self, prompts, a, b):
        known = np.array([0.75] * len(prompts))
        return np.where([p in self.quiet for p in prompts], np.nan, known)


def test_pairs_without_a_verdict_count_nowhere(tmp_path, small):
    policy = TransformersSampler(*small, SamplingConfig(max_new_tokens=6)).sample(
        ["One?", "Two?"], 2, 1
    )
    half = contest(tmp_path / "a", small, judge=Silent({"Two?"}))
    result = half.evaluation.compare(policy, half.start)
    # Asked in both orders, a judge that always says 0.75 says one half.
    assert result["win_rate"] == pytest.approx(0.5)
    assert result["per_prompt"][1] is None
    assert result["no_verdict_share"] == pytest.approx(0.5)
    json.dumps(result, allow_nan=False)
    mute = contest(tmp_path / "b", small, judge=Silent({"One?", "Two?"}))
    with pytest.raises(OracleError, match="no verdict on any of 8 pairs"):
        mute.evaluation.compare(policy, mute.start)


# -- the start model ---------------------------------------------------------------------------


@pytest.mark.parametrize("peft", [None, {"r": 2, "target_modules": ["q_proj", "v_proj"]}])
def test_start_logps_are_the_start_model_s_however_it_is_kept(tmp_path, small, peft):
    """With LoRA the adapter is off, without it a second copy answers: the same numbers."""
    from peft import get_peft_model

    job = prepared(tmp_path, peft=peft, args={"use_cpu": True})
    policy = job.start_model()
    if peft:
        torch.manual_seed(0)
        policy = get_peft_model(policy, lora_config(job.config))
    trained = [p for p in policy.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter += 0.05 * torch.randn_like(parameter)
    logps = StartLogps(job, policy)
    start, tokenizer = load_model("shipped"), load_tokenizer("shipped")
    groups = TransformersSampler(start, tokenizer, SamplingConfig(max_new_tokens=8)).sample(
        ["name[The Mill], food[French]"], 2, 0
    )
    expected = score_answers(start, groups, pad_id=pad_token(tokenizer))[0]
    moved = score_answers(policy, groups, pad_id=pad_token(tokenizer))[0]
    assert logps(groups) == pytest.approx(expected, abs=1e-5)
    assert moved != pytest.approx(expected, abs=1e-2)


# -- judges ------------------------------------------------------------------------------------


def test_judges_are_described(tmp_path):
    panel = make_oracle({"kind": "restaurant"}, tmp_path)
    described = describe_oracle(panel, oracle_name({"kind": "restaurant"}))
    assert described["name"] == "restaurant panel"
    assert [a["kind"] for a in described["attributes"]] == ["learned"] * 3 + ["rule"] * 2
    assert 0.5 < described["attributes"][0]["held_out_accuracy"] < 1.0
    assert describe_oracle(SHORTER, "x") == {"name": "x", "attributes": []}
    assert oracle_name({"kind": "reward", "path": "judge"}) == "reward judge"
    assert oracle_name(None) == "none"


# -- training once -----------------------------------------------------------------------------


class Quick:
    """Counts what is asked of it."""

    trained = 0

    def remove_callback(self, kind):
        pass

    def train(self, resume_from_checkpoint):
        assert resume_from_checkpoint is True
        Quick.trained += 1

    def save_model(self, folder):
        from pathlib import Path

        Path(folder).mkdir(parents=True)
        (Path(folder) / "weights").write_text("w")


def test_a_model_is_trained_once_and_is_whole_or_not_there(tmp_path):
    def card(folder, seconds):
        (folder / "README.md").write_text(f"{seconds}")

    def broken(folder, seconds):
        raise RuntimeError

    Quick.trained = 0
    with pytest.raises(RuntimeError):
        train_once(tmp_path, "sppo", 0, Quick, broken, Team())
    assert not (tmp_path / "models" / "sppo").exists()
    assert trained_seconds(tmp_path, "sppo") is None
    first = train_once(tmp_path, "sppo", 0, Quick, card, Team())
    again = train_once(tmp_path, "sppo", 0, lambda: pytest.fail("made again"), card, Team())
    assert again == first == trained_seconds(tmp_path, "sppo")
    assert Quick.trained == 2
    folder = tmp_path / "models" / "sppo"
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "weights"]


def test_rounds_of_a_step_are_averaged(tmp_path):
    rows = [
        {"method": "egpo", "kind": "round", "round": r, "step": r, "finished_share": r / 10}
        for r in (1, 2, 3, 4)
    ] + [
        {"method": name, "kind": "step", "round": r, "step": s, "loss": loss}
        for name, r, s, loss in [
            ("egpo", 1, 1, 4.0),
            ("egpo", 2, 2, 2.0),
            ("egpo", 3, 3, 1.0),
            ("sppo", 1, 1, 99.0),
        ]
    ]
    write_jsonl(tmp_path / "metrics.jsonl", rows)
    found = training_means(tmp_path, "egpo", 2)
    assert found[1] == {"train_finished_share": 0.2, "loss": 3.0}
    assert found[2] == {"train_finished_share": 0.4, "loss": 1.0}
    assert training_means(tmp_path / "nowhere", "egpo", 1) == {}


# -- the card ----------------------------------------------------------------------------------

ROW = {"round": 1, "win_rate": 0.6125, "low": 0.5, "high": 0.7, "kl_nats": 1.5, "mean_tokens": 30}


def card(**changes):
    values = {
        "method": METHODS["sppo"],
        "base_model": "org/base",
        "adapter": False,
        "data": "prompts.jsonl: 20 rows",
        "oracle": "reward judge",
        "held_out_oracle": None,
        "options": {"args": {"eta": 20.0}},
        "rounds": [ROW],
        "prompts": 8,
        "samples": 4,
        "seconds": 12.3,
        "environment": {"packages": {"equilign": "0.1.0", "torch": "2"}},
        **changes,
    }
    return card_text(Card(**values))


def test_a_card_says_how_the_model_was_made_and_how_it_compares():
    text = card()
    front = yaml.safe_load(text.split("---")[1])
    assert front["base_model"] == "org/base"
    assert front["library_name"] == "transformers"
    assert "equilign" in front["tags"]
    for words in (
        "SPPO (`sppo`), arXiv:2405.00675",
        "prompts.jsonl: 20 rows",
        "**Judge**: reward judge",
        "| 1 | 0.613 (0.500 to 0.700) | 1.50 | 30.0 |",
        "8 prompts that were not trained on, 4 answers each",
        "equilign 0.1.0, torch 2",
        "eta: 20.0",
        "AutoModelForCausalLM",
    ):
        assert words in text, words


def test_a_card_of_an_adapter_and_of_a_second_judge():
    second = {"win_rate": 0.4, "low": 0.3, "high": 0.5}
    text = card(adapter=True, rounds=[{**ROW, "held_out": second}], held_out_oracle="llm")
    assert yaml.safe_load(text.split("---")[1])["library_name"] == "peft"
    assert "AutoPeftModelForCausalLM" in text
    assert "| 0.400 (0.300 to 0.500) |" in text
    assert "**Held-out judge**: llm" in text
    assert "not compared" in card(rounds=[])
    assert "base_model" not in card(base_model="shipped").split("---")[1]


# -- the demo's options ------------------------------------------------------------------------


@pytest.mark.parametrize("method", TRAINED)
def test_demo_options_are_options_of_the_method(method, tmp_path):
    """Every listed option exists, and three rounds of the demo are a whole number of steps."""
    own = demo_options(method)
    _, config_class = METHODS[method].load()
    found = config_class(
        output_dir=str(tmp_path), num_rounds=3 * own.rounds_per_step, use_cpu=True, **own.args
    )
    assert found.learning_rate == COMMON["learning_rate"]
    assert found.num_rounds == 3 * own.rounds_per_step
    rule_stages = {"egpo": 2, "onpo": 2}.get(method, 1)
    assert own.rounds_per_step % rule_stages == 0


def test_methods_of_the_demo_exist_and_have_options_of_their_own():
    assert set(DEMO_OPTIONS) <= set(TRAINED)
    assert "eta" in demo_options("sppo").args
    assert "eta" not in demo_options("dpo").args


def test_judged_pairs_are_best_against_worst(tmp_path, small):
    prompts = ["One?", "Two?", "Three?"]
    sampling = SamplingConfig(max_new_tokens=8, batch_size=16)
    path = tmp_path / "pairs.jsonl"
    rows = judged_pairs(path, *small, SHORTER, prompts, sampling, seed=3)
    groups = TransformersSampler(*small, sampling).sample(prompts, 5, 3)
    for row, group in zip(rows, groups, strict=True):
        lengths = [len(c.text) for c in group.completions]
        assert row["chosen_prob"] == 1.0
        assert len(row["chosen"]) == min(lengths)
        assert len(row["rejected"]) == max(lengths)
    games = score_groups(SHORTER, prompts, [[c.text for c in g.completions] for g in groups])
    assert len(games) == len(rows)
    silent = CallableOracle(lambda x, a, b: pytest.fail("asked twice"))
    assert judged_pairs(path, *small, silent, prompts, sampling, seed=3) == rows
