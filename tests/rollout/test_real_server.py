"""Generation, judging and refinement over a server that is not ours: `transformers serve`."""

import json
import math

import numpy as np
import pytest
import torch

from equilign.cli.main import _exit_code
from equilign.endpoints import EndpointError
from equilign.experiments.endpoint import endpoint_sampler
from equilign.files import read_jsonl
from equilign.models import load_model, load_tokenizer, shipped_model_path
from equilign.oracles import compare_symmetric
from equilign.oracles.llm_judge import LLMJudge
from equilign.rollout import SamplingConfig, TransformersSampler, encode_prompt
from equilign.tasks.prompts import restaurant_prompts
from tests.rollout.completion_server import DROP, CompletionServer
from tests.rollout.real_server import RealServer, in_front_of

pytestmark = pytest.mark.slow

SHIPPED = str(shipped_model_path())
SAMPLING = SamplingConfig(max_new_tokens=10, temperature=1.0)
GREEDY = SamplingConfig(max_new_tokens=24, temperature=0.0)
PROMPTS = restaurant_prompts("align")[:3]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RealServer(tmp_path_factory.mktemp("server") / "log.txt") as running:
        yield running


@pytest.fixture(scope="module")
def url(server):
    return f"{server.root}/v1"


def sample(url, prompts, num_samples, seed, sampling=SAMPLING, **options):
    spec = {"model": SHIPPED, "base_url": url, "dialect": "transformers", "concurrency": 1}
    sampler = endpoint_sampler({**spec, "tries": 1, **options}, load_tokenizer("shipped"), sampling)
    try:
        return sampler.sample(prompts, num_samples, seed)
    finally:
        sampler.close()


def texts(groups):
    return [[c.text for c in group.completions] for group in groups]


# -- generation -------------------------------------------------------------------------------


def test_greedy_answers_are_those_of_the_model_in_this_process(url):
    local = TransformersSampler(load_model("shipped"), load_tokenizer("shipped"), GREEDY)
    served = sample(url, PROMPTS, 2, seed=0, sampling=GREEDY)
    assert texts(served) == texts(local.sample(PROMPTS, 2, seed=0))
    assert [g.prompt_ids for g in served] == [
        encode_prompt(load_tokenizer("shipped"), p) for p in PROMPTS
    ]


def test_the_sampled_policy_is_the_model_s_own(url):
    """Same seed, same draws as transformers makes without top_k and at temperature 1."""
    model, tokenizer = load_model("shipped").eval(), load_tokenizer("shipped")
    with CompletionServer(lambda path, body, n: {"choices": [{}]}) as spy:
        with pytest.raises(EndpointError):
            sample(spy.url, PROMPTS[:1], 1, seed=5)
        seed = spy.bodies[0]["seed"]
    ids = torch.tensor([encode_prompt(tokenizer, PROMPTS[0])])
    torch.manual_seed(seed)
    drawn = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        top_k=0,
        top_p=1.0,
        temperature=1.0,
        max_new_tokens=SAMPLING.max_new_tokens,
    )
    expected = tokenizer.decode(drawn[0, ids.shape[1] :], skip_special_tokens=True)
    assert texts(sample(url, PROMPTS[:1], 1, seed=5)) == [[expected]]


def test_seeds_and_the_length_limit_are_honoured(url):
    first = sample(url, PROMPTS[:2], 3, seed=1)
    assert texts(first) == texts(sample(url, PROMPTS[:2], 3, seed=1))
    assert texts(first) != texts(sample(url, PROMPTS[:2], 3, seed=2))
    for group in first:
        assert len(set(texts([group])[0])) > 1  # three draws, not one thrice
        for c in group.completions:
            assert len(c.ids) <= SAMPLING.max_new_tokens
            assert c.finished or len(c.ids) == SAMPLING.max_new_tokens
            assert c.reencoded


def test_without_its_dialect_the_server_ignores_the_temperature(url):
    """Why there is a dialect; should this fail one day, the dialect may not be needed any more."""
    plain = sample(url, PROMPTS[:1], 3, seed=1, dialect="openai", send_ids=False)
    assert len(set(texts(plain)[0])) == 1


def test_the_wrong_dialect_is_told(url):
    with pytest.raises(EndpointError, match=r"Unexpected fields.*dialect"):
        sample(url, PROMPTS[:1], 1, seed=0, dialect="vllm", send_ids=False)
    with pytest.raises(EndpointError, match=r"must be a string"):
        sample(url, PROMPTS[:1], 1, seed=0, dialect="openai")


@pytest.mark.parametrize("limit", [1, 2])
def test_no_more_requests_at_a_time_than_allowed(server, limit):
    with in_front_of(server) as counting:
        sample(counting.url, PROMPTS * 2, 1, seed=0, concurrency=limit)
    assert len(counting.requests) == 6
    assert counting.most_at_once == limit


# -- judging ----------------------------------------------------------------------------------


def judge_of(url, folder=SHIPPED, **options):
    settings = {"api_key_env": None, "timeout": 120.0, "tries": 1, "concurrency": 2, **options}
    return LLMJudge(str(folder), url, **settings)


ANSWERS = ["It is a pub.", "A cheap pub by the river.", "I do not know."]
OTHERS = ["It is Italian.", "A pub.", "Ask again."]


def test_a_judge_that_babbles_gives_no_verdict(server):
    with in_front_of(server) as counting:
        judge = judge_of(counting.url, parse_tries=2)
        verdicts = compare_symmetric(judge, ["Where to eat?"] * 3, ANSWERS, OTHERS)
        judge.close()
    assert np.isnan(verdicts).all()
    done = judge.statistics
    assert (done.asked, done.answered) == (6, 0)
    assert sum(done.abstained.values()) == 6
    assert set(done.abstained) <= {"unparsable", "truncated", "empty"}
    assert done.requests == len(counting.requests) >= 6
    assert counting.most_at_once == 2


