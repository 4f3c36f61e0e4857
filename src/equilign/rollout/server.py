"""Sampling from any OpenAI-compatible server.

Prompts go out as token ids, so that the server sees exactly what the trainer scores. Answers come
back as token ids where the server sends them (vLLM's ``return_token_ids``, or log-probabilities
with tokens as ids); otherwise their text is tokenised again and the answer is marked: the tokens
may then differ from those that were sampled.
"""

import hashlib
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from equilign.endpoints import Clock, Endpoint, EndpointError, RetryPolicy, as_they_arrive
from equilign.errors import ConfigError, DataError, ModelError
from equilign.rollout.dialects import DIALECTS, asked_of, prompt_as_text
from equilign.rollout.encoding import cut_at_end, encode_completion, encode_prompt
from equilign.rollout.generate import SamplingConfig
from equilign.rollout.types import Completion, Group, Prompt


@dataclass(frozen=True)
class ServedCompletion(Completion):
    """A response from a server.

    Attributes:
        reencoded: its tokens were made from its text, for want of the server's own.
        logps: log-probability of each of the server's tokens at its temperature, nats; empty
            where it sends none.
    """

    reencoded: bool = False
    logps: tuple[float, ...] = ()


@dataclass(frozen=True)
class ServerOptions:
    """How to talk to a completion server.

    Attributes:
        model: as the server knows it.
        base_url: up to and including ``/v1``.
        api_key_env: name of the environment variable with the key; None where none is needed.
        dialect: which fields beyond OpenAI's the server knows. ``vllm`` (vLLM, SGLang): token ids
            in the reply, and sampling without the hidden defaults of the model's
            ``generation_config``. ``transformers`` (``transformers serve``): the latter only.
            ``openai``: none, for servers that refuse unknown fields.
        send_ids: send prompts as token ids where the dialect has them; otherwise as text.
        logprobs: ask for the log-probability of each sampled token.
        ends: tokens that end an answer; by default the tokenizer's end-of-sequence token.
        concurrency: requests at a time.
        timeout: seconds per try.
        tries: of a request that failed.
        extra_body: further fields of the request.

    Raises:
        ConfigError: a number is out of range, or there is no such dialect.
    """

    model: str
    base_url: str = "http://localhost:8000/v1"
    api_key_env: str | None = None
    dialect: str = "vllm"
    send_ids: bool = True
    logprobs: bool = False
    ends: frozenset[int] = frozenset()
    concurrency: int = 32
    timeout: float = 600.0
    tries: int = 6
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.concurrency, int) or self.concurrency < 1:
            raise ConfigError(f"concurrency must be a whole number >= 1; got {self.concurrency!r}")
        if self.dialect not in DIALECTS:
            known = ", ".join(DIALECTS)
            raise ConfigError(f"dialect = {self.dialect!r}; there are: {known}")
        RetryPolicy(timeout=self.timeout, tries=self.tries)


