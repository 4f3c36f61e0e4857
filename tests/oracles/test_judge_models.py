import logging

import numpy as np
import pytest
import torch

from equilign.errors import ModelError
from equilign.oracles.base import Oracle, ScoredOracle, score_groups
from equilign.oracles.general_preference import GeneralPreferenceModel, load_judge, skew_score
from equilign.oracles.judge_models import PairwiseModel, RewardModel
from equilign.oracles.judge_text import JudgeConfig, save_judge_config, win_probability
from tests.oracles.tiny_judges import count_rows, decoder, encoder, sigmoid, tokenizer

PROMPTS = ["a b", "c", "a b", "e e e e e e"]
LEFT = ["good", "bad good a", "long c d e", "kind"]
RIGHT = ["bad bad", "short", "good", "f f f f f f f"]

MAKERS = {
    "reward decoder": lambda **k: RewardModel(decoder(), tokenizer("chat"), **k),
    "reward encoder": lambda **k: RewardModel(encoder(), tokenizer("pair"), **k),
    "pairwise decoder": lambda **k: PairwiseModel(decoder(), tokenizer("plain"), **k),
    "pairwise encoder": lambda **k: PairwiseModel(encoder(2), tokenizer("pair"), **k),
    "general decoder": lambda **k: GeneralPreferenceModel(decoder(4), tokenizer("chat"), **k),
    "general encoder": lambda **k: GeneralPreferenceModel(encoder(6), tokenizer("pair"), **k),
}
every_judge = pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))


@every_judge
class TestEveryJudge:
    def test_exchanging_the_answers_is_exactly_the_opposite(self, make):
        judge = make()
        forward = judge.compare(PROMPTS, LEFT, RIGHT)
        backward = judge.compare(PROMPTS, RIGHT, LEFT)
        assert (forward + backward == 1.0).all()
        assert np.ptp(forward) > 1e-4  # it does judge
        np.testing.assert_array_equal(
            judge.margins(PROMPTS, LEFT, RIGHT), -judge.margins(PROMPTS, RIGHT, LEFT)
        )

    def test_an_answer_ties_with_itself(self, make):
        assert (make().compare(PROMPTS, LEFT, LEFT) == 0.5).all()

    def test_company_and_padding_change_nothing(self, make):
        """In float64, one by one, all together, and with a much longer text in the batch."""
        judge = make(batch_size=16)
        together = judge.margins(PROMPTS, LEFT, RIGHT)
        alone = [
            judge.margins([p], [a], [b])[0] for p, a, b in zip(PROMPTS, LEFT, RIGHT, strict=True)
        ]
        np.testing.assert_allclose(together, alone, atol=1e-10)
        longer = judge.margins([*PROMPTS, "f " * 20], [*LEFT, "a"], [*RIGHT, "b"])
        np.testing.assert_allclose(longer[:-1], together, atol=1e-10)
        np.testing.assert_allclose(
            make(batch_size=1).margins(PROMPTS, LEFT, RIGHT), together, atol=1e-10
        )

    def test_groups_agree_with_pairs(self, make):
        judge = make()
        groups = [["good", "bad a", "c d e"], ["kind", "kind", "f f f f f"]]
        games = score_groups(judge, ["a b", "c"], groups)
        for prompt, answers, game in zip(["a b", "c"], groups, games, strict=True):
            assert (game + game.T == 1.0).all()
            assert (np.diag(game) == 0.5).all()
            one_by_one = [[judge.compare([prompt], [a], [b])[0] for b in answers] for a in answers]
            np.testing.assert_allclose(game, one_by_one, atol=1e-10)
        assert games[1][0, 1] == 0.5  # equal texts

    def test_nothing_to_judge(self, make):
        assert make().compare([], [], []).shape == (0,)
        assert make().compare_groups([], []) == []

    def test_is_an_oracle(self, make):
        judge = make()
        assert isinstance(judge, Oracle)
        assert isinstance(judge, ScoredOracle) == (judge.kind == "reward")


