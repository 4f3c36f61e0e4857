"""Players without a model for tests of refinements."""

import hashlib

import numpy as np

from equilign.evaluation.refine import Refiner
from equilign.experiments.refine.chunks import Desk
from equilign.experiments.refine.config import RefineConfig
from equilign.experiments.refine.run import Task
from equilign.experiments.refine.source import Source
from equilign.files import write_jsonl
from equilign.rollout import Completion, Group, prompt_text
from equilign.rollout.follower import FollowerPrompt

FORM = FollowerPrompt("better", "{prompt}|{answer}")


def letters(*parts, most=6):
    """A short text that depends on all its parts."""
    raw = hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
    return raw[: 1 + int(raw[-1], 16) % most].translate(str.maketrans("0123456789", "ghijklmnop"))


class Player:
    """Answers depend on prompt, position and seed, as a real model's do; remembers its calls."""

    def __init__(self, name):
        self.name = name
        self.calls = []
        self.seeds = []

    def sample(self, prompts, num_samples, seed):
        self.calls.append(list(prompts))
        self.seeds.append(seed)
        return [
            Group(
                p,
                (1,),
                tuple(
                    Completion((1,), letters(self.name, prompt_text(p), i, k, seed), k % 2 == 0)
                    for k in range(num_samples)
                ),
            )
            for i, p in enumerate(prompts)
        ]


class Longer:
    """Prefers the longer answer by its share of the letters; silent on answers with 'g'."""

    def __init__(self, abstains=False):
        self.abstains = abstains
        self.calls = []

    def compare(self, prompts, a, b):
        rows = list(zip(prompts, a, b, strict=True))
        self.calls.append(rows)
        return np.array([verdict(y, z, self.abstains) for _, y, z in rows])


def verdict(a, b, abstains=False):
    if a == b:
        return 0.5
    if abstains and "g" in a + b:
        return np.nan
    return (1 + len(a)) / (2 + len(a) + len(b))


def prompts_file(path, count):
    write_jsonl(path, ({"prompt": f"p{i}", "id": i} for i in range(count)))
    return path


def config_of(path, **options):
    given = {"prompts": str(path), "leader": "L", "follower": "F", "oracle": "x", "chunk_size": 4}
    given |= options
    if "answers" in options:
        given |= {"prompts": None, "leader": None}
    return RefineConfig(**given)


class Fake:
    """A task with players that need no model.

    Args:
        config: as of a real run.
        folder: the run directory.
    """

    def __init__(self, config, folder, abstains=False, fits=None, judged=True):
        self.leader, self.follower = Player("leader"), Player("follower")
        self.oracle = Longer(abstains) if judged else None
        source = Source(config.source, config.answers is not None, config.chat, config.max_prompts)
        self.task = Task(
            config,
            folder,
            source,
            lambda row: None,
            lambda: Desk(
                config,
                Refiner(self.follower, FORM, fits),
                self.leader if config.answers is None else None,
                self.oracle,
                len,
            ),
            lambda: folder.mkdir(exist_ok=True),
        )

    @property
    def calls(self):
        """How often anybody was asked."""
        oracle = [] if self.oracle is None else self.oracle.calls
        return len(self.leader.calls) + len(self.follower.calls) + len(oracle)