class ServerSampler:
    """Responses from a server; see `equilign.rollout.types.Sampler`.

    The server's weights are its own business: this suits fixed opponents, judges' candidates and
    methods that load a new model once a round. `VLLMSampler` also pushes weights.

    Args:
        tokenizer: of the server's model.
        config: how to draw; ``batch_size`` is the server's business and not used.
        options: which server, and how to talk to it.
        clock: time, for tests.

    Raises:
        ConfigError: the key is not set.
        ModelError: no token is known that ends an answer.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        config: SamplingConfig,
        options: ServerOptions,
        clock: Clock | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.options = options
        self.model = options.model
        self.dialect = DIALECTS[options.dialect]
        self.endpoint = Endpoint(
            base_url=options.base_url,
            api_key_env=options.api_key_env,
            retry=RetryPolicy(timeout=options.timeout, tries=options.tries),
            clock=clock or Clock(),
        )
        eos = tokenizer.eos_token_id
        self.ends = options.ends or frozenset(() if eos is None else (int(eos),))
        if not self.ends:
            raise ModelError(
                "the tokenizer has no end-of-sequence token; name the tokens that end an answer "
                "in ServerOptions.ends"
            )
        self.reencoded = 0
        """Responses so far whose tokens were made from their text."""

    def close(self) -> None:
        """Close idle connections."""
        self.endpoint.close()

    def sample(self, prompts: Sequence[Prompt], num_samples: int, seed: int) -> list[Group]:
        """See `equilign.rollout.types.Sampler.sample`; as reproducible as the server is.

        Raises:
            DataError: a prompt is longer than ``max_prompt_tokens``.
            EndpointError: the server refuses, does not answer, or sends no usable response.
        """
        encoded = [encode_prompt(self.tokenizer, p) for p in prompts]
        limit = self.config.max_prompt_tokens
        for i, ids in enumerate(encoded):
            if not 0 < len(ids) <= limit:
                raise DataError(
                    f"prompt {i} has {len(ids)} tokens; between 1 and {limit} are allowed. "
                    "Shorten it, or raise max_prompt_tokens."
                )
        cancelled = threading.Event()

        def call(i: int) -> Group:
            completions = self._responses(
                prompts[i], encoded[i], num_samples, _seed(seed, i), cancelled
            )
            return Group(prompts[i], encoded[i], tuple(completions))

        groups: dict[int, Group] = {}
        with closing(
            as_they_arrive(call, len(prompts), self.options.concurrency, cancelled)
        ) as arrivals:
            for batch in arrivals:
                groups.update(batch)
        for group in groups.values():
            self.reencoded += sum(
                isinstance(c, ServedCompletion) and c.reencoded for c in group.completions
            )
        return [groups[i] for i in range(len(prompts))]

    # -- one prompt -------------------------------------------------------------------------

    def _responses(
        self,
        prompt: Prompt,
        ids: tuple[int, ...],
        num_samples: int,
        seed: int,
        cancelled: threading.Event,
    ) -> list[Completion]:
        """``num_samples`` responses; servers that know no ``n`` are asked again."""
        greedy = self.config.temperature == 0.0
        wanted = 1 if greedy else num_samples
        found: list[Completion] = []
        while len(found) < wanted:
            payload = self._payload(prompt, ids, wanted - len(found), _seed(seed, len(found)))
            try:
                reply = self.endpoint.post("/completions", payload, cancelled=cancelled)
            except EndpointError as error:
                raise self._with_dialect(error) from None
            choices = reply.get("choices")
            if not isinstance(choices, list) or not choices:
                raise _unusable(self.endpoint, "a reply without choices")
            self._check_prompt(reply, ids)
            found += [self._completion(prompt, choice) for choice in choices]
        # Greedy responses are all the same; servers refuse to repeat them.
        return found[:num_samples] if not greedy else found[:1] * num_samples

    def _with_dialect(self, error: EndpointError) -> EndpointError:
        """A refused field is most often another server's."""
        if error.reason not in ("http_400", "http_422"):
            return error
        known = ", ".join(DIALECTS)
        return EndpointError(
            f"{error} It was asked in dialect {self.options.dialect!r}; there are: {known}.",
            reason=error.reason,
            code=error.code,
            final=error.final,
        )

    def _payload(self, prompt: Prompt, ids: tuple[int, ...], n: int, seed: int) -> dict[str, Any]:
        config, options = self.config, self.options
        asked = asked_of(self.tokenizer, prompt, config.temperature, self.ends)
        payload: dict[str, Any] = {
            "model": self.model,
            "prompt": list(ids) if self._sends_ids else self._text(prompt),
            "n": n,
            "max_tokens": config.max_new_tokens,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "seed": seed,
        }
        if options.logprobs:
            payload["logprobs"] = 1
        payload |= self.dialect.extra(asked)
        return payload | dict(options.extra_body)

    @property
    def _sends_ids(self) -> bool:
        return self.options.send_ids and self.dialect.takes_ids

    def _text(self, prompt: Prompt) -> str:
        return prompt_as_text(self.tokenizer, prompt, self.dialect)

    def _check_prompt(self, reply: Mapping[str, Any], ids: tuple[int, ...]) -> None:
        """A server that reads other tokens samples from another policy than the one scored."""
        usage = reply.get("usage")
        read = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
        if self._sends_ids or not self.dialect.counts_prompt or not isinstance(read, int):
            return
        if read != len(ids):
            raise EndpointError(
                f"{self.endpoint.shown_url} read a prompt of {read} tokens that has {len(ids)} "
                "here: the tokenizer is not that of the server's model, or the server adds tokens "
                "of its own. Name the right tokenizer, or use a server that takes token ids",
                reason="unusable",
                final=True,
            )

    def _completion(self, prompt: Prompt, choice: object) -> Completion:
        if not isinstance(choice, Mapping) or not isinstance(choice.get("text"), str):
            raise _unusable(self.endpoint, "a choice without text")
        reason = choice.get("finish_reason")
        if reason not in ("stop", "length"):
            raise _unusable(self.endpoint, f"a response that ended with {reason!r}")
        finished = reason == "stop"
        ids = _token_ids(choice)
        if ids is None:
            return self._reencoded(prompt, choice["text"], finished)
        if not ids and not finished:
            raise _unusable(self.endpoint, "an empty response that is not finished")
        kept, ended = cut_at_end(ids, self.ends)
        if finished and not ended:
            # Some servers leave the end token out of the ids.
            eos = self.tokenizer.eos_token_id
            kept = (*kept, int(eos) if eos in self.ends else min(self.ends))
        text = self.tokenizer.decode(list(kept), skip_special_tokens=True)
        logps = _token_logps(choice)[: len(kept)]
        return ServedCompletion(kept, str(text), finished or ended, logps=logps)

    def _reencoded(self, prompt: Prompt, text: str, finished: bool) -> Completion:
        ids = encode_completion(self.tokenizer, prompt, text, self.ends)
        if not finished:
            ids = ids[:-1]
            if not ids:
                raise _unusable(self.endpoint, "an empty response that is not finished")
        return ServedCompletion(ids, text, finished, reencoded=True)


def _token_ids(choice: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The sampled tokens, where the server tells them."""
    ids = choice.get("token_ids")
    if ids is None:
        logprobs = choice.get("logprobs")
        tokens = logprobs.get("tokens") if isinstance(logprobs, Mapping) else None
        if not isinstance(tokens, list) or not tokens:
            return None
        if not all(isinstance(t, str) and t.startswith("token_id:") for t in tokens):
            return None
        ids = [t.removeprefix("token_id:") for t in tokens]
    try:
        found = tuple(int(i) for i in ids)
    except (TypeError, ValueError):
        return None
    return found if min(found, default=0) >= 0 else None


def _token_logps(choice: Mapping[str, Any]) -> tuple[float, ...]:
    logprobs = choice.get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, Mapping) else None
    if not isinstance(values, list) or not all(isinstance(v, int | float) for v in values):
        return ()
    return tuple(float(v) for v in values)


def _seed(*parts: int) -> int:
    """A seed of its own for every request, from all that tells it from others."""
    raw = hashlib.blake2b(",".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(raw, "big") & 0x7FFF_FFFF


def _unusable(endpoint: Endpoint, what: str) -> EndpointError:
    return EndpointError(
        f"{endpoint.shown_url} sent {what}; it must be an OpenAI-compatible completion server "
        "(/v1/completions) with finish_reason 'stop' or 'length'",
        reason="unusable",
        final=True,
    )
