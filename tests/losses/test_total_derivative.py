"""STA's total derivative: against dense Hessians, finite differences and the tabular game."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    OPTConfig,
    OPTForSequenceClassification,
)

from equilign.losses.pair_gram import PairGram
from equilign.losses.total_derivative import (
    Pairs,
    _double_backward,
    answer_advantage,
    conjugate_gradients,
    curvatures,
    directional_derivative,
    exact_response,
    gauss_newton_response,
    residuals,
    reward_slope,
)
from equilign.play import log_normalise
from equilign.play.reward_game import fit_reward, policy_gradient, response_term
from tests.play.games import COMAL, random_game

THETA = np.array([0.3, -0.2, 0.1])


def all_pairs(prefs, law):
    """Every unordered pair of listed answers, with the weight of both of its orders."""
    n = len(law)
    first, second = np.triu_indices(n, 1)
    return Pairs(
        torch.tensor(first),
        torch.tensor(second),
        torch.tensor(prefs[first, second]),
        torch.tensor(2.0 * law[first] * law[second]),
    )


def members(pairs, n):
    decided = torch.zeros(len(pairs.first), n, dtype=torch.bool)
    rows = torch.arange(len(pairs.first))
    decided[rows, pairs.first] = True
    decided[rows, pairs.second] = True
    return decided


def table(parameters):
    return parameters[0]


def tabular_response(prefs, pi, reward, ridge, solver):
    pairs, shares = all_pairs(prefs, pi), torch.tensor(pi)
    weights = (torch.tensor(reward),)
    if solver == "exact":
        return pairs, exact_response(
            table,
            weights,
            pairs,
            reward_slope(table, weights, shares),
            damping=ridge,
            iterations=40,
            tolerance=1e-14,
        )
    jacobian = torch.eye(len(pi), dtype=torch.float64)
    deltas = jacobian[pairs.first] - jacobian[pairs.second]
    return pairs, gauss_newton_response(
        deltas @ deltas.T, deltas @ (jacobian.T @ shares),
        pairs.margins(weights[0]), pairs.win_prob, pairs.weight, damping=ridge,
    )  # fmt: skip


def tabular_total(prefs, pi, ridge, solver):
    """Naive and total policy gradient on logits."""
    reward = fit_reward(prefs, pi, ridge)
    pairs, found = tabular_response(prefs, pi, reward, ridge, solver)
    extra = answer_advantage(
        found.gain, pairs.weight, members(pairs, len(pi)), torch.tensor(pi)
    ).numpy()
    return policy_gradient(pi, reward), policy_gradient(pi, reward + extra)


SOLVERS = ("exact", "gauss-newton")


# -- the tabular game -----------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("ridge", [0.3, 1e-3])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_matrix_games_response_term(seed, ridge, solver):
    game, rng = random_game(seed, 5), np.random.default_rng(seed)
    pi, reward = rng.dirichlet(np.ones(5)), rng.normal(size=5)  # not at the fit's optimum either
    pairs, found = tabular_response(game.prefs, pi, reward, ridge, solver)
    extra = answer_advantage(found.gain, pairs.weight, members(pairs, 5), torch.tensor(pi))
    expected = response_term(game.prefs, pi, reward, ridge)
    np.testing.assert_allclose(policy_gradient(pi, extra.numpy()), expected, atol=1e-9)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("ridge", [0.1, 1e-3])
def test_total_is_the_finite_difference_of_the_fitted_objective(ridge, solver):
    game = random_game(1, 4)
    theta = np.random.default_rng(1).normal(size=4)

    def objective(logits):
        pi = np.exp(log_normalise(logits))
        return float(pi @ fit_reward(game.prefs, pi, ridge))

    h = 1e-5
    want = np.array([
        (objective(theta + h * e) - objective(theta - h * e)) / (2 * h) for e in np.eye(4)
    ])  # fmt: skip
    pi = np.exp(log_normalise(theta))
    naive, total = tabular_total(game.prefs, pi, ridge, solver)
    assert np.linalg.norm(total - want) < 1e-4 * np.linalg.norm(want)
    assert np.linalg.norm(naive - want) > 1e-2 * np.linalg.norm(want)


@pytest.mark.parametrize("solver", SOLVERS)
def test_published_values_on_the_cycle(solver):
    pi = np.exp(log_normalise(THETA))
    naive, total = tabular_total(COMAL, pi, 1e-6, solver)
    np.testing.assert_allclose(naive, (0.0020, 0.0300, -0.0320), atol=6e-5)
    np.testing.assert_allclose(total, (-0.0513, 0.0026, 0.0487), atol=6e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_bradley_terry_truth_and_no_ridge_need_no_correction(solver):
    scores = np.array([0.5, -0.7, 0.1, 0.9])
    prefs = 1.0 / (1.0 + np.exp(scores[None, :] - scores[:, None]))
    pi = np.array([0.4, 0.3, 0.2, 0.1])
    naive, total = tabular_total(prefs, pi, 1e-8, solver)
    np.testing.assert_allclose(total, naive, atol=1e-6)
    assert np.abs(naive).max() > 0.01


def test_a_constant_per_prompt_changes_nothing():
    """The null direction: shares with any total, rewards with any constant."""
    game, pi = random_game(3, 4), np.array([0.4, 0.3, 0.2, 0.1])
    reward = np.random.default_rng(0).normal(size=4)
    pairs = all_pairs(game.prefs, pi)
    weights = (torch.tensor(reward),)
    runs = []
    for shares in (torch.tensor(pi), torch.tensor(pi) - 0.25, torch.tensor(pi) + 10.0):
        slope = reward_slope(table, weights, shares)
        found = exact_response(table, weights, pairs, slope, damping=1e-4, iterations=40)
        runs.append(found.along)
    torch.testing.assert_close(runs[0], runs[1], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(runs[0], runs[2], rtol=1e-5, atol=1e-6)
    shifted = exact_response(
        table, (weights[0] + 7.0,), pairs, (torch.tensor(pi),), damping=1e-4, iterations=40
    )
    torch.testing.assert_close(shifted.along, runs[0], rtol=1e-6, atol=1e-8)


# -- networks -------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, hidden=3):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 1)).double()

    def forward(self, x):
        return self.layers(x).squeeze(-1)


FEATURES = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
NET_PAIRS = Pairs(
    torch.tensor([0, 2, 4, 6, 1]),
    torch.tensor([1, 3, 5, 7, 2]),
    torch.tensor([1.0, 0.0, 0.3, 0.8, 0.5], dtype=torch.float64),
    torch.full((5,), 0.2, dtype=torch.float64),
)
SHARES = torch.full((8,), 0.125, dtype=torch.float64)


def functional(model):
    names = [n for n, p in model.named_parameters() if p.requires_grad]

    def rewards(parameters):
        return torch.func.functional_call(
            model, dict(zip(names, parameters, strict=True)), (FEATURES,)
        )

    return rewards, [p for p in model.parameters() if p.requires_grad]


def dense(model, damping):
    """Margins' change along ``(-H + damping)^{-1} g``, everything written out."""
    rewards, parameters = functional(model)
    sizes = [p.numel() for p in parameters]

    def unflat(w):
        return tuple(x.view_as(p) for x, p in zip(w.split(sizes), parameters, strict=True))

    at = torch.cat([p.detach().flatten() for p in parameters])
    hessian = torch.autograd.functional.hessian(lambda w: NET_PAIRS.loss(rewards(unflat(w))), at)
    jacobian = torch.autograd.functional.jacobian(lambda w: rewards(unflat(w)), at)
    v = torch.linalg.solve(hessian + damping * torch.eye(len(at)).double(), jacobian.T @ SHARES)
    return (jacobian[NET_PAIRS.first] - jacobian[NET_PAIRS.second]) @ v, hessian


