"""A language model as the judge, on any OpenAI-compatible endpoint.

The judge answers one order of a pair; `compare_symmetric` asks both and averages. A question that
got no clear verdict has none (nan) and is counted by reason; nothing is ever made up for it.
"""

import inspect
import math
import threading
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

import numpy as np

from equilign.endpoints import Clock, Endpoint, EndpointError, as_they_arrive
from equilign.errors import BudgetError, OracleError
from equilign.oracles.database import Database
from equilign.oracles.ledger import Ledger
from equilign.oracles.llm_config import OPENAI, LLMJudgeConfig
from equilign.oracles.llm_verdict import parse_verdict, soft_verdict

# Error codes by which a server refuses one question, not the judge's settings.
_REFUSED = {
    "context_length_exceeded": "too_long",
    "string_above_max_length": "too_long",
    "content_filter": "refused",
    "content_policy_violation": "refused",
}


@dataclass(frozen=True)
class JudgeStatistics:
    """What an `LLMJudge` did in this process.

    Attributes:
        asked: questions (ordered pairs).
        answered: those that got a verdict.
        abstained: those without one, by reason: ``unparsable``, ``truncated``, ``refused``,
            ``too_long``, ``low_mass``, ``empty``, ``timeout``, ``connection``, ``bad_body``,
            ``http_503`` and so on.
        retried: further tries of requests, by what went wrong before.
        without_logprobs: verdicts read from the text although probabilities were asked for.
        requests: sent by all processes and runs that share the budget, as the next three.
        prompt_tokens: as the server counts them.
        completion_tokens: as the server counts them.
        cost: at the prices given.
        first_wins: mean Pr(the answer shown first wins); nan before the first verdict. A judge
            without a bias for a place has 1/2 here when both orders are asked.
        position_bias: ``first_wins - 1/2``.
    """

    asked: int
    answered: int
    abstained: dict[str, int]
    retried: dict[str, int]
    without_logprobs: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float
    first_wins: float
    position_bias: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON; numbers that are not there yet are None."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }


