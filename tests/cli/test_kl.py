"""`equilign kl` as a user runs it: rows, their files, a stop, mistakes."""

import json
import shutil

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from equilign.cli.main import _exit_code
from equilign.errors import ConfigError
from equilign.experiments.kl.config import KLConfig, read_models
from equilign.experiments.kl.players import Pairing
from equilign.experiments.kl.run import run_kl
from equilign.files import read_jsonl, write_jsonl
from equilign.models import load_model, load_tokenizer
from equilign.rollout import encode_prompt
from equilign.rollout.follower import FollowerPrompt
from tests.enumerable import TEXTS, exact_logps, tiny_model, tiny_tokenizer

KEYS = {
    *("start", "players", "prompts", "num_samples", "max_new_tokens", "seed", "answers"),
    *("figures", "output_dir", "seconds", "peak_memory_mb"),
}
ROW_KEYS = {
    *("name", "model", "source", "role", "kl", "k1", "kl_per_token", "tokens"),
    *("finished_share", "answers", "prompts", "not_shown"),
}


@pytest.fixture(scope="module")
def work(tmp_path_factory, chat_model):
    """A second model, an adapter of the first one, a pair of both, and a model of other tokens."""
    folder = tmp_path_factory.mktemp("kl")
    shutil.copytree(chat_model, folder / "other")
    model = load_model(chat_model)
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    model.save_pretrained(folder / "other")
    modules = ["v_proj", "o_proj", "up_proj", "down_proj"]
    options = {"r": 4, "lora_alpha": 64, "init_lora_weights": False, "target_modules": modules}
    adapted = get_peft_model(load_model(chat_model), LoraConfig(**options))
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if "lora_" in name:
                p.normal_(0.0, 0.3)
    adapted.save_pretrained(folder / "adapter")
    shutil.copytree(folder / "other", folder / "pair" / "leader")
    shutil.copytree(folder / "adapter", folder / "pair" / "follower")
    FollowerPrompt("Do better.").save(folder / "pair" / "follower")
    for name, seed in (("tiny", 0), ("tiny2", 1), ("tiny3", 2)):
        tiny_model(seed, torch.float32).save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
    return folder


def run_here(capfd, *given):
    code = _exit_code([*map(str, given)])
    out, err = capfd.readouterr()
    assert "Traceback" not in err, err
    return code, out, err


def run_json(capfd, *given):
    code, out, err = run_here(capfd, *given, "--json")
    assert code == 0, err
    return json.loads(out)


def arguments(start, prompts_file, out, *models):
    named = [word for m in models for word in ("--model", m)]
    return [
        *("kl", *named, "--start", start, "--prompts", prompts_file, "--max-prompts", 4),
        *("--max-new-tokens", 8, "--output-dir", out),
    ]


@torch.no_grad()
def by_hand(model, start, prompt_ids, ids):
    """Exact KL summed over the places, and both log-probabilities, from whole logits."""
    whole = torch.tensor([[*prompt_ids, *ids]])
    own, other = (
        m(whole).logits[0, len(prompt_ids) - 1 : -1].double().log_softmax(-1)
        for m in (model, start)
    )
    at = torch.arange(len(ids)), torch.tensor(ids)
    return [float(x) for x in ((own.exp() * (own - other)).sum(), own[at].sum(), other[at].sum())]