@pytest.fixture(scope="module")
def says_a(tmp_path_factory, chat_model):
    """A judge that prefers whatever is shown first: it has learned to reply "A" to anything."""
    tokenizer, model = load_tokenizer("shipped"), load_model(chat_model)
    asked = [LLMJudge("m", "http://localhost/v1", api_key_env=None)._prompt.render("Hi?", a, b)
             for a, b in zip(ANSWERS, OTHERS, strict=True)]  # fmt: skip
    chats = [
        encode_prompt(tokenizer, [{"role": "user", "content": text}]) for text in [*asked, "No."]
    ]
    reply = [*tokenizer("A", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(120):
        ids = torch.tensor([[*chats[step % len(chats)], *reply]])
        logits = model(ids).logits[0, -len(reply) - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(reply))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    folder = tmp_path_factory.mktemp("judge")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_judge_that_likes_the_first_place_ties_everything(url, says_a):
    judge = judge_of(url, says_a)
    first = judge.compare(["Where to eat?"] * 3, ANSWERS, OTHERS)
    both = compare_symmetric(judge, ["Where to eat?"] * 3, ANSWERS, OTHERS)
    judge.close()
    assert judge.statistics.abstained == {}
    np.testing.assert_array_equal(first, 1.0)
    np.testing.assert_array_equal(both, 0.5)
    assert math.isclose(judge.statistics.position_bias, 0.5)
    assert judge.statistics.prompt_tokens > 0


# -- a whole command --------------------------------------------------------------------------


def refine(url, folder, *more):
    return [
        *("refine", "--prompts", "shipped", "--max-prompts", "4", "--rounds", "1"),
        *("--leader", SHIPPED, "--leader-url", url, "--leader-tokenizer", "shipped"),
        *("--leader-option", "dialect=transformers", "--leader-option", "concurrency=1"),
        *("--leader-option", "tries=1", "--follower", "shipped", "--oracle", "restaurant"),
        *("--max-new-tokens", "16", "--chunk-size", "1"),
        *("--output-dir", str(folder), "--json", *more),
    ]


def test_a_server_that_stops_in_the_middle(server, tmp_path, capfd):
    """A clear error; and with the server back, ``--resume`` ends where no stop would have."""

    class Front:
        """Hands requests on to a server that is stopped at the third."""

        behind, stop_at = server, None

        def answer(self, path, body, number):
            if number == self.stop_at:
                self.behind.stop()
            if self.behind.process.poll() is not None:
                return DROP
            return self.behind.forward(path, body, number)

    front = Front()
    with CompletionServer(front.answer) as proxy:
        assert _exit_code(refine(proxy.url, tmp_path / "whole")) == 0, capfd.readouterr().err
        whole = (tmp_path / "whole" / "answers.jsonl").read_bytes()
        assert len(whole.splitlines()) == 4
        used = len(proxy.requests)
        assert used == 4
        # A second server, so that the other tests keep theirs.
        with RealServer(tmp_path / "doomed.txt") as front.behind:
            front.stop_at = used + 2
            capfd.readouterr()
            assert _exit_code(refine(proxy.url, tmp_path / "cut")) == 1
            error = capfd.readouterr().err
            assert front.behind.process.poll() is not None
        assert "gave no answer in 1 tries" in error
        assert "See that the server is up" in error
        assert "--resume" in error
        assert "Traceback" not in error
        assert len(read_jsonl(tmp_path / "cut" / "answers.jsonl")) < 4
        front.behind, front.stop_at = server, None
        before = len(proxy.requests)
        assert _exit_code(refine(proxy.url, tmp_path / "cut", "--resume")) == 0
        assert len(proxy.requests) - before == 2  # finished prompts are not asked again
        assert (tmp_path / "cut" / "answers.jsonl").read_bytes() == whole


def test_a_tournament_whose_player_and_judge_are_on_the_server(server, says_a, tmp_path, capfd):
    with in_front_of(server) as counting:
        spec = {"model": SHIPPED, "url": counting.url, "tokenizer": "shipped"}
        spec["server"] = {"dialect": "transformers", "concurrency": 2}
        judge = {"kind": "llm", "model": str(says_a), "base_url": counting.url}
        judge |= {"api_key_env": None, "concurrency": 2, "timeout": 120.0}
        words = ["tournament", "--player", f"served={json.dumps(spec)}", "--player", "here=shipped"]
        words += ["--prompts", "shipped", "--max-prompts", "3", "--max-new-tokens", "20", "--yes"]
        words += ["--oracle", json.dumps(judge), "--output-dir", str(tmp_path / "run"), "--json"]
        code = _exit_code(words)
        out, err = capfd.readouterr()
    assert code == 0, err
    found = json.loads(out)
    # The judge likes the first place and nothing else, so both orders together tie.
    np.testing.assert_allclose(found["win_rate"], 0.5)
    assert found["comparisons"]["no_verdict"] == 0
    asked = [path for path, _ in counting.requests]
    assert asked.count("/v1/completions") == 3
    # Requests at once share the server's random numbers, so what is drawn differs from run to run:
    # two answers may come out equal, which is a tie that no judge is asked about.
    here, served = (
        [row["output"] for row in json.loads((tmp_path / f"run/answers/{name}.json").read_text())]
        for name in ("here", "served")
    )
    differing = sum(a != b for a, b in zip(here, served, strict=True))
    assert differing > 0
    assert asked.count("/v1/chat/completions") == 2 * differing
    assert found["comparisons"]["questions"] == 2 * differing
    assert found["comparisons"]["equal_texts"] == 3 - differing
    assert counting.most_at_once == 2
