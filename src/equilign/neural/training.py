"""The interpreter: it reads slots and weights of any mirror rule, and knows none by name."""

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

Snapshot = tuple[list[Tensor], list[dict[str, Any]]]
"""Parameters, and the optimiser's state of each."""


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
        As `equilign.play.play`, float64 throughout; ``extra`` holds ``loss``, ``learning_rate``
        (one per game), ``gradient_steps``, ``optimiser`` and, where ``beta > 0``,
        ``regularised_gap``: the last policy's gap in the game with that ``beta`` and the game's
        reference, at the recorded steps.

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
        self.learning_rate = options.resolved_learning_rate(self.loss, policy.shape)
        make = torch.optim.SGD if options.optimiser == "sgd" else torch.optim.Adam
        self.optimiser = make(policy.parameters(), lr=float(self.learning_rate.max()))
        # Descent on a multiple of a game's loss is descent with a multiple of the rate.
        self.scale = torch.tensor(self.learning_rate / self.learning_rate.max())
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
        self.kept: dict[Slot, Snapshot] = {}

    def step(self, t: int) -> Step:
        eta = float(self.eta(t)) if callable(self.eta) else float(self.eta)
        return Step(eta, self.beta, self.options.mixture, self.options.inner_steps)

    # -- parameters -------------------------------------------------------------------------

    def _snapshot(self) -> Snapshot:
        owned = list(self.policy.parameters())
        state = [
            {
                key: value.clone() if isinstance(value, Tensor) else value
                for key, value in self.optimiser.state.get(p, {}).items()
            }
            for p in owned
        ]
        return [p.detach().clone() for p in owned], state

    def _restore(self, snapshot: Snapshot) -> None:
        with torch.no_grad():
            for own, kept, state in zip(self.policy.parameters(), *snapshot, strict=True):
                own.copy_(kept)
                # What is restored may be restored again, so the optimiser gets its own copy.
                self.optimiser.state[own] = {
                    key: value.clone() if isinstance(value, Tensor) else value
                    for key, value in state.items()
                }

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
            law=slots[Slot.CURRENT].exp(),
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
                torch.autograd.backward((self.scale * losses).sum())
                self.optimiser.step()
            reached: Tensor = self.policy().detach()
        return reached

    def advance(self, t: int) -> None:
        """One step of the rule."""
        step, before = self.step(t), self.slots[Slot.CURRENT]
        for stage in self.rule.stages:
            self.slots[stage.writes] = self._fit(stage, step)
        self.slots.pop(Slot.HALF, None)
        self.kept.pop(Slot.HALF, None)
        self.slots[Slot.PREVIOUS] = before
        if self.rule.moves_reference and (t + 1) % step.inner_steps == 0:
            self.slots[Slot.REFERENCE] = self.slots[Slot.CURRENT]

    # -- the run ----------------------------------------------------------------------------

    def run(self) -> Trajectory:
        """All steps; a game whose policy stops being finite keeps its last finite one."""
        options, record = self.options, self.options.recorded()
        measure = Measure(self.game, self.beta)
        final = self.slots[Slot.CURRENT]
        total, stopped = torch.zeros_like(final), torch.full((len(final),), -1)
        table = np.full((record.size, 3, len(final)), np.nan)
        row = 0
        for t in range(options.steps + 1):
            alive = stopped < 0
            if row < record.size and record[row] == t:
                mean = total / max(t, 1)
                table[row] = measure(final.exp().numpy(), mean.numpy(), t, alive.numpy())
                row += 1
            if t == options.steps or not bool(alive.any()):
                break
            total += final.exp() * alive[:, None]
            if not self._advance_alive(t, stopped):
                break
            final = torch.where((stopped < 0)[:, None], self.slots[Slot.CURRENT], final)
            if options.progress is not None and t % 100 == 99:
                options.progress(t + 1, options.steps)
        average = (total / total.sum(dim=1, keepdim=True)).numpy() if options.steps else final.exp()
        return self._trajectory(
            record, table.transpose(1, 2, 0), final.numpy(), np.asarray(average), stopped.numpy()
        )

    def _advance_alive(self, t: int, stopped: Tensor) -> bool:
        """One step; marks the games that diverged at it, and says whether to go on."""
        self.advance(t)
        finite = torch.isfinite(self.slots[Slot.CURRENT]).all(dim=1)
        stopped[(stopped < 0) & ~finite] = t + 1
        # Sampling from a policy that is no distribution is an error: all games stop with one.
        if self.options.samples is not None and not bool(finite.all()):
            stopped[:] = t + 1
        return bool((stopped < 0).any())

    def _trajectory(
        self,
        record: np.ndarray,
        gaps: Float[np.ndarray, "3 x r"],
        final: np.ndarray,
        average: np.ndarray,
        stopped: np.ndarray,
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
            average_policy=average[one],
            status="diverged" if (stopped >= 0).any() else "done",
            options={
                "eta": "schedule" if callable(self.eta) else step.eta,
                "beta": step.beta,
                "mixture": step.mixture,
                "inner_steps": step.inner_steps,
                "samples": options.samples,
                "seed": options.seed,
            },
            diverged_at=stopped if self.game.is_batch else None,
            extra=extra,
        )