def test_rows_follow_from_the_answers(capfd, work, chat_model, prompts_file, tmp_path):
    given = arguments(
        chat_model, prompts_file, tmp_path / "run",
        f"far={work / 'other'}", f"lora={work / 'adapter'}", f"same={chat_model}",
    )  # fmt: skip
    found = run_json(capfd, *given)
    assert set(found) == KEYS
    assert (found["prompts"], found["num_samples"], found["start"]) == (4, 2, str(chat_model))
    rows = {p["name"]: p for p in found["players"]}
    assert list(rows) == ["far", "lora", "same"]
    answers = read_jsonl(tmp_path / "run" / "answers.jsonl")
    tokenizer, start = load_tokenizer(chat_model), load_model(chat_model)
    policies = {"far": load_model(work / "other"), "same": start}
    checked = []
    for name, row in rows.items():
        assert set(row) == ROW_KEYS
        assert (row["role"], row["answers"], row["prompts"], row["not_shown"]) == ("model", 8, 4, 0)
        mine = [a for a in answers if a["player"] == name]
        terms = {k: np.reshape([a[k] for a in mine], (4, 2)) for k in ("kl", "logp", "start_logp")}
        tokens = np.reshape([a["tokens"] for a in mine], (4, 2))
        assert row["kl"]["nats"] == pytest.approx(terms["kl"].mean())
        assert row["k1"]["nats"] == pytest.approx((terms["logp"] - terms["start_logp"]).mean())
        assert row["kl_per_token"]["nats"] == pytest.approx(terms["kl"].sum() / tokens.sum())
        assert row["tokens"]["mean"] == tokens.mean()
        assert row["finished_share"] == np.mean([a["finished"] for a in mine])
        for a in mine if name in policies else []:
            ids = tokenizer(a["answer"], add_special_tokens=False)["input_ids"]
            if a["finished"]:
                ids = [*ids, tokenizer.eos_token_id]
            if len(ids) != a["tokens"]:  # the text can be cut otherwise than it was drawn
                continue
            prompt = encode_prompt(tokenizer, a["prompt"])
            kl, logp, start_logp = by_hand(policies[name], start, prompt, ids)
            if a["logp"] == pytest.approx(logp, abs=1e-3):
                assert (a["kl"], a["start_logp"]) == pytest.approx((kl, start_logp), abs=1e-3)
                checked.append(name)
    assert checked.count("far") >= 2
    far, near = rows["far"]["kl"], rows["same"]["kl"]
    assert 0.0 <= far["low"] < far["nats"] < far["high"]
    assert far["nats"] > 0.1
    assert rows["lora"]["kl"]["nats"] > 1e-3
    assert near == {"nats": 0.0, "low": 0.0, "high": 0.0}
    names = {"config.yaml", "environment.json", "results.json", "answers.jsonl", "figures"}
    assert {p.name for p in (tmp_path / "run").iterdir()} == names
    assert found["figures"] == ["figures/distances.svg", "figures/distances.png"]
    svg = (tmp_path / "run" / found["figures"][0]).read_text()
    assert "lora" in svg
    assert "nats per answer" in svg


def test_the_table(capfd, work, chat_model, prompts_file, tmp_path):
    given = arguments(chat_model, prompts_file, tmp_path / "run", work / "other")
    code, out, err = run_here(capfd, *given)
    assert code == 0, err
    (row,) = json.loads((tmp_path / "run" / "results.json").read_text())["players"]
    assert f"{row['kl']['nats']:.3f}" in out
    assert f"{row['k1']['nats']:.2f}" in out
    assert f"{row['tokens']['mean']:.1f}" in out
    code, _, err = run_here(capfd, *given)
    assert code == 2
    assert "Add --resume" in err


TEMPLATE = "{prompt} {answer} b"


def test_a_follower_is_measured_given_the_answer_it_was_shown(capfd, work, tmp_path):
    """By all strings of a language of two letters."""
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": "a b"}] * 200)
    spec = {"leader": str(work / "tiny2"), "follower": str(work / "tiny3"), "template": TEMPLATE}
    given = [
        *("kl", "--model", f"pair={json.dumps(spec)}", "--start", work / "tiny"),
        *("--prompts", tmp_path / "prompts.jsonl", "--max-new-tokens", 2, "--num-samples", 4),
        *("--seed", 3, "--output-dir", tmp_path / "run"),
    ]
    found = run_json(capfd, *given)
    assert [p["name"] for p in found["players"]] == ["pair leader", "pair follower"]
    assert [p["role"] for p in found["players"]] == ["leader", "follower"]
    models = {name: load_model(work / name) for name in ("tiny", "tiny2", "tiny3")}
    encode = tiny_tokenizer()

    def laws(name, prompt):
        return exact_logps(models[name], encode(prompt)["input_ids"])

    led = laws("tiny2", "a b")
    truth = [float(np.exp(led) @ (led - laws("tiny", "a b"))), 0.0]
    shown = [t.removesuffix("e").strip() for t in TEXTS]
    conditional = {}
    for weight, text in zip(np.exp(led), shown, strict=True):
        own, other = (
            laws(n, TEMPLATE.format(prompt="a b", answer=text)) for n in ("tiny3", "tiny")
        )
        conditional[text] = float(np.exp(own) @ (own - other))
        truth[1] += weight * conditional[text]
    for row, value in zip(found["players"], truth, strict=True):
        assert row["kl"]["low"] < value < row["kl"]["high"]
        assert row["k1"]["low"] < value < row["k1"]["high"]
        assert row["kl"]["high"] - row["kl"]["low"] < 0.5 * value
    lines = read_jsonl(tmp_path / "run" / "answers.jsonl")
    leads, follows = (
        [x for x in lines if x["player"] == f"pair {r}"] for r in ("leader", "follower")
    )
    assert [x["answer"] for x in leads] == [x["shown"] for x in follows]
    assert {x["prompt"] for x in follows} == {"a b"}
    for line in follows[:40]:
        prompt = encode(TEMPLATE.format(prompt="a b", answer=line["shown"]))["input_ids"]
        ids = encode(line["answer"])["input_ids"] + [0] * line["finished"]
        kl, logp, start_logp = by_hand(models["tiny3"], models["tiny"], prompt, ids)
        assert (line["kl"], line["logp"]) == pytest.approx((kl, logp), abs=1e-3)
        assert line["start_logp"] == pytest.approx(start_logp, abs=1e-3)


