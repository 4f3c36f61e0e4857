"""The reward model as a player: its steps, its optimiser, and how it would respond."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import clip_grad_norm_

from equilign.errors import ModelError
from equilign.losses.pair_gram import PairGram
from equilign.losses.total_derivative import (
    Pairs,
    Response,
    answer_advantage,
    exact_response,
    gauss_newton_response,
    reward_slope,
)


@dataclass(frozen=True)
class Annotated:
    """A round's answers and what one annotator says of them.

    Attributes:
        items: the answers of each prompt, as the reward model reads them.
        pairs: ``(first, second, Pr(first wins))`` of each prompt's answers.
        weights: of those pairs, within the prompt's expected log-likelihood.
        counts: how often each prompt's pairs count, see `replace_ties`.
    """

    items: list[list[Any]]
    pairs: list[list[tuple[int, int, float]]]
    weights: list[list[float]]
    counts: list[float]

    def used(self) -> list[int]:
        """Prompts that have pairs."""
        return [x for x, (p, n) in enumerate(zip(self.pairs, self.counts, strict=True)) if p and n]


@dataclass(frozen=True)
class Flat:
    """Answers of several prompts, one after another, and their pairs.

    Attributes:
        items: the answers.
        pairs: by place in `items`, with weights of a mean over all the round's prompts.
        prompt: of each pair, by place in the list of prompts.
    """

    items: list[Any]
    pairs: Pairs
    prompt: list[int]


def flatten(batch: Annotated, prompts: Sequence[int], like: Tensor) -> Flat:
    """The answers and pairs of some of a round's prompts."""
    items: list[Any] = []
    rows: list[tuple[int, int, float, float]] = []
    owners: list[int] = []
    for place, x in enumerate(prompts):
        start = len(items)
        items += batch.items[x]
        for (i, j, p), weight in zip(batch.pairs[x], batch.weights[x], strict=True):
            if batch.counts[x]:
                share = weight * batch.counts[x] / len(batch.items)
                rows.append((start + i, start + j, p, share))
                owners.append(place)
    first, second = ([row[side] for row in rows] for side in (0, 1))
    device = like.device
    pairs = Pairs(
        torch.tensor(first, dtype=torch.long, device=device),
        torch.tensor(second, dtype=torch.long, device=device),
        torch.tensor([row[2] for row in rows], dtype=like.dtype, device=device),
        torch.tensor([row[3] for row in rows], dtype=like.dtype, device=device),
    )
    return Flat(items, pairs, owners)


