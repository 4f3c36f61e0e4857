"""The interpreter: it reads slots and weights of any mirror rule, and knows none by name."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equilign.errors import ConfigError
from equilign.games import PreferenceGame
from equilign.neural.gaps import Measure
from equilign.neural.objectives import Target, combine, exact_loss, sampled_loss
from equilign.neural.options import TrainOptions
from equilign.neural.policies import Policy
from equilign.play import Trajectory, suggest_eta
from equilign.rules import RULES, Closing, MirrorRule, MirrorStage, Slot, Step


def train_policy(
    policy: Policy,
    game: PreferenceGame,
    rule: str | MirrorRule,
    **options: Any,  # noqa: ANN401 - those of TrainOptions
) -> Trajectory:
    """Train a policy against itself by a mirror rule; the policy's parameters are changed.

    Every stage's right-hand side becomes a target, and gradient steps move the parameters towards
    it. A stage that writes another slot than the current policy moves a copy: the half point
    starts at the current parameters, a second sequence goes on where its own were.

    Args:
        policy: of shape ``(games, responses)``; it starts where its parameters are. Rules that
            move the reference start it there too; other rules use the game's.
        game: one game or a batch without a mask; gaps are those of the game as it is.
        rule: a mirror rule or its name.
        **options: see `TrainOptions`; ``eta`` by default as in `equilign.play.suggest_eta`.

    Returns:
        As `equilign.play.play`, float64 throughout; ``extra`` holds ``loss, learning_rate,
        gradient_steps, optimiser`` and, where ``beta > 0``, ``regularised_gap`` (the gap of the
        game with that ``beta`` and the game's reference, of the last policy at the recorded
        steps).

    Raises:
        ConfigError: an option is unknown, out of range, or does not suit the rule; the policy is
            not of the game's shape.
    """
    rule = _mirror_rule(rule)
    known = [field.name for field in fields(TrainOptions)]
    for name in options:
        if name not in known:
            raise ConfigError(f"training has no option {name!r}; it has: {', '.join(known)}")
    chosen = TrainOptions(**options)
    if game.mask is not None:
        raise ConfigError("games with a mask cannot be trained on; train on one size at a time")
    shape = (len(game), game.size)
    if policy.shape != shape:
        raise ConfigError(f"the policy is of shape {policy.shape}, the games are of {shape}")
    return _Training(policy, game, rule, chosen).run()


def _mirror_rule(rule: str | MirrorRule) -> MirrorRule:
    found = RULES.get(rule) if isinstance(rule, str) else rule
    if not isinstance(found, MirrorRule):
        names = ", ".join(name for name, r in RULES.items() if isinstance(r, MirrorRule))
        raise ConfigError(f"no mirror rule {rule!r}; there are: {names}")
    return found


class _Training:
    """A policy, its slots, and the parameters of every sequence that the rule carries."""

    def __init__(
        self, policy: Policy, game: PreferenceGame, rule: MirrorRule, options: TrainOptions
    ) -> None:
        self.policy, self.game, self.rule, self.options = policy, game, rule, options
        self.beta = game.beta if options.beta is None else options.beta
        eta = options.eta
        self.eta = suggest_eta(rule, game, self.beta) if eta is None else eta
        self.loss = options.resolved_loss(rule)
        self.learning_rate = options.resolved_learning_rate(self.loss, game.size)
        make = torch.optim.SGD if options.optimiser == "sgd" else torch.optim.Adam
        self.optimiser = make(policy.parameters(), lr=self.learning_rate)
        self.prefs = torch.tensor(game.prefs, dtype=torch.float64).view(-1, game.size, game.size)
        self.prefs = 0.5 + (self.prefs - self.prefs.mT) / 2.0
        self.generator = torch.Generator().manual_seed(options.seed)
        start = policy().detach()
        reference = torch.tensor(game.reference, dtype=torch.float64).log().expand(start.shape)
        self.slots = {
            Slot.CURRENT: start,
            Slot.PREVIOUS: start,
            Slot.BASE: start,
            Slot.REFERENCE: start if rule.moves_reference else reference,
        }
        self.kept: dict[Slot, tuple[list[Tensor], Any]] = {}

    def step(self, t: int) -> Step:
        eta = float(self.eta(t)) if callable(self.eta) else float(self.eta)
        return Step(eta, self.beta, self.options.mixture, self.options.inner_steps)

    # -- parameters -------------------------------------------------------------------------

    def _snapshot(self) -> tuple[list[Tensor], Any]:
        parameters = [p.detach().clone() for p in self.policy.parameters()]
        return parameters, copy.deepcopy(self.optimiser.state_dict())

    def _restore(self, snapshot: tuple[list[Tensor], Any]) -> None:
        with torch.no_grad():
            for own, kept in zip(self.policy.parameters(), snapshot[0], strict=True):
                own.copy_(kept)
        self.optimiser.load_state_dict(snapshot[1])

    @contextmanager
    def _sequence(self, slot: Slot) -> Iterator[None]:
        """The parameters behind a slot for the duration of a block."""
        if slot == Slot.CURRENT:
            yield
            return
        current = self._snapshot()
        if slot in self.kept:
            self._restore(self.kept[slot])
        yield
        self.kept[slot] = self._snapshot()
        self._restore(current)

    # -- stages -----------------------------------------------------------------------------

    def _target(self, stage: MirrorStage, step: Step) -> Target:
        slots = dict(self.slots)
        if stage.mixture is not None:
            slots[Slot.MIXTURE] = combine(stage.mixture(step), slots).log_softmax(dim=1)
        opponents = tuple((w, slots[s]) for s, w in stage.payoff(step).items() if w != 0.0)
        return Target(
            prefs=self.prefs,
            anchor=combine(stage.anchor(step), slots).log_softmax(dim=1),
            opponents=opponents,
            eta=step.eta,
            normaliser="paper" if self.rule.closing == Closing.REGRESS else "estimated",
        )

    def _fit(self, stage: MirrorStage, step: Step) -> Tensor:
        """Gradient steps towards the stage's target; the log-policy that they end at."""
        target, samples = self._target(stage, step), self.options.samples
        payoff = target.payoff() if samples is None else None
        with self._sequence(stage.writes):
            for _ in range(self.options.gradient_steps):
                self.optimiser.zero_grad()
                logps = self.policy()
                if payoff is not None:
                    losses = exact_loss(self.loss, logps, target, payoff)
                else:
                    assert samples is not None  # noqa: S101 - for the type checker
                    losses = sampled_loss(self.loss, logps, target, samples, self.generator)
                torch.autograd.backward(losses.sum())
                self.optimiser.step()
            reached: Tensor = self.policy().detach()
        return reached

    def advance(self, t: int) -> bool:
        """One step of the rule; False where a number stopped being finite."""
        step, before = self.step(t), self.slots[Slot.CURRENT]
        for stage in self.rule.stages:
            written = self._fit(stage, step)
            if not bool(torch.isfinite(written).all()):
                return False
            self.slots[stage.writes] = written
        self.slots.pop(Slot.HALF, None)
        self.kept.pop(Slot.HALF, None)
        self.slots[Slot.PREVIOUS] = before
        if self.rule.moves_reference and (t + 1) % step.inner_steps == 0:
            self.slots[Slot.REFERENCE] = self.slots[Slot.CURRENT]
        return True

    # -- the run ----------------------------------------------------------------------------

    def run(self) -> Trajectory:
        options, record = self.options, self.options.recorded()
        measure = Measure(self.game, self.beta)
        total = torch.zeros_like(self.slots[Slot.CURRENT])
        rows: list[Float[np.ndarray, "3 x"]] = []
        stopped, final = -1, self.slots[Slot.CURRENT]
        for t in range(options.steps + 1):
            final = self.slots[Slot.CURRENT]
            if len(rows) < record.size and record[len(rows)] == t:
                rows.append(measure(final.exp().numpy(), (total / max(t, 1)).numpy(), t))
            if t == options.steps:
                break
            total += final.exp()
            if not self.advance(t):
                stopped = t + 1
                break
            if options.progress is not None and t % 100 == 99:
                options.progress(t + 1, options.steps)
        table = np.full((record.size, 3, len(self.game)), np.nan)
        table[: len(rows)] = rows
        played = max(options.steps if stopped < 0 else stopped, 1)
        average = (total / played).numpy() if options.steps else final.exp().numpy()
        return self._trajectory(record, table.transpose(1, 2, 0), final.numpy(), average, stopped)

    def _trajectory(
        self,
        record: np.ndarray,
        gaps: Float[np.ndarray, "3 x r"],
        final: np.ndarray,
        average: np.ndarray,
        stopped: int,
    ) -> Trajectory:
        step, options = self.step(0), self.options
        one = slice(None) if self.game.is_batch else 0
        extra: dict[str, Any] = {
            "loss": self.loss,
            "learning_rate": self.learning_rate,
            "gradient_steps": options.gradient_steps,
            "optimiser": options.optimiser,
        }
        if self.beta > 0.0:
            extra["regularised_gap"] = gaps[2, one]
        return Trajectory(
            rule=self.rule.name,
            game=self.game,
            steps=record,
            duality_gap=gaps[0, one],
            average_duality_gap=gaps[1, one],
            final_log_policy=final[one],
            average_policy=(average / average.sum(axis=1, keepdims=True))[one],
            status="done" if stopped < 0 else "diverged",
            options={
                "eta": "schedule" if callable(self.eta) else step.eta,
                "beta": step.beta,
                "mixture": step.mixture,
                "inner_steps": step.inner_steps,
                "samples": options.samples,
                "seed": options.seed,
            },
            diverged_at=np.full(len(self.game), stopped) if self.game.is_batch else None,
            extra=extra,
        )