@pytest.mark.parametrize("kind", ["reward decoder", "general decoder"])
def test_one_row_per_distinct_text(kind):
    judge = MAKERS[kind](batch_size=4)
    rows = count_rows(judge.model)
    answers = ["good", "bad", "long", "good"]
    judge.compare_groups(["a", "b"], [answers, answers[:3]])
    assert sum(rows) == 6  # K each, a repeated answer once
    rows.clear()
    judge.compare(["a"] * 6, ["good"] * 3 + ["bad"] * 3, ["bad", "long", "good"] * 2)
    assert sum(rows) == 3
    assert judge.num_scored == 9


def test_pairwise_asks_every_ordered_pair_once():
    judge = MAKERS["pairwise decoder"]()
    rows = count_rows(judge.model)
    score_groups(judge, ["a"], [["good", "bad", "long", "good"]])
    assert sum(rows) == 6  # 3 distinct answers, 3 * 2 orders


class TestReward:
    def test_verdict_is_the_sigmoid_of_the_scaled_difference(self):
        judge = RewardModel(decoder(), tokenizer("chat"), JudgeConfig("reward", scale=0.25))
        difference = judge.score(PROMPTS, LEFT) - judge.score(PROMPTS, RIGHT)
        expected = sigmoid(0.25 * difference)
        np.testing.assert_allclose(judge.compare(PROMPTS, LEFT, RIGHT), expected, rtol=1e-12)

    def test_reads_the_last_token_whatever_the_padding_token_of_the_config(self):
        """The checkpoint knows no padding token; a batch must not read its padding."""
        model, own = decoder(), tokenizer("chat")
        ids = own.apply_chat_template(
            [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "good"}],
            return_dict=True,
            return_tensors="pt",
        )["input_ids"]
        with torch.no_grad():
            hidden = model.model(ids).last_hidden_state[0, -1]
            expected = float(model.score(hidden)[0])
        scores = RewardModel(model, own).score(["a b", "c"], ["good", "bad " * 9])
        assert scores[0] == pytest.approx(expected, abs=1e-10)

    def test_cannot_represent_a_cycle(self):
        """Any three scores: the product of the odds around a circle is 1."""
        judge = MAKERS["reward decoder"]()
        game = judge.compare_groups(["a"], [["good", "bad", "long"]])[0]
        odds = game / (1.0 - game)
        assert odds[0, 1] * odds[1, 2] * odds[2, 0] == pytest.approx(1.0)

    def test_huge_scores_give_finite_verdicts(self):
        judge = RewardModel(decoder(), tokenizer("chat"), JudgeConfig("reward", scale=1e6))
        verdicts = judge.compare(PROMPTS, LEFT, RIGHT)
        assert np.isin(verdicts, (0.0, 1.0)).all()

    def test_broken_weights_are_named(self):
        model = decoder()
        model.score.weight.data.fill_(float("inf"))
        with pytest.raises(ModelError, match=r"(nan|inf).*good.*float32"):
            RewardModel(model, tokenizer("chat")).score(["a"], ["good"])