def test_conjugate_gradients_are_the_dense_solution():
    model = Net()
    expected, hessian = dense(model, 0.5)
    assert torch.linalg.eigvalsh(hessian).min() < -1e-4, "this network's Hessian is indefinite"
    rewards, parameters = functional(model)
    slope = reward_slope(rewards, parameters, SHARES)
    found = exact_response(
        rewards, parameters, NET_PAIRS, slope, damping=0.5, iterations=60, tolerance=1e-13
    )
    torch.testing.assert_close(found.along, expected, rtol=1e-8, atol=1e-10)
    margin = NET_PAIRS.margins(model(FEATURES))
    torch.testing.assert_close(found.gain, residuals(margin, NET_PAIRS.win_prob) * expected)
    few = exact_response(rewards, parameters, NET_PAIRS, slope, damping=0.5, iterations=2)
    assert few.solution.iterations == 2
    assert few.solution.residual > 1e-6
    assert found.solution.residual < 1e-12
    assert all(p.grad is None for p in parameters)


def gauss_newton(model, damping, pairs=NET_PAIRS, unit=1.0, **options):
    found = PairGram.of(model, lambda: model(FEATURES), pairs.first, pairs.second, SHARES)
    gram, alignment = unit**2 * found.gram, unit**2 * found.alignment
    rest = (pairs.margins(found.rewards), pairs.win_prob, pairs.weight)
    return gauss_newton_response(gram, alignment, *rest, damping=damping, **options)


class Linear(nn.Linear):
    def forward(self, x):
        return super().forward(x).squeeze(-1)


