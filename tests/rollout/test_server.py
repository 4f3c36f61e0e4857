"""Sampling from a server: the requests it gets, and what becomes of its replies."""

import json
import time
from dataclasses import replace

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from equilign.endpoints import Clock, EndpointError
from equilign.errors import ConfigError, DataError, ModelError
from equilign.models import load_tokenizer
from equilign.rollout import SamplingConfig, encode_prompt, score_answers
from equilign.rollout.dialects import DIALECTS
from equilign.rollout.encoding import encode_completion
from equilign.rollout.server import ServedCompletion, ServerOptions, ServerSampler
from tests.enumerable import END, A, B, tiny_model, tiny_tokenizer
from tests.rollout.completion_server import DROP, CompletionServer

CONFIG = SamplingConfig(max_new_tokens=2, temperature=0.7, top_p=0.9)
QUICK = Clock(wait=lambda event, seconds: None)
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where to eat?"}]


def choice(ids=None, text="", finish="stop", **fields):
    result = {"text": text, "finish_reason": finish, **fields}
    return result if ids is None else {**result, "token_ids": ids}


def reply(*choices):
    return {"choices": list(choices)}


def sampler_of(server, tokenizer=None, config=CONFIG, **options):
    options = ServerOptions("policy", server.url, **{"timeout": 60.0, "tries": 3, **options})
    return ServerSampler(tokenizer or tiny_tokenizer(), config, options, QUICK)


def only(choice_, tokenizer=None, prompt="a", **options):
    """The one response that a server's choice becomes."""
    with CompletionServer(lambda path, body, n: reply(choice_)) as server:
        sampler = sampler_of(server, tokenizer, **options)
        (group,) = sampler.sample([prompt], 1, seed=0)
        sampler.close()
    (completion,) = group.completions
    assert sampler.reencoded == completion.reencoded
    return completion


# -- replies ----------------------------------------------------------------------------------


def test_token_ids_are_taken_as_they_are():
    assert only(choice([B, END], "b")) == ServedCompletion((B, END), "b", True)


def test_an_end_token_that_the_server_leaves_out_is_added():
    assert only(choice([B], "b")) == ServedCompletion((B, END), "b", True)
    assert only(choice([], "")).ids == (END,)


def test_a_cut_response_is_not_finished():
    assert only(choice([B, A], "b a", "length")) == ServedCompletion((B, A), "b a", False)


def test_an_end_at_the_last_place_is_an_end():
    """The limit and the end fell on the same token."""
    assert only(choice([B, END], "b", "length")) == ServedCompletion((B, END), "b", True)


def test_what_follows_an_end_is_dropped():
    assert only(choice([B, END, A], "b a")).ids == (B, END)


def test_token_ids_in_the_log_probabilities():
    logprobs = {"tokens": ["token_id:2", "token_id:0"], "token_logprobs": [-0.5, -1.5]}
    got = only(choice(text="b", logprobs=logprobs), logprobs=True)
    assert got == ServedCompletion((B, END), "b", True, reencoded=False, logps=(-0.5, -1.5))


def test_text_alone_is_tokenised_again_and_marked():
    assert only(choice(text=" b a")) == ServedCompletion((B, A, END), " b a", True, reencoded=True)
    cut = only(choice(text=" b a", finish="length"))
    assert cut == ServedCompletion((B, A), " b a", False, reencoded=True)


def test_tokens_as_text_are_no_ids():
    logprobs = {"tokens": ["b", ""], "token_logprobs": [-0.5, None]}
    assert only(choice(text=" b", logprobs=logprobs)).reencoded


def test_chat_answers_are_tokenised_in_their_place():
    tokenizer = load_tokenizer("shipped")
    ends = frozenset({tokenizer.eos_token_id})
    got = only(choice(text="Try the corner café."), tokenizer, CHAT)
    assert got.ids == encode_completion(tokenizer, CHAT, "Try the corner café.", ends)
    assert got.ids[-1] in ends