class TestPairwise:
    def test_equals_the_formula_with_a_head_that_favours_a_place(self):
        """s_ab = 3 r(a) - r(b) + 2: the bias and the asymmetry cancel, the logit is not doubled."""
        judge = PairwiseModel(encoder(), tokenizer("pair"))
        worth = {"good": 1.5, "bad": -0.5, "kind": 0.25}
        judge.outputs = lambda prompts, answers: np.array(
            [[3.0 * worth[a] - worth[b] + 2.0] for a, b in answers]
        )
        got = judge.compare(["a"] * 3, ["good", "bad", "kind"], ["bad", "kind", "good"])
        expected = [
            sigmoid(((3 * worth[a] - worth[b]) - (3 * worth[b] - worth[a])) / 2)
            for a, b in (("good", "bad"), ("bad", "kind"), ("kind", "good"))
        ]
        np.testing.assert_allclose(got, expected, rtol=1e-12)
        assert got[0] == pytest.approx(sigmoid(2 * (1.5 + 0.5)))

    def test_runs_both_orders_of_the_real_model(self):
        model, own = decoder(), tokenizer("plain")
        judge = PairwiseModel(model, own, JudgeConfig("pairwise", scale=0.5))

        def logit(a, b):
            text = f"c\n\nAnswer 1:\n{a}\n\nAnswer 2:\n{b}"
            ids = torch.tensor([[*own(text, add_special_tokens=False)["input_ids"], 2]])
            with torch.no_grad():
                return float(model(ids).logits[0, 0])

        forward, backward = logit("good", "bad"), logit("bad", "good")
        assert abs(forward + backward) > 0.05  # this model does favour a place
        expected = sigmoid(0.5 * (forward - backward) / 2)
        assert judge.compare(["c"], ["good"], ["bad"])[0] == pytest.approx(expected, abs=1e-10)

    def test_two_outputs_are_a_softmax(self):
        judge = MAKERS["pairwise encoder"]()
        values = judge.outputs(["c"], [("good", "bad")])[0]
        probability = np.exp(values[0]) / np.exp(values).sum()
        assert sigmoid(judge.logits(["c"], ["good"], ["bad"]))[0] == pytest.approx(probability)

    def test_first_output_means_the_first_answer(self):
        judge = PairwiseModel(encoder(2), tokenizer("pair"))
        judge.outputs = lambda prompts, answers: np.array(
            [[2.0, 0.0] if a == "good" else [0.0, 2.0] for a, _ in answers]
        )
        assert judge.compare(["c"], ["good"], ["bad"])[0] == pytest.approx(sigmoid(2.0))


class TestGeneral:
    def test_score_is_the_matrix_form(self):
        block = np.array([[0.0, -1.0], [1.0, 0.0]])
        matrix = np.kron(np.eye(3), block)
        a, b = np.random.default_rng(0).normal(size=(2, 5, 6))
        np.testing.assert_allclose(skew_score(a, b), np.einsum("ni,ij,nj->n", a, matrix, b))
        np.testing.assert_array_equal(skew_score(a, b), -skew_score(b, a))

    def test_three_embeddings_make_a_cycle(self):
        judge = GeneralPreferenceModel(
            decoder(2), tokenizer("chat"), JudgeConfig("general", scale=0.5)
        )
        angle = {"good": 0.0, "bad": 2 * np.pi / 3, "long": 4 * np.pi / 3}
        judge.outputs = lambda prompts, answers: np.array(
            [[np.cos(angle[a]), np.sin(angle[a])] for (a,) in answers]
        )
        game = judge.compare_groups(["a"], [["good", "bad", "long"]])[0]
        # v_a^T R v_b = sin(angle_a - angle_b)
        up = sigmoid(np.sin(2 * np.pi / 3) / 0.5)
        expected = [[0.5, 1 - up, up], [up, 0.5, 1 - up], [1 - up, up, 0.5]]
        np.testing.assert_allclose(game, expected, atol=1e-12)

    def test_contains_bradley_terry(self):
        judge = GeneralPreferenceModel(decoder(2), tokenizer("chat"))
        rewards = {"good": 1.3, "bad": -0.4}
        judge.outputs = lambda prompts, answers: np.array([[1.0, rewards[a]] for (a,) in answers])
        assert judge.compare(["a"], ["good"], ["bad"])[0] == pytest.approx(sigmoid(1.7))

    def test_scale_divides(self):
        wide = GeneralPreferenceModel(
            decoder(4), tokenizer("chat"), JudgeConfig("general", scale=2.0)
        )
        narrow = MAKERS["general decoder"]()
        np.testing.assert_allclose(
            2.0 * wide.margins(PROMPTS, LEFT, RIGHT), narrow.margins(PROMPTS, LEFT, RIGHT)
        )


