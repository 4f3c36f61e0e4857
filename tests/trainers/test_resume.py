"""A run that dies anywhere and is resumed ends with exactly the weights of one that did not."""

import json

import pytest
import torch
from peft import get_peft_model
from transformers import TrainerCallback

from equilign.errors import RunDirectoryError
from equilign.oracles import CallableOracle
from equilign.rollout import SamplingConfig, TransformersSampler
from equilign.trainers import References, SPPOConfig, SPPOTrainer
from tests.enumerable import tiny_model, tiny_tokenizer

PROMPTS = ["a b", "b a", "a a b", "b b a", "a b b", "b a a"]


class Died(Exception):
    pass


def prefer_b(prompt, a, b):
    return 1.0 / (1.0 + 2.718281828 ** (b.count("b") - a.count("b")))


def make(folder, *, callbacks=(), oracle=None, wrap=lambda s: s, peft_config=None, **options):
    torch.manual_seed(0)
    model, tokenizer = tiny_model(seed=1, dtype=torch.float32, spread=0.5), tiny_tokenizer()
    if peft_config is not None:
        model = get_peft_model(model, peft_config)
    settings = {
        "eta": 3.0,
        "num_rounds": 3,
        "prompts_per_round": 4,
        "num_generations": 8,
        "max_completion_length": 3,
        "per_device_train_batch_size": 2,
        "chunk_prompts": 2,
        "learning_rate": 0.01,
        "optim": "adamw_torch",
        "logging_steps": 1,
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 5,
        **options,
    }
    args = SPPOConfig(output_dir=str(folder), **settings)
    sampler = TransformersSampler(model, tokenizer, SamplingConfig(max_new_tokens=3))
    return SPPOTrainer(
        model,
        args,
        [{"prompt": p} for p in PROMPTS],
        oracle or CallableOracle(prefer_b),
        tokenizer,
        sampler=wrap(sampler),
        callbacks=list(callbacks),
    )


def weights(trainer):
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters()}


def metrics(folder):
    rows = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if "runtime" not in k} for r in rows]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    trainer = make(folder)
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)
    assert any(not torch.equal(before[n], after[n]) for n in after), "nothing was trained"
    return folder, after