class RewardPlayer:
    """A reward model and its optimiser.

    Every process of a run has the same one and makes the same steps on the whole round, so that
    nothing is sent between them.

    Args:
        function: the reward, a module; moved to ``device`` and put into evaluation mode for good
            (no dropout: the game's objective is that of one function).
        learning_rate: constant.
        optim: ``"adamw"`` (no weight decay) or ``"sgd"``.
        ridge: weight of half the squared distance to the weights at the start.
        max_grad_norm: gradients are clipped to it; 0 for not.
        batch_size: answers per pass.
        device: of the policy.

    Raises:
        ModelError: nothing to train.
    """

    def __init__(
        self,
        function: nn.Module,
        *,
        learning_rate: float,
        optim: str,
        ridge: float,
        max_grad_norm: float,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.function = function.to(device).eval()
        self.trainable = {n: p for n, p in function.named_parameters() if p.requires_grad}
        if not self.trainable:
            raise ModelError("the reward model has no trainable weights: it could not be fitted")
        self.ridge, self.batch_size = ridge, batch_size
        self._max_grad_norm = max_grad_norm
        self.start = {n: p.detach().clone() for n, p in self.trainable.items()} if ridge else {}
        parameters = list(self.trainable.values())
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
            if optim == "adamw"
            else torch.optim.SGD(parameters, lr=learning_rate)
        )
        self.steps = 0
        self._checked = False

    @property
    def like(self) -> Tensor:
        """A tensor of the weights' type and place."""
        return next(iter(self.trainable.values()))

    def rewards(self, items: Sequence[Sequence[Any]]) -> list[list[float]]:
        """Of the answers of every prompt, without a gradient."""
        flat = [item for group in items for item in group]
        values: list[float] = []
        with torch.no_grad():
            for start in range(0, len(flat), self.batch_size):
                values += self.function(flat[start : start + self.batch_size]).tolist()
        found = iter(values)
        return [[next(found) for _ in group] for group in items]

    # -- a step ---------------------------------------------------------------------------

    def step(self, batch: Annotated) -> dict[str, float]:
        """One optimiser step up the likelihood of the round's pairs; ties give no pair.

        Returns:
            Loss (nats per prompt, without the ridge) and the share of pairs that the reward
            *before* the step orders as labelled.
        """
        loss, right, total = 0.0, 0.0, 0.0
        for prompts in self._batches(batch):
            flat = _members_only(flatten(batch, prompts, self.like))
            rewards = self.function(flat.items)
            part = flat.pairs.loss(rewards)
            part.backward()  # type: ignore[no-untyped-call]
            margin = flat.pairs.margins(rewards.detach())
            sides = (margin.sign() * (flat.pairs.win_prob - 0.5).sign() + 1.0) / 2.0
            loss += float(part.detach())
            right += float((flat.pairs.weight * sides).sum())
            total += float(flat.pairs.weight.sum())
        self._pull_back()
        if self._max_grad_norm > 0.0:
            clip_grad_norm_(list(self.trainable.values()), self._max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        found = {"reward_loss": loss}
        return {**found, "reward_accuracy": right / total} if total else found

    def _batches(self, batch: Annotated) -> list[list[int]]:
        """Prompts with pairs, as many at a time as may be read together, one at least."""
        batches: list[list[int]] = []
        size = 0
        for x in batch.used():
            more = len({i for a, b, _ in batch.pairs[x] for i in (a, b)})
            if not batches or size + more > self.batch_size:
                batches.append([])
                size = 0
            batches[-1].append(x)
            size += more
        return batches

    def _pull_back(self) -> None:
        """Add the ridge's gradient."""
        for name, p in self.trainable.items():
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            if self.ridge:
                p.grad.add_(p.detach() - self.start[name], alpha=self.ridge)

    # -- the response ----------------------------------------------------------------------

    def response(
        self,
        batch: Annotated,
        shares: list[list[float]],
        *,
        solver: str,
        damping: float,
        iterations: int,
        relative_damping: float = 0.0,
    ) -> tuple[Flat, Response]:
        """How the fit's pairs respond to a change of the policy.

        Args:
            batch: what the reward was fitted to.
            shares: ``d R_LM / d r`` of every answer.
            solver: ``"woodbury"`` or ``"cg"``.
            damping: beside the ridge.
            iterations: of ``"cg"``.
            relative_damping: of ``"woodbury"``, in largest curvatures.
        """
        flat = flatten(batch, range(len(batch.items)), self.like)
        share = self.like.new_tensor([s for row in shares for s in row])
        if solver == "cg":
            few = _members_only(flat)
            target = self._slope(flat.items, share)
            # Fused attention has no second derivative.
            with sdpa_kernel(SDPBackend.MATH):
                return flat, exact_response(
                    lambda parameters: self._at(parameters, few.items),
                    list(self.trainable.values()),
                    few.pairs,
                    target,
                    damping=self.ridge + damping,
                    iterations=iterations,
                )
        pairs = flat.pairs
        found = PairGram.of(
            self.function,
            lambda: self.function(flat.items),
            pairs.first,
            pairs.second,
            share,
            check=not self._checked,
        )
        self._checked = True
        return flat, gauss_newton_response(
            found.gram,
            found.alignment,
            pairs.margins(found.rewards),
            pairs.win_prob,
            pairs.weight,
            damping=self.ridge + damping,
            relative_damping=relative_damping,
        )

    def _slope(self, items: list[Any], share: Tensor) -> tuple[Tensor, ...]:
        """``d R_LM / d w``, so many answers at a time."""
        parameters = list(self.trainable.values())
        total = tuple(torch.zeros_like(p) for p in parameters)
        for start in range(0, len(items), self.batch_size):
            part = slice(start, start + self.batch_size)
            more = reward_slope(
                lambda p, some=items[part]: self._at(p, some),  # type: ignore[misc]
                parameters,
                share[part],
            )
            total = tuple(a + b for a, b in zip(total, more, strict=True))
        return total

    def _at(self, parameters: tuple[Tensor, ...], items: list[Any]) -> Tensor:
        named = dict(zip(self.trainable, parameters, strict=True))
        found: Tensor = functional_call(self.function, named, (items,))
        return found

    # -- on disk ---------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Weights, optimiser and where the weights started."""
        return {
            "weights": {n: p.detach() for n, p in self.trainable.items()},
            "start": self.start,
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
        }

    def save(self, path: Path) -> None:
        """Write `state`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(self.state(), path)

    def load(self, path: Path) -> None:
        """Read what `save` wrote.

        Raises:
            ModelError: it is not there, or of another reward model.
        """
        if not path.exists():
            raise ModelError(f"{path} is missing: this checkpoint has no such reward model")
        held = torch.load(path, map_location=self.like.device, weights_only=True)
        shapes = {n: p.shape for n, p in self.trainable.items()}
        if {n: w.shape for n, w in held["weights"].items()} != shapes:
            raise ModelError(f"{path} holds the weights of another reward model")
        with torch.no_grad():
            for n, p in self.trainable.items():
                p.copy_(held["weights"][n])
        self.start = held["start"]
        self.optimizer.load_state_dict(held["optimizer"])
        self.steps = held["steps"]


def _members_only(flat: Flat) -> Flat:
    """Without the answers that are in no pair."""
    used = sorted({*flat.pairs.first.tolist(), *flat.pairs.second.tolist()})
    place = torch.zeros(len(flat.items), dtype=torch.long, device=flat.pairs.first.device)
    place[used] = torch.arange(len(used), device=place.device)
    pairs = Pairs(
        place[flat.pairs.first], place[flat.pairs.second], flat.pairs.win_prob, flat.pairs.weight
    )
    return Flat([flat.items[i] for i in used], pairs, flat.prompt)


def spread(
    flat: Flat,
    found: Response,
    law: list[list[float]],
    *,
    selected: bool,
) -> tuple[list[list[float]], float]:
    """A response as an addition to every answer's advantage.

    Args:
        flat: answers and pairs, of all prompts.
        found: the pairs' response.
        law: weight of every answer in its prompt's policy loss; 0: not trained on.
        selected: whether each pair was chosen among all of its prompt's answers.

    Returns:
        One number per answer of each prompt, and the root mean square of the pairs' gains.
    """
    sizes = [len(row) for row in law]
    owner = torch.tensor([x for x, size in enumerate(sizes) for _ in range(size)])
    weights = torch.tensor([w for row in law for w in row], dtype=torch.float64)
    prompt = torch.tensor(flat.prompt, dtype=torch.long)
    if selected:
        decided = prompt[:, None] == owner[None, :]
        decided &= weights[None, :] > 0.0
    else:
        decided = torch.zeros(len(prompt), len(owner), dtype=torch.bool)
        rows = torch.arange(len(prompt))
        decided[rows, flat.pairs.first.cpu()] = True
        decided[rows, flat.pairs.second.cpu()] = True
    gain = found.gain.double().cpu()
    # The likelihood's weights are of a mean over prompts; the loss takes that mean itself.
    per_prompt = flat.pairs.weight.double().cpu() * len(law)
    extra = answer_advantage(gain, per_prompt, decided, weights)
    size = float(gain.square().mean().sqrt()) if len(gain) else 0.0
    return [part.tolist() for part in torch.split(extra, sizes)], size
