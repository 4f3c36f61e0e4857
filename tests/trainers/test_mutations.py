"""Mistakes that other code has made, made here on purpose: the tests must see each one.

Two more live where their formulas do: a token's own KL in place of the sequence's
(`tests/losses/test_policy_gradient.py`, `tests/losses/test_ppo.py`), and the prompt in the loss
(`tests/losses/test_logps.py`).
"""

from contextlib import nullcontext
from functools import partial

import pytest

from equilign.oracles.judge_models import PairwiseModel
from equilign.rules import Slot
from equilign.trainers import mirror
from equilign.trainers.references import References
from equilign.trainers.slots import Slots
from tests.oracles import test_judge_models
from tests.trainers import test_consistency, test_game_trainer

gradient = partial(test_consistency.test_policy_gradient_is_the_exact_gradient, name="nash-md-pg")
lora_reference = test_game_trainer.test_lora_reference_is_the_base_model_and_not_the_adapted_one


def both_orders(tmp_path):
    test_judge_models.TestPairwise().test_equals_the_formula_with_a_head_that_favours_a_place()


def flipped_sign(patch):
    right = mirror.mirror_residual
    patch.setattr(
        mirror,
        "mirror_residual",
        lambda x, anchor, payoff, *, eta: right(x, anchor, -payoff, eta=eta),
    )


def opponent_is_the_policy(patch):
    patch.setattr(
        Slots, "mixture", lambda self, index: [(1.0, partial(self.playing, Slot.CURRENT))]
    )


def k3_as_coefficient(patch):
    """``e^r - 1 - r`` in place of ``-r``, ``r = log(ref / pi)``; eta * beta = 0.21 in that test."""

    def residual(logps, anchor, payoff, *, eta):
        weight = eta * 0.3
        ratio = -(logps - anchor) / weight
        return weight * (ratio.exp() - 1.0 - ratio) - eta * payoff

    patch.setattr(mirror, "mirror_residual", residual)


def end_token_left_out(patch):
    right = mirror.completion_logps

    def short(model, prompts, completions, **options):
        cut = [c[:-1] if len(c) > 1 else c for c in completions]
        return right(model, prompts, cut, **options)

    patch.setattr(mirror, "completion_logps", short)


def reference_with_the_adapter_on(patch):
    patch.setattr(References, "playing", lambda self, name: nullcontext())


def doubled_logit(patch):
    right = PairwiseModel.margins
    patch.setattr(PairwiseModel, "margins", lambda *rest: 2.0 * right(*rest))


MUTATIONS = [
    (flipped_sign, gradient),
    (opponent_is_the_policy, gradient),
    (k3_as_coefficient, gradient),
    (end_token_left_out, gradient),
    (reference_with_the_adapter_on, lora_reference),
    (doubled_logit, both_orders),
]


@pytest.mark.parametrize(("mutate", "check"), MUTATIONS, ids=[m.__name__ for m, _ in MUTATIONS])
def test_mistake_is_seen(tmp_path, monkeypatch, mutate, check):
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check(tmp_path)


def test_without_a_mistake_the_checks_pass(tmp_path):
    for number, check in enumerate(dict.fromkeys(check for _, check in MUTATIONS)):
        check(tmp_path / str(number))