class LLMJudge:
    """A chat model that says which of two answers is better.

    Wrap it in `CachedOracle`, so that no verdict is paid for twice.

    Args:
        model: as the server knows it.
        base_url: of the server, up to and including ``/v1``.
        clock: time, for tests.
        **options: see `LLMJudgeConfig`.

    Raises:
        ConfigError: an option is unknown or out of range, or the key is not set.
    """

    abstains = True

    def __init__(
        self,
        model: str,
        base_url: str = OPENAI,
        *,
        clock: Clock | None = None,
        **options: Any,  # noqa: ANN401 - checked by the config
    ) -> None:
        self.config = LLMJudgeConfig.from_options({"model": model, "base_url": base_url, **options})
        self.endpoint = Endpoint(
            base_url=self.config.base_url,
            api_key_env=self.config.api_key_env,
            retry=self.config.retry,
            clock=clock or Clock(),
            on_retry=self._count_retry,
        )
        self.ledger = Ledger(self.config.budget, self.config.reply_limit)
        self._prompt = self.config.prompt
        self._lock = threading.Lock()
        self._abstained: Counter[str] = Counter()
        self._retried: Counter[str] = Counter()
        self._verdicts = self._without_logprobs = 0
        self._first = 0.0
        self._in_a_row = 0

    def __repr__(self) -> str:
        return f"LLMJudge({self.config.model!r}, {self.endpoint.shown_url!r})"

    @property
    def identity(self) -> str:
        """Names the judge and every setting that a verdict depends on; the cache's key."""
        digest = self.config.digest(self.endpoint.shown_url)
        return self.config.identity or f"llm:{self.config.model}:{digest}"

    @property
    def statistics(self) -> JudgeStatistics:
        """Counts so far."""
        spent = self.ledger.spent
        with self._lock:
            first = self._first / self._verdicts if self._verdicts else math.nan
            return JudgeStatistics(
                asked=self._verdicts + self._abstained.total(),
                answered=self._verdicts,
                abstained=dict(self._abstained),
                retried=dict(self._retried),
                without_logprobs=self._without_logprobs,
                first_wins=first,
                position_bias=first - 0.5,
                **asdict(spent),
            )

    def share_budget(self, database: Database, key: str) -> None:
        """Count what is spent in a database, so that the cap holds for all who share it."""
        self.ledger.share(database, key)

    def close(self) -> None:
        """Close idle connections."""
        self.endpoint.close()

    def compare(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """See `equilign.oracles.base.Oracle.compare`; nan where there is no verdict.

        Raises:
            BudgetError: the cap is reached.
            OracleError: the server refuses all requests, or does not answer any more.
        """
        verdicts = np.full(len(prompts), np.nan)
        known = 0
        try:
            for batch in self.stream(prompts, a, b):
                known += len(batch)
                for position, verdict in batch:
                    verdicts[position] = verdict
        except BudgetError as error:
            lost = f"{known} verdicts of this call are lost, for there is no cache: set one."
            raise BudgetError(f"{error} {lost}") from None
        return verdicts

    def stream(
        self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]
    ) -> Generator[list[tuple[int, float]], None, None]:
        """Verdicts with their positions, as they arrive.

        When something ends the work (the budget, a key that is not accepted, Ctrl-C), requests
        under way are waited for, their verdicts are given out, and only then is it raised.

        Yields:
            Lists of (position, verdict), each position once.
        """
        rows = list(zip(prompts, a, b, strict=True))
        cancelled = threading.Event()
        left = len(rows)

        def call(number: int) -> float:
            return self._judge(*rows[number], cancelled)

        try:
            with closing(
                as_they_arrive(call, len(rows), self.config.concurrency, cancelled)
            ) as arrivals:
                for batch in arrivals:
                    left -= len(batch)
                    yield batch
        except BudgetError:
            # Told anew: by now the last replies are counted.
            told = self.ledger.farewell()
            raise BudgetError(f"{told} {left} of the pairs asked for are still open.") from None
        except EndpointError as error:
            raise OracleError(f"the judge {self.config.model!r} cannot be asked: {error}") from None

    # -- one question -----------------------------------------------------------------------

    def _judge(self, prompt: str, a: str, b: str, cancelled: threading.Event) -> float:
        """Pr(``a`` beats ``b``), or nan; counts either."""
        try:
            verdict, reason = self._ask(prompt, a, b, cancelled)
        except EndpointError as error:
            if error.code in _REFUSED:
                verdict, reason = None, _REFUSED[error.code]
            elif error.final or cancelled.is_set():
                raise
            else:
                self._no_answer(error)
                verdict, reason = None, error.reason
        else:
            with self._lock:
                self._in_a_row = 0
        with self._lock:
            if verdict is None:
                self._abstained[reason] += 1
                return math.nan
            self._verdicts += 1
            self._first += verdict
        return verdict

    def _no_answer(self, error: EndpointError) -> None:
        """Raise once too many questions in a row found nobody there."""
        with self._lock:
            self._in_a_row += 1
            row = self._in_a_row
        if row >= self.config.give_up_after:
            raise OracleError(
                f"the judge did not answer {row} questions in a row. {error} "
                "Start again with --resume once it is back."
            ) from None

    def _ask(
        self, prompt: str, a: str, b: str, cancelled: threading.Event
    ) -> tuple[float | None, str]:
        """A verdict, or None and the reason; asks again when a reply is in no valid form."""
        messages = [{"role": "user", "content": self._prompt.render(prompt, a, b)}]
        if self.config.system:
            messages.insert(0, {"role": "system", "content": self.config.system})
        reason = "empty"
        for _ in range(self.config.parse_tries):
            payload = self._payload(messages)
            reply = self.endpoint.post("/chat/completions", payload, self.ledger, cancelled)
            choice = _choice(reply)
            text, reason = _reply_text(choice)
            if reason == "empty":
                self._count_retry(reason)
                continue
            if reason:
                return None, reason
            reason = "unparsable"
            verdict = parse_verdict(text, explain=self.config.explain, ties=self.config.ties)
            if verdict is not None:
                return self._softened(verdict, choice)
            self._count_retry(reason)
            messages = [
                *messages,
                {"role": "assistant", "content": text},
                {"role": "user", "content": self._prompt.reminder},
            ]
        return None, reason

    def _payload(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        config = self.config
        payload: dict[str, Any] = {"model": config.model, "messages": messages}
        payload[config.max_tokens_field] = config.reply_limit
        if config.temperature is not None:
            payload["temperature"] = config.temperature
        if config.use_logprobs:
            payload |= {"logprobs": True, "top_logprobs": 20}
        return payload | dict(config.extra_body)

    def _softened(self, verdict: float, choice: Mapping[str, Any]) -> tuple[float | None, str]:
        if not self.config.use_logprobs:
            return verdict, ""
        logprobs = choice.get("logprobs")
        tokens = logprobs.get("content") if isinstance(logprobs, Mapping) else None
        if not isinstance(tokens, list) or not tokens:
            with self._lock:
                self._without_logprobs += 1
            return verdict, ""
        soft = soft_verdict(tokens, ties=self.config.ties, min_mass=self.config.min_mass)
        return soft, "" if soft is not None else "low_mass"

    def _count_retry(self, reason: str) -> None:
        with self._lock:
            self._retried[reason] += 1


def _choice(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = reply.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, Mapping) else {}


def _reply_text(choice: Mapping[str, Any]) -> tuple[str, str]:
    """The judge's words; or "" and why they are none."""
    message = choice.get("message")
    message = message if isinstance(message, Mapping) else {}
    reason = choice.get("finish_reason")
    if reason == "length":
        return "", "truncated"
    if reason == "content_filter" or message.get("refusal"):
        return "", "refused"
    text = message.get("content")
    if isinstance(text, str) and text.strip():
        return text, ""
    return "", "empty"


def _signature() -> inspect.Signature:
    """The options by name, so that ``help`` and configuration files know them."""
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("model", inspect.Parameter.POSITIONAL_OR_KEYWORD),
        inspect.Parameter("base_url", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=OPENAI),
    ]
    for option in fields(LLMJudgeConfig)[2:]:
        default = {} if option.default is MISSING else option.default
        parameters.append(inspect.Parameter(option.name, kind, default=default))
    return inspect.Signature(parameters)


LLMJudge.__signature__ = _signature()  # type: ignore[attr-defined]