def test_a_folder_with_both_is_two_rows_asked_as_it_was_trained(
    capfd, work, chat_model, prompts_file, tmp_path
):
    given = arguments(chat_model, prompts_file, tmp_path / "run", work / "pair")
    found = run_json(capfd, *given)
    assert [p["name"] for p in found["players"]] == ["pair leader", "pair follower"]
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert "Do better." in config
    # The Follower is the adapter, whose base is the start model.
    leader, follower = (p["kl"]["nats"] for p in found["players"])
    assert 0.0 < follower < leader


def test_answers_that_are_too_long_to_be_shown(capfd, work, tmp_path):
    """There is room for a prompt of 11 tokens, an answer of one, and the template's letter."""
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": " ".join("a" * 11)}] * 20)
    spec = {"leader": str(work / "tiny2"), "follower": str(work / "tiny3"), "template": TEMPLATE}
    given = [
        *("kl", "--model", f"pair={json.dumps(spec)}", "--start", work / "tiny"),
        *("--prompts", tmp_path / "prompts.jsonl", "--max-new-tokens", 2),
        *("--max-prompt-tokens", 13, "--output-dir", tmp_path / "run"),
    ]
    leader, follower = run_json(capfd, *given)["players"]
    lines = read_jsonl(tmp_path / "run" / "answers.jsonl")
    too_long = [x for x in lines if x["player"] == "pair leader" and len(x["answer"].split()) == 2]
    assert leader["not_shown"] == 0
    assert 0 < follower["not_shown"] == len(too_long) < 40
    assert follower["answers"] == 40 - len(too_long)
    assert {len(x["shown"].split()) for x in lines if "shown" in x} <= {0, 1}


def test_a_stop_repeats_nothing(work, chat_model, prompts_file, tmp_path, monkeypatch):
    models = (f"far={work / 'other'}", f"pair={work / 'pair'}")
    options = {"start": str(chat_model), "prompts": str(prompts_file), "max_prompts": 4}
    config = KLConfig(model=models, max_new_tokens=6, chunk_size=2, **options)
    played, whole_rows = [], Pairing.rows

    def rows(self, part, index):
        if len(played) == 3:
            raise KeyboardInterrupt
        played.append((self.entry.name, index))
        return whole_rows(self, part, index)

    monkeypatch.setattr(Pairing, "rows", rows)
    quiet = lambda *call: None  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        run_kl(config, tmp_path / "run", progress=quiet)
    assert played == [("far", 0), ("far", 1), ("pair", 0)]
    assert not (tmp_path / "run" / "results.json").exists()
    monkeypatch.setattr(Pairing, "rows", whole_rows)
    made = []

    def counting(self, part, index):
        made.append((self.entry.name, index))
        return whole_rows(self, part, index)

    monkeypatch.setattr(Pairing, "rows", counting)
    again = run_kl(config, tmp_path / "run", resume=True, progress=quiet)
    assert made == [("pair", 1)]
    whole = run_kl(config, tmp_path / "whole", progress=quiet)
    assert again["players"] == whole["players"]
    texts = [(tmp_path / d / "answers.jsonl").read_text() for d in ("run", "whole")]
    assert texts[0] == texts[1]
    del made[:]
    assert run_kl(config, tmp_path / "run", resume=True, progress=quiet) == again
    assert made == []


