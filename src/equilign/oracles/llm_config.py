"""The options of a language-model judge."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from equilign.endpoints import RetryPolicy
from equilign.errors import ConfigError
from equilign.oracles.ledger import Budget
from equilign.oracles.llm_prompt import DEFAULT_CRITERIA, DEFAULT_TEMPLATE, JudgePrompt

OPENAI = "https://api.openai.com/v1"

# Changing how requests are written or replies are read makes other verdicts.
_GRAMMAR = 1


@dataclass(frozen=True)
class LLMJudgeConfig:
    """Options of `LLMJudge`; every one can stand in a run's configuration.

    Attributes:
        model: as the server knows it.
        base_url: of the server, up to and including ``/v1``.
        api_key_env: name of the environment variable with the key; None where none is needed.
        criteria: what to prefer: attributes, a rubric.
        template: see `JudgePrompt`.
        system: a system message; none when empty.
        ties: whether the judge may say "tie".
        explain: reasons first, then the verdict; costs more, and often judges better.
        use_logprobs: read the probability of the verdict's token, where the server sends it,
            instead of 1, 1/2 or 0.
        min_mass: probability that the options must have together with ``use_logprobs``.
        temperature: of the judge; None leaves it to the server.
        max_tokens: limit of a reply; by default 16, or 1024 with ``explain``.
        max_tokens_field: what the server calls that limit (newer OpenAI models:
            ``max_completion_tokens``).
        extra_body: further fields of the request.
        concurrency: requests at a time.
        timeout: seconds per try.
        tries: of a request that failed.
        parse_tries: of a question whose reply was no verdict.
        give_up_after: questions in a row that got no answer from the server; then the run stops
            instead of masking everything.
        identity: name under which verdicts are cached; by default the model and a digest of
            ``base_url`` and all settings. Give one to keep verdicts when a server moves.
        max_requests: see `Budget`, as the next four.
        max_total_tokens: see `Budget`.
        max_cost: see `Budget`.
        price_prompt: see `Budget`.
        price_completion: see `Budget`.

    Raises:
        ConfigError: an option is out of range.
    """

    model: str
    base_url: str = OPENAI
    api_key_env: str | None = "OPENAI_API_KEY"
    criteria: str = DEFAULT_CRITERIA
    template: str = DEFAULT_TEMPLATE
    system: str = ""
    ties: bool = True
    explain: bool = False
    use_logprobs: bool = False
    min_mass: float = 0.9
    temperature: float | None = 0.0
    max_tokens: int | None = None
    max_tokens_field: str = "max_tokens"
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int = 8
    timeout: float = 60.0
    tries: int = 6
    parse_tries: int = 2
    give_up_after: int = 16
    identity: str | None = None
    max_requests: int | None = None
    max_total_tokens: int | None = None
    max_cost: float | None = None
    price_prompt: float = 0.0
    price_completion: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError("an LLM judge needs the name of a model")
        for name in ("concurrency", "parse_tries", "give_up_after"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} must be a whole number >= 1; got {value!r}")
        if self.max_tokens is not None and not _positive(self.max_tokens):
            raise ConfigError(f"max_tokens must be a whole number >= 1; got {self.max_tokens!r}")
        if not 0.5 < self.min_mass <= 1.0:
            raise ConfigError(f"min_mass must be in (0.5, 1]; got {self.min_mass!r}")
        if self.temperature is not None and not 0.0 <= self.temperature <= 2.0:
            raise ConfigError(f"temperature must be in [0, 2]; got {self.temperature!r}")
        reserved = sorted({"messages", "model", "n", "stream"} & set(self.extra_body))
        if reserved:
            raise ConfigError(f"extra_body may not set {reserved[0]!r}: the judge sets it")
        _ = self.prompt, self.retry, self.budget  # they check the rest

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "LLMJudgeConfig":
        """From a mapping, as of a configuration file.

        Raises:
            ConfigError: an option is unknown, missing, or out of range.
        """
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ConfigError(
                f"an LLM judge has no option {unknown[0]!r}; there are {', '.join(known)}"
            )
        if "model" not in options:
            raise ConfigError("an LLM judge needs the option 'model'")
        return cls(**options)

    @property
    def prompt(self) -> JudgePrompt:
        """The template with its options."""
        return JudgePrompt(self.template, self.criteria, self.ties, self.explain)

    @property
    def retry(self) -> RetryPolicy:
        """How patient to be."""
        return RetryPolicy(timeout=self.timeout, tries=self.tries)

    @property
    def budget(self) -> Budget:
        """The caps."""
        return Budget(
            self.max_requests,
            self.max_total_tokens,
            self.max_cost,
            self.price_prompt,
            self.price_completion,
        )

    @property
    def reply_limit(self) -> int:
        """The longest reply, in tokens."""
        return self.max_tokens or (1024 if self.explain else 16)

    def digest(self, shown_url: str) -> str:
        """Sixteen hexadecimal digits of everything that a verdict depends on.

        Patience, concurrency and budget are left out: they change no verdict.
        """
        settings = {
            "grammar": _GRAMMAR,
            "url": shown_url,
            "model": self.model,
            "rule": self.prompt.reply_rule,
            "criteria": self.criteria,
            "template": self.template,
            "system": self.system,
            "logprobs": [self.min_mass] if self.use_logprobs else [],
            "temperature": self.temperature,
            "reply_limit": self.reply_limit,
            "extra": dict(self.extra_body),
            "parse_tries": self.parse_tries,
        }
        raw = json.dumps(settings, sort_keys=True, default=str).encode()
        return hashlib.blake2b(raw, digest_size=8).hexdigest()


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
