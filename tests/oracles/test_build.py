import sys

import numpy as np
import pytest
import torch

from equilign.errors import ConfigError, EquilignError, ModelError
from equilign.oracles.base import score_groups
from equilign.oracles.build import KINDS, build_oracle, spec_key
from equilign.oracles.ensemble import Ensemble
from equilign.oracles.general_preference import GeneralPreferenceModel
from equilign.oracles.judge_models import PairwiseModel, RewardModel
from equilign.oracles.judge_text import JudgeConfig, save_judge_config
from equilign.oracles.panel import Panel
from equilign.oracles.tabular import ScoreOracle, TabularOracle
from tests.oracles.tiny_judges import decoder, tokenizer

CODE = """
import helpers_beside
def longer(prompt, a, b):
    return 0.9 if len(a) > len(b) else 0.1 if len(a) < len(b) else 0.5
def length(prompts, answers):
    return [float(len(a)) for a in answers]
def short(prompts, answers, factor=2.0):
    return [-factor * len(a) for a in answers]
def trl_reward(completions, **kwargs):
    return [len(c) - len(p) for p, c in zip(kwargs["prompts"], completions)]
def trl_bare(completions):
    return [2.0 * len(c) for c in completions]
class Judge:
    def compare(self, prompts, a, b):
        import numpy as np
        return np.full(len(prompts), 0.25)
class Needy:
    def __init__(self, key): ...
    def compare(self, prompts, a, b): ...
ready = Judge()
def nothing(): ...
number = 3
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("specs")
    (folder / "mine.py").write_text(CODE)
    (folder / "helpers_beside.py").write_text("")
    (folder / "broken.py").write_text("1 / 0")
    (folder / "game.csv").write_text("name,r,p\nr,0.5,0.9\np,0.1,0.5\n")
    for kind, labels in (("reward", 1), ("pairwise", 2), ("general", 4)):
        decoder(labels, dtype=torch.float32).save_pretrained(folder / kind)
        tokenizer("chat").save_pretrained(folder / kind)
        save_judge_config(folder / kind, JudgeConfig(kind, scale=0.5))
    return folder


def one(oracle, a="aaa", b="b", prompt="p"):
    return float(oracle.compare([prompt], [a], [b])[0])


def python(function, **options):
    return {"kind": "python", "function": function, **options}


class TestKinds:
    @pytest.mark.parametrize(
        ("kind", "cls"),
        [("reward", RewardModel), ("pairwise", PairwiseModel), ("general", GeneralPreferenceModel)],
    )
    def test_judges(self, base, kind, cls):
        oracle = build_oracle({"kind": kind, "path": kind, "batch_size": 3}, base)
        assert type(oracle) is cls
        assert (oracle.batch_size, oracle.config.scale) == (3, 0.5)
        assert (
            build_oracle({"kind": kind, "path": str(base / kind), "scale": 2.0}, "/").config.scale
            == 2
        )

    def test_a_run_directory_with_a_judge_in_it(self, base, tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "judge").symlink_to(base / "reward")
        oracle = build_oracle({"kind": "reward", "path": "run"}, tmp_path)
        assert oracle.config.scale == 0.5

    @pytest.mark.parametrize(
        ("function", "expected"),
        [
            ("mine.py:longer", 0.9),
            ("mine.py:length", 1 / (1 + np.exp(-2.0))),
            ("mine.py:short", 1 / (1 + np.exp(4.0))),
            ("mine.py:trl_reward", 1 / (1 + np.exp(-2.0))),
            ("mine.py:trl_bare", 1 / (1 + np.exp(-4.0))),
            ("mine.py:Judge", 0.25),
            ("mine.py:ready", 0.25),
            ("mine:longer", 0.9),
        ],
    )
    def test_python(self, base, function, expected):
        path = [*sys.path]
        assert one(build_oracle(python(function), base)) == pytest.approx(expected)
        assert sys.path == path

    def test_python_scale_and_declared_returns(self, base):
        oracle = build_oracle(python("mine.py:length", scale=0.5, returns="score"), base)
        assert one(oracle) == pytest.approx(1 / (1 + np.exp(-1.0)))

    def test_ensemble(self, base):
        members = {"a": python("mine.py:longer"), "b": {"kind": "reward", "path": "reward"}}
        oracle = build_oracle(
            {"kind": "ensemble", "members": members, "weights": {"a": 3, "b": 1}}, base
        )
        assert isinstance(oracle, Ensemble)
        judge = build_oracle(members["b"], base)
        assert one(oracle) == pytest.approx((3 * 0.9 + one(judge)) / 4)
        listed = build_oracle({"kind": "ensemble", "members": [members["a"]]}, base)
        assert one(listed) == pytest.approx(0.9)

    def test_panel(self, base):
        attributes = {
            "length": "mine.py:length",
            "short": python("mine.py:short"),
            "judge": {"kind": "reward", "path": "reward"},
        }
        panel = build_oracle(
            {"kind": "panel", "attributes": attributes, "weights": {"length": 1, "judge": 1}}, base
        )
        assert isinstance(panel, Panel)
        assert [a.kind for a in panel.attributes] == ["rule", "rule", "learned"]
        judge = build_oracle(attributes["judge"], base)
        assert one(panel) == (1.0 + (one(judge) > 0.5)) / 2

    def test_tabular(self, base):
        assert one(build_oracle({"kind": "tabular", "game": "game.csv"}, base), "r", "p") == 0.9
        named = {"kind": "tabular", "game": "rock-paper-scissors", "texts": ["r", "p", "s"]}
        assert isinstance(build_oracle(named, base), TabularOracle)
        per_prompt = {
            "kind": "tabular",
            "games": {"x": [[0.5, 0.7], [0.3, 0.5]], "y": "game.csv"},
            "texts": ["r", "p"],
        }
        oracle = build_oracle(per_prompt, base)
        assert [one(oracle, "r", "p", x) for x in "xy"] == [0.7, 0.9]

    def test_llm(self, base):
        spec = {
            "kind": "llm",
            "base_url": "http://localhost:1/v1",
            "model": "m",
            "api_key_env": None,
        }
        oracle = build_oracle(spec, base)
        assert type(oracle).__name__ == "LLMJudge"
        assert (oracle.config.model, oracle.config.base_url) == ("m", "http://localhost:1/v1")
        with pytest.raises(ConfigError, match="needs 'model'"):
            build_oracle({"kind": "llm", "base_url": "http://localhost:1/v1"}, base)
        with pytest.raises(ConfigError, match="modell"):
            build_oracle({**spec, "modell": "m"}, base)

    def test_llm_cached(self, base, tmp_path):
        """Through the real classes: stored under the judge's own identity, no call is made."""
        spec = {
            "kind": "llm",
            "base_url": "http://localhost:1/v1",
            "model": "m",
            "api_key_env": None,
        }
        oracle = build_oracle({**spec, "cache": "verdicts.sqlite"}, tmp_path)
        assert type(oracle).__name__ == "CachedOracle"
        assert (tmp_path / "verdicts.sqlite").is_file()

    def test_cached_verdicts_are_not_asked_again(self, base, tmp_path):
        (tmp_path / "count.py").write_text(
            "calls = []\ndef judge(prompt, a, b):\n    calls.append(a)\n    return 0.75\n"
        )
        spec = python("count.py:judge", cache="v.sqlite")
        assert [one(build_oracle(spec, tmp_path)) for _ in range(2)] == [0.75, 0.75]
        # Other code is another judge: its verdicts are its own.
        (tmp_path / "count.py").write_text("def judge(prompt, a, b):\n    return 0.25\n")
        assert one(build_oracle(spec, tmp_path)) == 0.25
        (tmp_path / "count.py").write_text("def judge(prompt, a, b):\n    raise SystemError\n")
        with pytest.raises(SystemError):
            one(build_oracle(spec, tmp_path))

    def test_a_cached_verdict_needs_no_judge(self, tmp_path):
        """The function fails when called a second time, the file alone answers."""
        (tmp_path / "once.py").write_text(
            "import pathlib\n"
            "def judge(prompt, a, b):\n"
            "    pathlib.Path(__file__).with_name('asked').touch(exist_ok=False)\n"
            "    return 0.75\n"
        )
        spec = python("once.py:judge", cache="v.sqlite")
        assert [one(build_oracle(spec, tmp_path)) for _ in range(2)] == [0.75, 0.75]

    def test_kinds_of_the_caller(self, base):
        extra = {"mean": lambda options, context: ScoreOracle(lambda p, a: [options["x"]] * len(a))}
        spec = {"kind": "ensemble", "members": {"m": {"kind": "mean", "x": 2.0}}}
        assert one(build_oracle(spec, base, extra)) == 0.5
        with pytest.raises(ConfigError, match="Did you mean 'mean'"):
            build_oracle({"kind": "meen"}, base, extra)