def test_several_end_tokens():
    with CompletionServer(lambda *_: reply(choice([B, A], "b a"))) as server:
        sampler = sampler_of(server, ends=frozenset({A}))
        (group,) = sampler.sample(["a"], 1, seed=0)
        sampler.close()
    assert group.completions[0].ids == (B, A)
    assert server.bodies[0]["stop_token_ids"] == [A]


def test_groups_can_be_scored():
    with CompletionServer(lambda *_: reply(choice([B, END], "b"), choice([END], ""))) as server:
        sampler = sampler_of(server)
        groups = sampler.sample(["a", "b a"], 2, seed=0)
        sampler.close()
    assert [g.prompt_ids for g in groups] == [(A,), (B, A)]
    with torch.no_grad():
        scores = score_answers(tiny_model(), groups, pad_id=END)
    assert all(len(s) == 2 and max(s) < 0 for s in scores)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"choices": []}, "a reply without choices"),
        ({"text": "b"}, "a reply without choices"),
        (reply("b"), "a choice without text"),
        (reply({"finish_reason": "stop"}), "a choice without text"),
        (reply(choice([B], "b", "content_filter")), "ended with 'content_filter'"),
        (reply(choice([B], "b", None)), "ended with None"),
        (reply(choice([], "", "length")), "empty response that is not finished"),
        (reply(choice(None, "", "length")), "empty response that is not finished"),
    ],
)
def test_replies_that_are_no_responses(bad, message):
    with CompletionServer(lambda *_: bad) as server:
        sampler = sampler_of(server)
        with pytest.raises(EndpointError, match=message):
            sampler.sample(["a"], 1, seed=0)
        sampler.close()


# -- requests ---------------------------------------------------------------------------------


def test_what_is_asked_for():
    with CompletionServer(lambda *_: reply(choice([END]), choice([END]))) as server:
        sampler = sampler_of(server, extra_body={"priority": 3}, logprobs=True)
        sampler.sample(["b a"], 2, seed=7)
        sampler.close()
    path, body = server.requests[0]
    assert path == "/v1/completions"
    seed = body.pop("seed")
    assert 0 <= seed < 2**31
    assert body == {
        "model": "policy",
        "prompt": [B, A],
        "n": 2,
        "max_tokens": 2,
        "temperature": 0.7,
        "top_p": 0.9,
        "logprobs": 1,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        # A model's generation_config would otherwise change the policy behind our back.
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "stop_token_ids": [END],
        "add_special_tokens": True,
        "priority": 3,
    }


def test_strict_servers_get_standard_fields_only():
    with CompletionServer(lambda *_: reply(choice(text=" b"))) as server:
        sampler = sampler_of(server, dialect="openai")
        sampler.sample(["a"], 1, seed=0)
        sampler.close()
    standard = {"model", "prompt", "n", "max_tokens", "temperature", "top_p", "seed"}
    assert set(server.bodies[0]) == standard


def test_prompts_as_text():
    tokenizer = load_tokenizer("shipped")
    with CompletionServer(lambda *_: reply(choice(text="Yes."))) as server:
        sampler = sampler_of(server, tokenizer, send_ids=False, concurrency=1)
        groups = sampler.sample([CHAT, "plain"], 1, seed=0)
        sampler.close()
    chat, plain = server.bodies
    assert tokenizer(chat["prompt"], add_special_tokens=False)["input_ids"] == list(
        encode_prompt(tokenizer, CHAT)
    )
    assert (chat["add_special_tokens"], plain["add_special_tokens"]) == (False, True)
    assert plain["prompt"] == "plain"
    assert groups[0].prompt_ids == encode_prompt(tokenizer, CHAT)


def seeds(prompts, seed, num_samples=1):
    with CompletionServer(lambda path, body, n: reply(choice([END]))) as server:
        sampler = sampler_of(server, concurrency=1)
        sampler.sample(prompts, num_samples, seed)
        sampler.close()
    return [body["seed"] for body in server.bodies]


