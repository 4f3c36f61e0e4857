"""A model on a server as users write it down."""

import pytest

from equilign.errors import ConfigError
from equilign.experiments.endpoint import endpoint_sampler, options_of_server
from equilign.models import load_tokenizer
from equilign.rollout import SamplingConfig
from tests.rollout.completion_server import CompletionServer

SPEC = {"model": "big", "base_url": "http://localhost:1/v1"}


def test_text_becomes_what_the_options_are():
    found = options_of_server({**SPEC, "concurrency": "3", "send_ids": "false", "timeout": "1e2"})
    assert (found.concurrency, found.send_ids, found.timeout) == (3, False, 100.0)
    assert (found.model, found.base_url) == ("big", "http://localhost:1/v1")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"modle": "x"}, r"modle.*Did you mean model"),
        ({"model": ""}, r"here\.model is missing"),
        ({"base_url": ""}, r"here\.base_url is missing"),
        ({"concurrency": "many"}, r"concurrency"),
        ({"dialect": "other"}, r"there are: vllm, openai, transformers"),
    ],
)
def test_mistakes_are_named(change, told):
    with pytest.raises(ConfigError, match=told):
        options_of_server({**SPEC, **change}, "here")


def test_the_sampler_asks_that_server_for_that_model():
    reply = {"choices": [{"text": "Yes.", "finish_reason": "stop"}]}
    with CompletionServer(lambda path, body, number: reply) as server:
        spec = {"model": "big", "base_url": server.url, "dialect": "openai"}
        sampling = SamplingConfig(max_new_tokens=7)
        sampler = endpoint_sampler(spec, load_tokenizer("shipped"), sampling)
        (group,) = sampler.sample([[{"role": "user", "content": "Hi"}]], 1, seed=0)
        sampler.close()
    assert [(path, b["model"], b["max_tokens"]) for path, b in server.requests] == [
        ("/v1/completions", "big", 7)
    ]
    assert group.completions[0].text == "Yes."