class TestLoading:
    @pytest.mark.parametrize("kind", ["reward", "pairwise", "general"])
    def test_round_trip(self, kind, tmp_path):
        labels = {"reward": 1, "pairwise": 1, "general": 4}[kind]
        before = {"reward": RewardModel, "pairwise": PairwiseModel}.get(
            kind, GeneralPreferenceModel
        )(decoder(labels), tokenizer("chat"), JudgeConfig(kind, scale=0.7, max_length=40))
        for folder in (tmp_path / "judge", tmp_path / "run" / "judge"):
            before.model.save_pretrained(folder)
            before.tokenizer.save_pretrained(folder)
            save_judge_config(folder, before.config)
        for place in (tmp_path / "judge", tmp_path / "run"):
            after = load_judge(place, dtype=torch.float64)
            assert type(after) is type(before)
            assert after.config == before.config
            np.testing.assert_allclose(
                after.compare(PROMPTS, LEFT, RIGHT), before.compare(PROMPTS, LEFT, RIGHT)
            )
        assert load_judge(place, scale=2.0).config.scale == 2.0
        assert load_judge(place, dtype="bfloat16").model.dtype == torch.bfloat16

    def test_a_language_model_is_no_judge(self, chat_model):
        with pytest.raises(ModelError, match=r"no trained judge.*score\.weight.*fit-oracle"):
            RewardModel.from_pretrained(chat_model)

    def test_missing_folder(self, tmp_path):
        with pytest.raises(ModelError, match=r"nowhere.*fit-oracle"):
            load_judge(tmp_path / "nowhere")
        with pytest.raises(ModelError, match="no model folder at"):
            RewardModel.from_pretrained(tmp_path / "nowhere")

    def test_kind_of_the_file_against_the_class(self, tmp_path):
        decoder().save_pretrained(tmp_path)
        tokenizer("chat").save_pretrained(tmp_path)
        save_judge_config(tmp_path, JudgeConfig("pairwise"))
        with pytest.raises(ModelError, match=r"'pairwise'.*RewardModel.*load_judge"):
            RewardModel.from_pretrained(tmp_path)

    def test_malformed_file(self, tmp_path):
        (tmp_path / "equilign_judge.json").write_text('{"kind": "reward", "scale": -1}')
        with pytest.raises(ModelError, match="positive; got -1"):
            load_judge(tmp_path)
        (tmp_path / "equilign_judge.json").write_text("nonsense")
        with pytest.raises(ModelError, match=r"cannot read .*equilign_judge\.json"):
            load_judge(tmp_path)

    @pytest.mark.parametrize(
        ("judge", "labels", "message"),
        [
            (RewardModel, 2, r"one output.*num_labels = 2"),
            (PairwiseModel, 3, r"one output .* or two .*num_labels = 3"),
            (GeneralPreferenceModel, 3, r"even number of outputs.*num_labels = 3"),
            (GeneralPreferenceModel, 1, r"even number of outputs.*num_labels = 1"),
        ],
    )
    def test_wrong_head(self, judge, labels, message):
        with pytest.raises(ModelError, match=message):
            judge(decoder(labels), tokenizer("chat"))

    def test_wrong_options(self, tmp_path):
        with pytest.raises(ModelError, match="sclae"):
            RewardModel.from_pretrained(tmp_path, sclae=2.0)
        with pytest.raises(ModelError, match="batch_size must be at least 1"):
            RewardModel(decoder(), tokenizer("chat"), batch_size=0)
        with pytest.raises(ModelError, match="reads 64 tokens at most"):
            RewardModel(decoder(), tokenizer("chat"), JudgeConfig("reward", max_length=65))


def test_verdicts_never_leave_the_unit_interval():
    margins = np.array([-1e308, -800.0, -40.0, -0.0, 0.0, 1e-300, 40.0, 800.0, 1e308])
    values = win_probability(margins)
    assert (values + win_probability(-margins) == 1.0).all()
    assert values[[0, 4, 8]].tolist() == [0.0, 0.5, 1.0]
    assert np.isnan(win_probability(np.array([np.nan]))).all()
    np.testing.assert_allclose(
        win_probability(np.linspace(-5, 5, 7)), sigmoid(np.linspace(-5, 5, 7))
    )


def test_half_precision_is_close(caplog):
    half = RewardModel(decoder(dtype=torch.bfloat16), tokenizer("chat"))
    full = RewardModel(decoder(), tokenizer("chat"))
    with caplog.at_level(logging.WARNING, logger="equilign"):
        a, b = half.compare(PROMPTS, LEFT, RIGHT), full.compare(PROMPTS, LEFT, RIGHT)
    np.testing.assert_allclose(a, b, atol=0.1)
    assert not caplog.records