def test_every_request_has_a_seed_of_its_own_that_can_be_repeated():
    first = seeds(["a", "a", "b"], 3, num_samples=2)
    assert first == seeds(["a", "a", "b"], 3, num_samples=2)
    # This server knows no n: each of three prompts takes two requests.
    assert len(set(first)) == 6
    assert not set(first) & set(seeds(["a", "a", "b"], 4, num_samples=2))


def test_a_server_without_n_is_asked_until_there_are_enough():
    texts = iter([" a", " b", " a b"])
    with CompletionServer(lambda *_: reply(choice(text=next(texts)))) as server:
        sampler = sampler_of(server)
        (group,) = sampler.sample(["a"], 3, seed=0)
        sampler.close()
    assert [c.text for c in group.completions] == [" a", " b", " a b"]
    assert [body["n"] for body in server.bodies] == [3, 2, 1]
    assert sampler.reencoded == 3


def test_greedy_responses_are_asked_for_once():
    with CompletionServer(lambda *_: reply(choice([B, END]))) as server:
        sampler = sampler_of(server, config=replace(CONFIG, temperature=0.0))
        (group,) = sampler.sample(["a"], 4, seed=0)
        sampler.close()
    assert [body["n"] for body in server.bodies] == [1]
    assert [c.ids for c in group.completions] == [(B, END)] * 4


def test_responses_stay_with_their_prompts():
    """The first prompts are answered last."""

    def answer(path, body, n):
        time.sleep(0.05 if body["prompt"][0] == A else 0.0)
        return reply(choice([body["prompt"][-1], END]))

    prompts = ["a a", "b b", "a b", "b a"]
    with CompletionServer(answer) as server:
        sampler = sampler_of(server, concurrency=3)
        groups = sampler.sample(prompts, 1, seed=0)
        sampler.close()
    assert [g.prompt for g in groups] == prompts
    assert [g.completions[0].ids[0] for g in groups] == [A, B, B, A]
    assert server.most_at_once <= 3


# -- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [(500, "{}"), (429, "slow down"), (200, "garbage"), DROP])
def test_faults_are_tried_again(fault):
    def answer(path, body, n):
        return fault if n == 0 else reply(choice([B, END]))

    with CompletionServer(answer) as server:
        sampler = sampler_of(server)
        (group,) = sampler.sample(["a"], 1, seed=0)
        sampler.close()
    assert group.completions[0].ids == (B, END)
    # The same request with the same seed: a fault does not change the sample.
    assert server.bodies[0] == server.bodies[1]


@pytest.mark.parametrize(
    ("fault", "message", "tries"),
    [
        ((400, '{"error": {"message": "unknown field"}}'), "remove it", 1),
        ((404, ""), "check model and base_url", 1),
        ((503, ""), "no answer in 3 tries", 3),
    ],
)
def test_faults_that_stay_are_raised(fault, message, tries):
    with CompletionServer(lambda *_: fault) as server:
        sampler = sampler_of(server, concurrency=1)
        with pytest.raises(EndpointError, match=message):
            sampler.sample(["a", "b"], 1, seed=0)
        sampler.close()
    assert len(server.requests) == tries


def test_prompts_that_are_too_long():
    with CompletionServer(lambda *_: reply(choice([END]))) as server:
        sampler = sampler_of(server, config=replace(CONFIG, max_prompt_tokens=2))
        with pytest.raises(DataError, match=r"prompt 1 has 3 tokens.*max_prompt_tokens"):
            sampler.sample(["a", "a b a"], 1, seed=0)
        sampler.close()
    assert not server.requests


def test_options_that_cannot_be():
    with pytest.raises(ConfigError, match="concurrency must be"):
        ServerOptions("m", concurrency=0)
    with pytest.raises(ConfigError, match="timeout must be"):
        ServerOptions("m", timeout=0)
    with pytest.raises(ConfigError, match="NO_SUCH_KEY is not set"):
        ServerSampler(tiny_tokenizer(), CONFIG, ServerOptions("m", api_key_env="NO_SUCH_KEY"))
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match=r"ServerOptions\.ends"):
        ServerSampler(tokenizer, CONFIG, ServerOptions("m"))