@pytest.mark.parametrize("damping", [1.0, 1e-3])
def test_gauss_newton_is_exact_where_the_reward_is_linear(damping):
    torch.manual_seed(0)
    model = Linear(4, 1, bias=True).double()
    expected, _ = dense(model, damping)
    found = gauss_newton(model, damping)
    torch.testing.assert_close(found.along, expected, rtol=1e-9, atol=1e-12)
    curved, _ = dense(Net(), damping)
    other = gauss_newton(Net(), damping)
    assert float((curved - other.along).abs().max()) > 1e-4, "and only there"


def test_negative_curvature_stops_the_iteration():
    found = conjugate_gradients(
        lambda x: (-x[0],), (torch.ones(2, dtype=torch.float64),), iterations=5
    )
    assert found.negative_curvature
    assert found.curvature == -1.0
    assert (found.iterations, found.residual) == (1, 1.0)
    assert not found.vector[0].any()
    zero = conjugate_gradients(lambda x: x, (torch.zeros(2),), iterations=5)
    assert zero.iterations == 0
    assert not zero.negative_curvature


def test_damping_is_raised_until_the_curvature_is_positive():
    model = Net()
    _, hessian = dense(model, 1.0)
    least = -float(torch.linalg.eigvalsh(hessian).min())
    damping = least / 100.0
    rewards, parameters = functional(model)
    slope = reward_slope(rewards, parameters, SHARES)
    found = exact_response(
        rewards, parameters, NET_PAIRS, slope, damping=damping, iterations=60, tolerance=1e-12
    )
    assert found.damping > least
    assert not found.solution.negative_curvature
    expected, _ = dense(model, found.damping)
    torch.testing.assert_close(found.along, expected, rtol=1e-6, atol=1e-8)


def test_relative_damping_is_in_largest_curvatures():
    torch.manual_seed(0)
    model = Linear(4, 1, bias=True).double()
    _, hessian = dense(model, 1.0)  # of a linear reward it is the Gauss-Newton form
    top = float(torch.linalg.eigvalsh(hessian)[-1])
    assert top > 0.05
    found = gauss_newton(model, 0.1, relative_damping=3.0)
    plain = gauss_newton(model, 0.1 + 3.0 * top)
    assert found.damping == pytest.approx(0.1 + 3.0 * top, rel=1e-9)
    torch.testing.assert_close(found.along, plain.along, rtol=1e-9, atol=1e-12)


def test_with_relative_damping_alone_units_of_the_weights_do_not_matter():
    """Weights in thousandths: gradients a thousandfold, the response as it was."""
    one, other = (
        gauss_newton(Net(), 0.0, unit=unit, relative_damping=2.0).along for unit in (1.0, 1e3)
    )
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-15)
    fixed, changed = (gauss_newton(Net(), 1.0, unit=unit).along for unit in (1.0, 1e3))
    assert float((changed - fixed).abs().max()) > 0.1


def test_directional_derivatives_agree():
    model = Net()
    rewards, parameters = functional(model)
    at = tuple(p.detach() for p in parameters)
    direction = tuple(torch.randn_like(p) for p in at)
    forward = directional_derivative(rewards, at, direction)
    torch.testing.assert_close(_double_backward(rewards, at, direction), forward)
    h = 1e-6
    moved = [rewards(tuple(p + s * d for p, d in zip(at, direction, strict=True))) for s in (h, -h)]
    torch.testing.assert_close(
        (moved[0] - moved[1]).detach() / (2 * h), forward, rtol=1e-6, atol=1e-8
    )

    class NoForwardMode(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2.0

        @staticmethod
        def backward(ctx, g):
            return g * 2.0

    found = directional_derivative(lambda p: NoForwardMode.apply(rewards(p)), at, direction)
    torch.testing.assert_close(found, 2.0 * forward)


def test_curvature_of_large_margins_is_not_lost():
    found = curvatures(torch.tensor([50.0, -50.0], dtype=torch.float64))
    np.testing.assert_allclose(found, np.exp(-50.0), rtol=1e-12)


# -- the Gram matrix ------------------------------------------------------------------------


def llama(dtype=torch.float64):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=11, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16,
        pad_token_id=0, num_labels=1, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    return LlamaForSequenceClassification(config).to(dtype).eval()


def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=11, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=16, pad_token_id=0, num_labels=1,
    )  # fmt: skip
    return BertForSequenceClassification(config).double().eval()


def opt():
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=11, hidden_size=16, ffn_dim=24, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, pad_token_id=0, word_embed_proj_dim=16, num_labels=1,
        bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    return OPTForSequenceClassification(config).double().eval()


def tokens(n=6, width=7):
    ids = torch.randint(1, 11, (n, width), generator=torch.Generator().manual_seed(2))
    lengths = torch.tensor([7, 4, 5, 7, 3, 6])[:n]
    mask = torch.arange(width)[None, :] < lengths[:, None]
    return {"input_ids": ids.masked_fill(~mask, 0), "attention_mask": mask.long()}


