r"""How a fitted reward responds to the policy that it is fitted to: STA's total derivative.

The reward's parameters ``w`` maximise, for pairs of the policy's own answers,

    R_RM(w; theta) = E_{pairs ~ pi_theta} [l(m)] - ridge / 2 |w|^2,    m = r_w(a) - r_w(b),
    l(m) = p log sigmoid(m) + (1 - p) log sigmoid(-m),

and the policy ``R_LM = E_{pi_theta}[r_w] - beta KL``. By the implicit function theorem

    d R_LM / d theta = (partial, w fixed) + (d2_{w theta} R_RM)^T N^{-1} g,
    N = - d2_w R_RM, positive; g = d_w R_LM.

The cross term is that of a score function: with ``v = N^{-1} g``, *naive plus REINFORCE with the
advantage* ``(d l / d m) * (dm . v)`` *for every answer whose draw decided the pair*. Only the
numbers ``u = dm . v``, one per pair, are needed; two ways to them:

* `exact_response`: conjugate gradients on exact Hessian-vector products, then ``v``'s directional
  derivative. With ``d2 l(m) = -s(1-s) dm dm^T + (p - s) d2 m`` the Hessian is indefinite for
  networks that are not fitted to the end; damping is added, and raised where it is too little.
* `gauss_newton_response`: without the term ``d2 m``, ``N = D W D^T + damping``, ``D`` the columns
  ``dm``, and ``u = D^T N^{-1} g = (D^T D W + damping)^{-1} D^T g`` (push-through, Woodbury): a
  system as large as the number of pairs. The same where the reward is linear in its parameters.

The null direction: a reward is determined up to a constant per prompt, and ``g`` has a part along
it, which an undamped ``N`` cannot be solved for. The cross term has none. In the pair space that
part never enters, as ``D^T g`` does not see it; the conjugate gradients divide it by the damping
alone (one eigenvalue, so one iteration), and its ``u`` is zero.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import softplus

Tensors = tuple[Tensor, ...]
"""Parameters, or a direction in their space: one tensor each."""
Rewards = Callable[[Tensors], Tensor]
"""Parameters -> reward of every answer, ``(n,)``; differentiable twice."""


_RAISES = 10
"""How often damping is raised before the best point found is taken."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of answers with their labels.

    Attributes:
        first: index of the one answer of each pair.
        second: index of the other.
        win_prob: label, the probability that the first one wins.
        weight: of the pair in the likelihood, non-negative.
    """

    first: Int[Tensor, " pair"]
    second: Int[Tensor, " pair"]
    win_prob: Float[Tensor, " pair"]
    weight: Float[Tensor, " pair"]

    def margins(self, rewards: Float[Tensor, " answer"]) -> Float[Tensor, " pair"]:
        """``r(first) - r(second)``."""
        return rewards[self.first] - rewards[self.second]

    def loss(self, rewards: Float[Tensor, " answer"]) -> Float[Tensor, ""]:
        """Minus the weighted log-likelihood, nats."""
        margin = self.margins(rewards)
        return (self.weight * (softplus(margin) - self.win_prob * margin)).sum()


def residuals(
    margin: Float[Tensor, " pair"], win_prob: Float[Tensor, " pair"]
) -> Float[Tensor, " pair"]:
    """``d l / d m = p - sigmoid(m)``: what the fit has left of each label."""
    return win_prob - margin.sigmoid()


def curvatures(margin: Float[Tensor, " pair"]) -> Float[Tensor, " pair"]:
    """``- d2 l / d m2 = s (1 - s)``, without cancellation for large margins."""
    return margin.sigmoid() * (-margin).sigmoid()


# -- conjugate gradients on the exact Hessian -------------------------------------------------


@dataclass(frozen=True)
class Solution:
    """What `conjugate_gradients` found.

    Attributes:
        vector: the approximate solution.
        iterations: products made.
        residual: ``|b - A x| / |b|``.
        curvature: the least ``d^T A d / |d|^2`` seen; not positive where the operator is not
            positive definite, and then the reason to stop.
    """

    vector: Tensors
    iterations: int
    residual: float
    curvature: float

    @property
    def negative_curvature(self) -> bool:
        """Whether the operator turned out not to be positive definite."""
        return not self.curvature > 0.0


def _dot(a: Tensors, b: Tensors) -> float:
    return sum(float((x * y).sum(dtype=torch.float64)) for x, y in zip(a, b, strict=True))


def _add(a: Tensors, b: Tensors, scale: float) -> Tensors:
    return tuple(x + scale * y for x, y in zip(a, b, strict=True))


def conjugate_gradients(
    operator: Callable[[Tensors], Tensors],
    target: Tensors,
    *,
    iterations: int = 10,
    tolerance: float = 0.0,
) -> Solution:
    """Solve ``A x = b`` for a positive definite ``A`` known by its products (Hestenes 1952).

    Where a direction of negative curvature shows up, the iterate with the least residual so far is
    returned: 0 if none was better, so that a total derivative falls back to the naive one.

    Args:
        operator: ``A``.
        target: ``b``.
        iterations: products at most.
        tolerance: stop at this relative residual.
    """
    solution = tuple(torch.zeros_like(t) for t in target)
    residual, direction = target, target
    start = size = _dot(target, target)
    best, least, flattest = solution, size, math.inf
    done = 0
    while done < iterations and size > tolerance**2 * start and size > 0.0:
        product = operator(direction)
        done += 1
        curvature = _dot(direction, product)
        flattest = min(flattest, curvature / _dot(direction, direction))
        if not curvature > 0.0:
            return Solution(best, done, (least / start) ** 0.5, flattest)
        step = size / curvature
        solution = _add(solution, direction, step)
        residual = _add(residual, product, -step)
        before, size = size, _dot(residual, residual)
        if size < least:
            best, least = solution, size
        direction = _add(residual, direction, size / before)
    left = (size / start) ** 0.5 if start > 0.0 else 0.0
    return Solution(solution, done, left, flattest)


def directional_derivative(
    function: Callable[[Tensors], Tensor], at: Tensors, direction: Tensors
) -> Tensor:
    """``d/dt function(at + t direction)`` at 0: forward-mode, or two backward passes without it.

    Operators that have no forward-mode derivative (some attention kernels) are the reason for the
    second way: the gradient of ``<y, f>`` in ``w``, which is linear in ``y``, differentiated in
    ``y`` along ``direction``.
    """
    try:
        with warnings.catch_warnings():
            # torch's own table of forward-mode derivatives is made with its deprecated scripting.
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.func.jvp(function, (at,), (direction,))[1].detach()
    except (NotImplementedError, RuntimeError):
        return _double_backward(function, at, direction)


def _double_backward(
    function: Callable[[Tensors], Tensor], at: Tensors, direction: Tensors
) -> Tensor:
    with torch.enable_grad():
        free = tuple(p.detach().requires_grad_() for p in at)
        value = function(free)
        dual = torch.zeros_like(value, requires_grad=True)
        pulled = torch.autograd.grad(
            value, free, dual, create_graph=True, allow_unused=True, materialize_grads=True
        )
        along = sum(
            ((g * d).sum() for g, d in zip(pulled, direction, strict=True)), value.new_zeros(())
        )
        return torch.autograd.grad(along, dual)[0].detach()


@dataclass(frozen=True)
class Response:
    """How the pairs respond.

    Attributes:
        along: ``u``: change of each pair's margin along ``v``.
        gain: ``(p - sigmoid(m)) u``: change of its log-likelihood, the advantage of those who
            decided it.
        margin: of each pair, at the parameters given.
        damping: that was added to the Hessian in the end.
        solution: of the conjugate gradients; None for Gauss-Newton.
    """

    along: Float[Tensor, " pair"]
    gain: Float[Tensor, " pair"]
    margin: Float[Tensor, " pair"]
    damping: float
    solution: Solution | None = None


def reward_slope(
    rewards: Rewards, parameters: Sequence[Tensor], shares: Float[Tensor, " answer"]
) -> Tensors:
    """``g = d R_LM / d w``, the gradient of ``sum_i shares_i r_i``.

    Args:
        rewards: as a function of the parameters.
        parameters: where they are.
        shares: ``d R_LM / d r`` of every answer; ``1 / n`` each for a plain mean.
    """
    with torch.enable_grad():
        free = tuple(p.detach().requires_grad_() for p in parameters)
        total = (shares * rewards(free)).sum()
        return torch.autograd.grad(total, free, allow_unused=True, materialize_grads=True)


def exact_response(
    rewards: Rewards,
    parameters: Sequence[Tensor],
    pairs: Pairs,
    target: Tensors,
    *,
    damping: float,
    iterations: int = 10,
    tolerance: float = 0.0,
) -> Response:
    """The pairs' response by conjugate gradients with exact Hessian-vector products.

    Args:
        rewards: of the pairs' answers, as a function of the parameters.
        parameters: where they are.
        pairs: that the reward was fitted to.
        target: ``g``, see `reward_slope`.
        damping: added to the Hessian's diagonal, the ridge included; > 0. Where the curvature is
            negative all the same, it is raised (tenfold at least) and the iteration begun anew.
        iterations: Hessian-vector products at most, each time; the paper has 10.
        tolerance: relative residual to stop at.
    """
    with torch.enable_grad():
        free = tuple(p.detach().requires_grad_() for p in parameters)
        values = rewards(free)
        slope = torch.autograd.grad(
            pairs.loss(values), free, create_graph=True, allow_unused=True, materialize_grads=True
        )

    for _ in range(_RAISES):

        def operator(vector: Tensors, damping: float = damping) -> Tensors:
            # The graph of the gradient is kept: a product costs one pass back through it.
            return _add(_product(slope, free, vector), vector, damping)

        found = conjugate_gradients(operator, target, iterations=iterations, tolerance=tolerance)
        if not found.negative_curvature:
            break
        damping += max(9.0 * damping, -2.0 * found.curvature)
    margin = pairs.margins(values.detach())
    at = tuple(p.detach() for p in parameters)
    along = directional_derivative(lambda p: pairs.margins(rewards(p)), at, found.vector)
    return Response(along, residuals(margin, pairs.win_prob) * along, margin, damping, found)


def _product(slope: Tensors, free: Tensors, vector: Tensors) -> Tensors:
    kept = [(s, v) for s, v in zip(slope, vector, strict=True) if s.requires_grad]
    if not kept:  # a loss without any curvature
        return tuple(torch.zeros_like(p) for p in free)
    found = torch.autograd.grad(
        [s for s, _ in kept],
        free,
        [v for _, v in kept],
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    return tuple(f.detach() for f in found)


# -- Gauss-Newton in the space of pairs --------------------------------------------------------


def gauss_newton_response(
    gram: Float[Tensor, "pair pair"],
    alignment: Float[Tensor, " pair"],
    margin: Float[Tensor, " pair"],
    win_prob: Float[Tensor, " pair"],
    weight: Float[Tensor, " pair"],
    *,
    damping: float,
    relative_damping: float = 0.0,
) -> Response:
    """The pairs' response with the Gauss-Newton Hessian, by a system of one row per pair.

    Args:
        gram: ``D^T D``, inner products of the gradients of the pairs' margins.
        alignment: ``D^T g``, of those with the gradient of ``R_LM``.
        margin: of each pair.
        win_prob: labels.
        weight: of the pairs in the likelihood.
        damping: added to the Hessian's diagonal, the ridge included; > 0.
        relative_damping: as many times the largest curvature of these pairs is added beside it:
            without ``damping`` the response is the same in whatever unit the parameters are.
    """
    # float64: small next to the passes through the model, and Gram matrices square the condition.
    wide = gram.double()
    bend = (weight * curvatures(margin)).double()
    if relative_damping:
        damping += relative_damping * _largest(wide, bend)
    system = wide * bend[None, :] + damping * torch.eye(
        len(wide), dtype=wide.dtype, device=wide.device
    )
    along = torch.linalg.solve(system, alignment.double()).to(margin.dtype)
    return Response(along, residuals(margin, win_prob) * along, margin, damping)


def _largest(gram: Float[Tensor, "pair pair"], bend: Float[Tensor, " pair"]) -> float:
    """Largest eigenvalue of ``D W D^T``, which is that of ``W^(1/2) D^T D W^(1/2)``."""
    root = bend.sqrt()
    return float(torch.linalg.eigvalsh(root[:, None] * gram * root[None, :])[-1].clamp(min=0.0))


# -- from pairs to answers ---------------------------------------------------------------------


def answer_advantage(
    gain: Float[Tensor, " pair"],
    weight: Float[Tensor, " pair"],
    decided_by: Bool[Tensor, "pair answer"],
    law: Float[Tensor, " answer"],
) -> Float[Tensor, " answer"]:
    """What the total derivative adds to each answer's advantage.

    ``law_i * result_i`` is the sum of ``weight * gain`` over the pairs that the draw of answer
    ``i`` decided, so that ``sum_i law_i result_i grad log pi(y_i)`` is the cross term.

    Args:
        gain: `Response.gain`.
        weight: of the pairs.
        decided_by: which answers' draws decided which pair. Both members; and *all* answers to
            the prompt where the pair was selected among them (best and worst of K).
        law: weight of each answer in the policy's loss, positive where it decides anything.
    """
    total = decided_by.to(gain.dtype).T @ (weight * gain)
    return torch.where(law > 0.0, total / law.clamp(min=torch.finfo(law.dtype).tiny), 0.0)