# -- dialects ---------------------------------------------------------------------------------


def asked_in(dialect, tokenizer, prompt=CHAT, config=CONFIG, answer=None, **options):
    """What a server is sent in a dialect."""
    with CompletionServer(lambda *_: answer or reply(choice(text="Yes."))) as server:
        sampler = sampler_of(server, tokenizer, config, dialect=dialect, **options)
        try:
            sampler.sample([prompt], 1, seed=0)
        finally:
            sampler.close()
    return server.bodies[0]


@pytest.mark.parametrize(("temperature", "draws"), [(0.7, True), (0.0, False)])
def test_transformers_draws_only_where_it_is_told_to(temperature, draws):
    tokenizer = load_tokenizer("shipped")
    body = asked_in("transformers", tokenizer, config=replace(CONFIG, temperature=temperature))
    # Text, although ids are sent by default; no field of vLLM's.
    assert tokenizer(body["prompt"])["input_ids"] == list(encode_prompt(tokenizer, CHAT))
    standard = {"model", "prompt", "n", "max_tokens", "temperature", "top_p", "seed"}
    assert set(body) == {*standard, "generation_config"}
    assert json.loads(body["generation_config"]) == {
        "do_sample": draws,
        "top_k": 0,
        "repetition_penalty": 1.0,
        "eos_token_id": [tokenizer.eos_token_id],
        "pad_token_id": tokenizer.pad_token_id,
    }


def begins_twice():
    """A tokenizer that puts the begin token before every text, as Llama's does."""
    tokenizer = load_tokenizer("shipped")
    begin = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin[0]} $A", special_tokens=[begin]
    )
    return tokenizer


@pytest.mark.parametrize("dialect", ["transformers", "openai"])
def test_the_begin_token_is_not_doubled(dialect):
    tokenizer = begins_twice()
    begin, ids = tokenizer.bos_token_id, list(encode_prompt(tokenizer, CHAT))
    assert ids[0] == begin != ids[1]
    sent = asked_in(dialect, tokenizer, send_ids=False)["prompt"]
    assert tokenizer(sent)["input_ids"] == ids
    # vLLM is told not to add any, and gets the template's.
    whole = asked_in("vllm", tokenizer, send_ids=False)["prompt"]
    assert whole == tokenizer.bos_token + sent


def test_a_server_that_reads_other_tokens_is_told():
    tokenizer = load_tokenizer("shipped")
    read = len(encode_prompt(tokenizer, CHAT))
    good = {**reply(choice(text="Yes.")), "usage": {"prompt_tokens": read}}
    asked_in("transformers", tokenizer, answer=good)
    bad = {**good, "usage": {"prompt_tokens": read + 1}}
    with pytest.raises(EndpointError, match=f"read a prompt of {read + 1} tokens that has {read}"):
        asked_in("transformers", tokenizer, answer=bad)
    # Ids are what they are, and others count as they like.
    asked_in("openai", tokenizer, answer=bad)


def test_dialects_there_are():
    with pytest.raises(ConfigError, match=r"dialect = 'vlm'.*vllm, openai, transformers"):
        ServerOptions("m", dialect="vlm")
    assert list(DIALECTS) == ["vllm", "openai", "transformers"]


def test_a_refused_field_names_the_dialects():
    refusal = (422, '{"detail": "Unexpected fields in the request: top_k"}')
    with pytest.raises(EndpointError, match=r"top_k.*dialect 'vllm'.*transformers") as caught:
        asked_in("vllm", load_tokenizer("shipped"), answer=refusal)
    assert (caught.value.reason, caught.value.final, caught.value.exit_code) == (
        "http_422",
        True,
        2,
    )
    with pytest.raises(EndpointError) as caught:
        asked_in("vllm", load_tokenizer("shipped"), answer=(503, "{}"))
    assert "dialect" not in str(caught.value)
    assert (caught.value.final, caught.value.exit_code) == (False, 1)