def explicit(model, rewards, first, second, shares):
    free = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for i in range(len(shares)):
        found = torch.autograd.grad(rewards()[i], free, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([g.flatten() for g in found]))
    rows = torch.stack(rows)
    deltas = rows[first] - rows[second]
    return deltas @ deltas.T, deltas @ (shares @ rows)


GRAM_PAIRS = torch.tensor([0, 2, 4]), torch.tensor([1, 3, 0])


@pytest.mark.parametrize("block", [2**24, 40])
@pytest.mark.parametrize("kind", ["llama", "lora", "bert", "opt"])
def test_gram_by_hooks_is_that_of_explicit_gradients(kind, block, monkeypatch):
    monkeypatch.setattr("equilign.losses.pair_gram.BLOCK_ELEMENTS", block)
    model = {"bert": bert, "opt": opt}.get(kind, llama)()
    if kind == "lora":
        from peft import LoraConfig, get_peft_model

        options = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj", "down_proj"])
        model = get_peft_model(model, options).eval()
        with torch.no_grad():
            for n, p in model.named_parameters():
                if "lora_B" in n:
                    p.normal_()
    batch, shares = tokens(), torch.tensor([0.3, 0.1, 0.2, 0.1, 0.2, 0.1]).double()
    trainable = [p.requires_grad for p in model.parameters()]

    def rewards():
        return model(**batch).logits[:, 0]

    gram, alignment = explicit(model, rewards, *GRAM_PAIRS, shares)
    found = PairGram.of(model, rewards, *GRAM_PAIRS, shares, check=True)
    assert found.hooked
    torch.testing.assert_close(found.gram.to(gram.dtype), gram, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(found.alignment.to(gram.dtype), alignment, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(found.rewards, rewards().detach())
    assert [p.requires_grad for p in model.parameters()] == trainable
    assert all(p.grad is None for p in model.parameters())


def test_weights_with_two_homes_are_not_counted_twice():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(4, 4).double(), nn.Linear(4, 4).double()
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(torch.tanh(self.a(x))).sum(-1)

    class Twice(Tied):
        def forward(self, x):
            return self.a(torch.tanh(self.b(self.a(x)))).sum(-1)

    for model in (Tied(), Twice()):
        gram, alignment = explicit(model, lambda m=model: m(FEATURES[:6]), *GRAM_PAIRS, SHARES[:6])
        found = PairGram.of(model, lambda m=model: m(FEATURES[:6]), *GRAM_PAIRS, SHARES[:6])
        assert not found.hooked
        torch.testing.assert_close(found.gram, gram)
        torch.testing.assert_close(found.alignment, alignment)
    twice = Net()
    twice.layers = nn.Sequential(nn.Linear(4, 4).double(), nn.Tanh(), nn.Linear(4, 1).double())
    first = twice.layers[0]

    def rewards():
        return twice.layers(first(FEATURES[:6])).squeeze(-1)

    gram, _ = explicit(twice, rewards, *GRAM_PAIRS, SHARES[:6])
    found = PairGram.of(twice, rewards, *GRAM_PAIRS, SHARES[:6])
    assert not found.hooked
    torch.testing.assert_close(found.gram, gram)


def test_advantage_of_a_pair_selected_among_all_goes_to_all():
    gain, weight = torch.tensor([2.0, 3.0]), torch.tensor([1.0, 0.5])
    law = torch.tensor([0.25, 0.25, 0.25, 0.25, 0.5, 0.5])
    decided = torch.tensor([[1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]], dtype=torch.bool)
    found = answer_advantage(gain, weight, decided, law)
    assert found.tolist() == [8.0] * 4 + [3.0] * 2


def test_a_model_that_turns_its_rows_around_is_found_out():
    """Tokens first: as many numbers, in another order; hooks alone would be wrong."""

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(4, 4).double()

        def forward(self, x):
            flat = x.transpose(0, 1).reshape(-1, 4)
            return torch.tanh(self.layer(flat)).view(5, 6, 4).sum(dim=(0, 2))

    model, x = Turned(), torch.randn(6, 5, 4, dtype=torch.float64)
    gram, alignment = explicit(model, lambda: model(x), *GRAM_PAIRS, SHARES[:6])
    trusting = PairGram.of(model, lambda: model(x), *GRAM_PAIRS, SHARES[:6])
    assert trusting.hooked
    assert float((trusting.gram - gram).abs().max()) > 1e-3
    found = PairGram.of(model, lambda: model(x), *GRAM_PAIRS, SHARES[:6], check=True)
    assert not found.hooked
    torch.testing.assert_close(found.gram, gram)
    torch.testing.assert_close(found.alignment, alignment)