class TestKey:
    def test_says_which_judge(self, base, tmp_path):
        spec = {"kind": "reward", "path": "reward"}
        assert spec_key(spec, base) == spec_key(dict(reversed(spec.items())), base)
        assert spec_key(spec, base) != spec_key({**spec, "scale": 2.0}, base)
        nested = {"kind": "ensemble", "members": {"a": {"kind": "python", "function": "f.py:g"}}}
        (tmp_path / "f.py").write_text("one")
        before = spec_key(nested, tmp_path)
        (tmp_path / "f.py").write_text("two")
        assert spec_key(nested, tmp_path) != before

    def test_new_weights_are_a_new_judge(self, tmp_path):
        spec = {"kind": "reward", "path": "judge"}
        keys = set()
        for seed in (0, 1):
            decoder(seed=seed).save_pretrained(tmp_path / "judge")
            keys.add(spec_key(spec, tmp_path))
        assert len(keys) == 2


class TestErrors:
    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("reward", "a mapping with a 'kind'; got 'reward'"),
            ({}, r"no kind is given\. There are: ensemble, general"),
            ({"kind": "rewards"}, "no kind 'rewards'. Did you mean 'reward'"),
            ({"kind": "reward"}, "'reward' needs 'path'"),
            ({"kind": "reward", "path": "reward", "batchsize": 3}, "Did you mean 'batch_size'"),
            ({"kind": "ensemble", "members": {}}, "'members' must map names to specifications"),
            ({"kind": "panel", "attributes": ["mine.py:longer"]}, "'1' of the panel only compares"),
            ({"kind": "tabular"}, "needs 'game', or 'games'"),
            ({"kind": "tabular", "game": [[0.5, 0.5], [0.5, 0.5]]}, "no labels, so give 'texts'"),
            ({"kind": "tabular", "game": "poem", "texts": ["a"]}, "poem"),
            ({"kind": "tabular", "game": {"a": 1}, "texts": ["a"]}, "no matrix of win prob"),
            (python("mine.py"), "must be 'module:function' or 'file.py:function'"),
            (python("none.py:f"), r"there is no file .*none\.py"),
            (python("broken.py:f"), "cannot import .*broken.py: ZeroDivisionError"),
            (python("mine.py:absent"), r"has no 'absent'; it has .*longer"),
            (python("no_such_module_here:f"), "ModuleNotFoundError.*path/to/file.py"),
            (python("mine.py:nothing"), r"parameters \(\); an oracle is a function"),
            (python("mine.py:number"), "is int, neither a function nor an oracle"),
            (python("mine.py:Needy"), r"without arguments: TypeError.*'key'"),
            (python("mine.py:length", returns="probability"), r"a function of \(prompt, a, b\)"),
            (python("mine.py:length", returns="poem"), "probability, score; got 'poem'"),
        ],
    )  # fmt: skip
    def test_says_what_is_wrong(self, base, spec, message):
        with pytest.raises(EquilignError, match=message):
            build_oracle(spec, base)

    def test_missing_folder(self, base):
        with pytest.raises(ModelError, match=r"no model folder at .*nowhere"):
            build_oracle({"kind": "reward", "path": "./no/where/nowhere"}, base)

    def test_wrong_head(self, base):
        with pytest.raises(ModelError, match=r"'general'.*load_judge"):
            build_oracle({"kind": "reward", "path": "general"}, base)
        (base / "general" / "equilign_judge.json").rename(base / "kept.json")
        try:
            with pytest.raises(ModelError, match="num_labels = 4"):
                build_oracle({"kind": "reward", "path": "general"}, base)
        finally:
            (base / "kept.json").rename(base / "general" / "equilign_judge.json")


def test_every_kind_is_documented():
    from equilign.oracles import build

    assert all(f"`{kind}`" in build.__doc__ for kind in KINDS)


def test_a_built_judge_plays_a_group(base):
    oracle = build_oracle({"kind": "general", "path": "general"}, base)
    game = score_groups(oracle, ["a"], [["good", "bad", "long"]])[0]
    assert (game + game.T == 1.0).all()