# -- wrong input ----------------------------------------------------------------------------


def test_mistakes_are_told_before_anything_is_written(
    capfd, work, chat_model, prompts_file, tmp_path
):
    out = tmp_path / "run"
    write_jsonl(tmp_path / "long.jsonl", [{"prompt": "word " * 600}])
    resized = tmp_path / "resized"
    shutil.copytree(chat_model, resized)
    model = load_model(chat_model)
    model.resize_token_embeddings(model.config.vocab_size + 8)
    model.save_pretrained(resized)
    a = f"a={chat_model}"
    cases = [
        ([], {}, "which models?"),
        ([f"a={work / 'tiny'}"], {}, "tells apart 3 tokens and the start model"),
        ([f"a={resized}"], {}, "so no distance is defined"),
        ([a, f"A={work / 'other'}"], {}, "two players are called 'A'"),
        (
            [f"p={work / 'pair'}", f"p leader={chat_model}"],
            {},
            "two rows would be called 'p leader'",
        ),
        (["/nowhere/model"], {}, "player model: no model folder at /nowhere/model"),
        ([a], {"--start": "/nowhere/start"}, "player start: no model folder at /nowhere/start"),
        ([a], {"--start": work / "pair"}, "holds a Leader and a Follower"),
        ([a], {"--num-samples": 0}, "num_samples = 0"),
        ([a], {"--max-new-tokens": 0}, "max_new_tokens = 0"),
        ([a], {"--dtype": "int4"}, "dtype = 'int4'"),
        ([a], {"--prompts": tmp_path / "none.jsonl"}, "none.jsonl"),
        ([a], {"--prompts": "-"}, "give a file"),
        ([a], {"--prompts": tmp_path / "long.jsonl"}, "Shorten it"),
        ([a], {"--temperature": 0.5}, "No such option"),
        (["a=answers.json"], {}, "is a file of answers"),
        (["a={model: shipped, temperature: 0.5}"], {}, "unbiased at temperature 1"),
    ]
    for models, more, message in cases:
        given = arguments(chat_model, prompts_file, out, *models)
        given += [word for pair in more.items() for word in pair]
        code, shown, err = run_here(capfd, *given, "--json")
        assert (code, shown) == (2, ""), (models, more, err)
        assert message in err, (models, more, err)
        assert not out.exists()


def test_another_tokenizer_of_the_same_size_is_refused(
    capfd, work, chat_model, prompts_file, tmp_path
):
    shutil.copytree(work / "tiny2", tmp_path / "turned")
    file = tmp_path / "turned" / "tokenizer.json"
    text = json.loads(file.read_text())
    text["model"]["vocab"] = {"e": 0, "b": 1, "a": 2}
    file.write_text(json.dumps(text))
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": "a b"}])
    given = arguments(
        work / "tiny", tmp_path / "prompts.jsonl", tmp_path / "run", tmp_path / "turned"
    )
    code, _, err = run_here(capfd, *given)
    assert code == 2
    assert "its tokenizer is not that of the start model" in err
    assert "their vocabularies differ" in err


def test_another_chat_template_is_said(capfd, work, chat_model, prompts_file, tmp_path, caplog):
    """Both are then shown the model's."""
    other = tmp_path / "other"
    shutil.copytree(chat_model, other)
    tokenizer = load_tokenizer(chat_model)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}!{% endfor %}"
    tokenizer.save_pretrained(other)
    given = [*arguments(chat_model, prompts_file, tmp_path / "run", other), "--chat"]
    found = run_json(capfd, *given)
    assert "other and the start model have different chat templates" in caplog.text
    assert found["players"][0]["kl"]["nats"] == 0.0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("a={model: m, url: 'http://x/v1'}", "whole distributions"),
        ("a={model: m, top_p: 0.5}", "top_p cannot be set"),
        ("a={model: m, num_samples: 3}", "give --num-samples"),
        ("a={leader: m, follower: n, rounds: 2}", "asked once"),
        ("a={leader: m}", "leader and follower go together"),
    ],
)
def test_specifications_that_are_not_measured(spec, message):
    config = KLConfig(model=(spec,), start="shipped", prompts="shipped")
    with pytest.raises(ConfigError, match=message):
        read_models(config)
