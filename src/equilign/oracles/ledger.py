"""What a paid judge has spent, and the cap that it may not pass.

The cap holds for all processes that share a database, and for all runs that continue one another
with it.
"""

import math
import threading
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from typing import Any

from equilign.errors import BudgetError, ConfigError
from equilign.oracles.database import Database

_PER_MESSAGE = 64  # tokens that a chat template may add


@dataclass(frozen=True)
class Budget:
    """Caps of what may be spent; None for no cap.

    Attributes:
        max_requests: requests sent, further tries included.
        max_total_tokens: of prompts and replies together.
        max_cost: in the currency of the prices.
        price_prompt: per million prompt tokens.
        price_completion: per million reply tokens.
    """

    max_requests: int | None = None
    max_total_tokens: int | None = None
    max_cost: float | None = None
    price_prompt: float = 0.0
    price_completion: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is None and name.startswith("max_"):
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < 0:
                raise ConfigError(f"{name} must be a number >= 0; got {value!r}")
        if self.max_cost is not None and self.price_prompt == self.price_completion == 0.0:
            raise ConfigError(
                "max_cost needs price_prompt and price_completion (per million tokens): "
                "without prices nothing would ever be counted against it"
            )

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Price of so many tokens."""
        return (prompt_tokens * self.price_prompt + completion_tokens * self.price_completion) / 1e6


@dataclass(frozen=True)
class Spent:
    """Requests sent, tokens and cost."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    def plus(self, other: "Spent") -> "Spent":
        """Sum, never below zero."""
        requests, prompt, completion, cost = (
            max(0, x + y) for x, y in zip(astuple(self), astuple(other), strict=True)
        )
        return Spent(requests, prompt, completion, float(cost))

    def minus(self, other: "Spent") -> "Spent":
        """Difference, of any sign."""
        return Spent(*(x - y for x, y in zip(astuple(self), astuple(other), strict=True)))

    def __str__(self) -> str:
        text = f"{self.requests} requests, {self.prompt_tokens + self.completion_tokens} tokens"
        return text + (f", {self.cost:.4g} in cost" if self.cost else "")


class Ledger:
    """Counts every request before it is sent, and forbids what would pass the cap.

    A request is first charged with the most that it can cost (a token has at least one byte), so
    the cap is never passed; the reply's own count replaces that. A request that was cut off by a
    kill, a time-out or a broken connection keeps its charge: the server may bill it. One that
    the server rejected keeps only its place among the requests.

    Args:
        budget: the caps.
        reply_limit: the longest reply in tokens.
    """

    def __init__(self, budget: Budget, reply_limit: int) -> None:
        self.budget = budget
        self._reply_limit = reply_limit
        self._memory = Spent()
        self._database: Database | None = None
        self._judge = ""
        self._changed = threading.Condition()  # its lock may be taken twice by one thread
        self._reached: str | None = None
        self._in_flight = 0

    def share(self, database: Database, judge: str) -> None:
        """Count in a database from now on, together with all who do so for ``judge``."""
        with self._changed:
            counted, self._memory = self._memory, Spent()
            self._database, self._judge = database, judge
            self._add(counted)

    @property
    def spent(self) -> Spent:
        """All that counts against the cap so far."""
        with self._changed:
            if self._database is None:
                return self._memory
            with self._database.reading() as connection:
                row = connection.execute(
                    "SELECT requests, prompt_tokens, completion_tokens, cost FROM spent "
                    "WHERE judge=?",
                    (self._judge,),
                ).fetchone()
            return Spent(*row) if row else Spent()

    def charge(self, payload: Mapping[str, Any]) -> Spent:
        """See `equilign.endpoints.Meter.charge`.

        Raises:
            BudgetError: the request could pass the cap.
        """
        most = self._most(payload)
        with self._changed:
            while True:
                obstacle = self._add(most, capped=True)
                if obstacle is None:
                    self._in_flight += 1
                    return most
                # Replies in flight may turn out cheaper than feared and make room.
                if obstacle == "max_requests" or not self._in_flight:
                    self._reached = obstacle
                    raise BudgetError(self.farewell())
                self._changed.wait(1.0)

    def settle(self, ticket: Spent, reply: Mapping[str, Any]) -> None:
        """See `equilign.endpoints.Meter.settle`."""
        self._replace(ticket, self.usage(reply) or ticket)

    def fail(self, ticket: Spent, *, billed: bool) -> None:
        """See `equilign.endpoints.Meter.fail`."""
        self._replace(ticket, ticket if billed else Spent(requests=1))

    def usage(self, reply: Mapping[str, Any]) -> Spent | None:
        """What a reply says that it cost; None where it says nothing usable."""
        usage = reply.get("usage")
        if not isinstance(usage, Mapping):
            return None
        prompt: Any = usage.get("prompt_tokens")
        completion: Any = usage.get("completion_tokens")
        if not all(isinstance(n, int) and 0 <= n < 10**9 for n in (prompt, completion)):
            return None
        return Spent(1, prompt, completion, self.budget.cost(prompt, completion))

    def farewell(self) -> str:
        """Which cap was reached, what was spent, and how to go on."""
        cap = self._reached or "max_requests"
        return (
            f"the judge's budget is gone ({cap}={getattr(self.budget, cap)}): spent so far "
            f"{self.spent}. Raise {cap} and start again with --resume."
        )

    # -- arithmetic -------------------------------------------------------------------------

    def _most(self, payload: Mapping[str, Any]) -> Spent:
        messages = payload.get("messages", ())
        prompt = sum(
            len(str(m["content"]).encode("utf-8", "surrogatepass")) + _PER_MESSAGE for m in messages
        )
        return Spent(1, prompt, self._reply_limit, self.budget.cost(prompt, self._reply_limit))

    def _replace(self, ticket: Spent, actual: Spent) -> None:
        difference = actual.minus(ticket)
        with self._changed:
            self._in_flight -= 1
            if difference != Spent():
                self._add(difference)
            self._changed.notify_all()

    def _add(self, amount: Spent, *, capped: bool = False) -> str | None:
        """Add; or name the cap in the way, and add nothing."""
        if self._database is None:
            obstacle = self._obstacle(self._memory.plus(amount)) if capped else None
            if obstacle is None:
                self._memory = self._memory.plus(amount)
            return obstacle
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT requests, prompt_tokens, completion_tokens, cost FROM spent WHERE judge=?",
                (self._judge,),
            ).fetchone()
            total = (Spent(*row) if row else Spent()).plus(amount)
            obstacle = self._obstacle(total) if capped else None
            if obstacle is None:
                connection.execute(
                    "INSERT OR REPLACE INTO spent VALUES (?, ?, ?, ?, ?)",
                    (self._judge, *astuple(total)),
                )
            return obstacle

    def _obstacle(self, total: Spent) -> str | None:
        limits = self.budget
        tokens = total.prompt_tokens + total.completion_tokens
        if limits.max_requests is not None and total.requests > limits.max_requests:
            return "max_requests"
        if limits.max_total_tokens is not None and tokens > limits.max_total_tokens:
            return "max_total_tokens"
        # Sums of prices carry rounding.
        if limits.max_cost is not None and total.cost > limits.max_cost * (1 + 1e-12):
            return "max_cost"
        return None