class DieAtStep(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Died


def counted(inner, calls):
    left = [calls]

    class Counted(TransformersSampler):
        def sample(self, *args):
            left[0] -= 1
            if left[0] < 0:
                raise Died
            return super().sample(*args)

    return Counted(inner.model, inner.tokenizer, inner.config)


class CountedOracle:
    def __init__(self, calls):
        self.inner, self.calls = CallableOracle(prefer_b), calls

    def compare(self, *args):
        self.calls -= 1
        if self.calls < 0:
            raise Died
        return self.inner.compare(*args)


def die(monkeypatch, where, folder):
    """Train until the given accident."""
    kind, count = where
    if kind == "checkpoint":
        saved, left = References.save, [count]

        def save(self, path, **options):
            left[0] -= 1
            if left[0] < 0:
                path.mkdir(parents=True, exist_ok=True)
                (path / "reference.safetensors").write_bytes(b"torn")
                raise Died
            saved(self, path, **options)

        monkeypatch.setattr(References, "save", save)
        trainer = make(folder)
    elif kind == "generation":
        trainer = make(folder, wrap=lambda s: counted(s, count))
    elif kind == "judging":
        trainer = make(folder, oracle=CountedOracle(count))
    else:
        trainer = make(folder, callbacks=[DieAtStep(count)])
    with pytest.raises(Died):
        trainer.train()
    monkeypatch.undo()


ACCIDENTS = [
    ("generation", 0),
    ("generation", 1),
    ("generation", 3),
    ("judging", 1),
    ("judging", 6),
    ("step", 1),
    ("step", 2),
    ("step", 3),
    ("step", 6),
    ("checkpoint", 0),
    ("checkpoint", 2),
]


@pytest.mark.parametrize("where", ACCIDENTS, ids=lambda w: f"{w[0]}-{w[1]}")
def test_resumed_run_is_bit_identical(tmp_path, monkeypatch, uninterrupted, where):
    folder, expected = uninterrupted
    die(monkeypatch, where, tmp_path)
    trainer = make(tmp_path)
    trainer.train(resume_from_checkpoint=True)
    found = weights(trainer)
    assert all(torch.equal(found[n], expected[n]) for n in expected)
    assert metrics(tmp_path) == metrics(folder)
    for path in sorted((folder / "rounds").iterdir()):
        assert (tmp_path / "rounds" / path.name).read_bytes() == path.read_bytes()
    assert not list((tmp_path / "rounds").glob("*.partial.jsonl"))


def test_resume_in_the_middle_of_a_round(tmp_path, monkeypatch, uninterrupted):
    """With checkpoints every step, a kill inside a round loses no step."""
    _, expected = uninterrupted
    step_saves = {"save_strategy": "steps", "save_steps": 1}
    trainer = make(tmp_path, callbacks=[DieAtStep(4)], **step_saves)
    with pytest.raises(Died):
        trainer.train()
    resumed = make(tmp_path, **step_saves)
    assert resumed.last_checkpoint().endswith("checkpoint-3")
    resumed.train(resume_from_checkpoint=True)
    found = weights(resumed)
    assert all(torch.equal(found[n], expected[n]) for n in expected)


def test_journal_spares_finished_chunks(tmp_path):
    """After a kill in the second chunk the first is neither sampled nor judged again."""
    with pytest.raises(Died):
        make(tmp_path, wrap=lambda s: counted(s, 1)).train()
    asked = []

    def watching(inner):
        class Watch:
            def sample(self, prompts, *rest):
                asked.append(list(prompts))
                return inner.sample(prompts, *rest)

        return Watch()

    resumed = make(tmp_path, wrap=watching, num_rounds=3)
    resumed.train(resume_from_checkpoint=True)
    first_round = [PROMPTS[i] for i in resumed.plan.prompts(0)]
    assert asked[0] == first_round[2:]
    assert len(asked) == 5  # one chunk left of round 1, two of each other round


def test_references_come_back_from_the_checkpoint(tmp_path):
    whole = make(tmp_path / "a")
    start = weights(whole)
    whole.train()
    with pytest.raises(Died):
        make(tmp_path / "b", callbacks=[DieAtStep(5)]).train()
    resumed = make(tmp_path / "b")
    with torch.no_grad():  # a resume must not take the reference from what it happens to find
        for p in resumed.model.parameters():
            p.add_(1.0)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.references.equal("reference", start)
    assert whole.references.equal("reference", start)


def test_old_checkpoints_are_rotated_and_none_is_partial(tmp_path):
    make(tmp_path, save_total_limit=1).train()
    names = sorted(p.name for p in (tmp_path / "checkpoints" / "sppo").iterdir())
    assert names == ["checkpoint-6", "options.json"]


def test_stale_rounds_are_never_trained_on(tmp_path):
    """The same folder again: refused, unless it is the same run resumed."""
    make(tmp_path).train()
    played = (tmp_path / "rounds" / "sppo-001.jsonl").read_bytes()
    with pytest.raises(RunDirectoryError, match=r"already holds a run; train\(resume"):
        make(tmp_path).train()
    with pytest.raises(RunDirectoryError, match=r"eta: 3.0 there, 4.0 now"):
        make(tmp_path, eta=4.0).train(resume_from_checkpoint=True)
    (tmp_path / "checkpoints" / "sppo" / "options.json").unlink()
    with pytest.raises(RunDirectoryError, match="is of a run that is not this one's"):
        make(tmp_path).train(resume_from_checkpoint=True)
    assert (tmp_path / "rounds" / "sppo-001.jsonl").read_bytes() == played
