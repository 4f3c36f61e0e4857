"""Followers at work: on their own Leader, on the start model, on everybody else, on people.

What is sampled lands in answer files: ``chain-LEADER-N`` is the N-th answer of the refinements by
the seed's own Follower (``chain-LEADER-1`` its replies to what it was shown), ``reply-WHO-LEADER``
what another policy makes of the same answers when asked as SLHF's Follower is.
"""

import json
from importlib import resources

from equilign.evaluation.callback import load_groups, save_groups
from equilign.evaluation.corrections import reply
from equilign.evaluation.refine import Refiner, standing
from equilign.evaluation.round_robin import first
from equilign.experiments.held_out import KL_PROMPTS, Tell, kl_to_start, quiet
from equilign.experiments.slhf.contestants import BASELINES, main_slhf
from equilign.experiments.slhf.half import HALF
from equilign.experiments.slhf.pieces import START, Setting, as_replies
from equilign.files import write_json
from equilign.rollout import Completion, Group, prompt_text
from equilign.runs import peak_memory_mb
from equilign.trainers.rounds import derive_seed

LEADER, FOLLOWER = "leader", "follower"
PEOPLE = "people"
OTHER = "follower-of-another-seed"
OTHERS = (START, *(c.name for c in BASELINES))
"""Policies that were never trained to reply."""

LEADERS = (START, *(c.name for c in BASELINES), LEADER, HALF, PEOPLE)
"""Whose answers are improved."""

LONG = (START, LEADER)
"""Whose answers are refined for all rounds; the others' once."""


def policy_name(player: str) -> str:
    """The training, or the start model, behind a Leader or a Follower."""
    return main_slhf().name if player in (LEADER, FOLLOWER) else player


def chain_name(leader: str, number: int) -> str:
    """The file of the N-th answers after a Leader's."""
    return f"chain-{leader}-{number}"


def reply_name(follower: str, leader: str) -> str:
    """The file of another policy's replies."""
    return f"reply-{follower}-{leader}"


def led_answers(setting: Setting, leader: str, seed: int, count: int | None = None) -> list[Group]:
    """The answers of a Leader that Followers are shown, which no player of the round robin gave.

    Args:
        setting: what all pieces share.
        leader: one of `LEADERS`.
        seed: whose.
        count: answers per prompt; by default as many as the seed's own Follower is shown.
    """
    if count is None:
        count = setting.scale.chains if leader in LONG else 1
    if leader == PEOPLE:
        return human_answers(setting, count)
    return setting.shown(policy_name(leader), seed, count)


def human_answers(setting: Setting, count: int) -> list[Group]:
    """What people wrote for the held-out prompts; the first ones again where there are fewer."""
    path = resources.files("equilign") / "assets" / "sppo_held_out" / "references.jsonl"
    text = path.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    known: dict[str, list[str]] = {row["prompt"]: row["references"] for row in rows}
    groups = []
    for prompt in setting.evaluate:
        texts = known[prompt_text(prompt)]
        chosen = (texts[i % len(texts)] for i in range(count))
        groups.append(Group(prompt, (), tuple(Completion((), t, True) for t in chosen)))
    return groups


def play_piece(setting: Setting, seed: int, other_seed: int, *, tell: Tell) -> None:
    """Let the Followers of a seed reply and refine, and measure how far they are from the start.

    Args:
        setting: what all pieces share.
        seed: whose Leader and whose answers.
        other_seed: whose Follower also replies to them.
        tell: called with files done.
    """
    path = setting.piece_file("played", seed)
    if path.exists():
        return
    quiet()
    own = setting.refiner(main_slhf().name, seed)
    total = len(LEADERS) * (1 + 1 + len(OTHERS))
    done = 0
    for leader in LEADERS:
        steps = setting.scale.steps if leader in LONG else 1
        _refine(setting, own, leader, seed, steps)
        done += 1
        tell(done, total)
    whos = {OTHER: (main_slhf().name, other_seed), **{name: (name, seed) for name in OTHERS}}
    for follower, (name, where) in whos.items():
        refiner = None
        for leader in LEADERS:
            file = setting.answers_file(reply_name(follower, leader), seed)
            if not file.exists():
                refiner = refiner or setting.refiner(name, where)
                led = led_answers(setting, leader, seed, 1)
                stream = derive_seed(seed, follower, leader)
                save_groups(file, reply(refiner, led, stream))
            done += 1
            tell(done, total)
    write_json(
        path,
        {"kl_nats": _follower_kl(setting, own, seed), "peak_memory_mb": peak_memory_mb()},
    )


def _refine(setting: Setting, refiner: Refiner, leader: str, seed: int, steps: int) -> None:
    """All rounds of one Leader's answers, a file each, unless they are there."""
    files = [setting.answers_file(chain_name(leader, n), seed) for n in range(1, steps + 1)]
    if all(file.exists() for file in files):
        return
    led = led_answers(setting, leader, seed)
    chains = refiner.chain(led, steps, derive_seed(seed, "chain", leader))
    for number, file in enumerate(files, 1):
        save_groups(file, standing(chains, number))


def _follower_kl(setting: Setting, refiner: Refiner, seed: int) -> float:
    """Of the first reply to each prompt."""
    mine = load_groups(setting.answers_file(chain_name(LEADER, 1), seed))
    led, replies = (
        [first(g, 1) for g in groups[:KL_PROMPTS]]
        for groups in (led_answers(setting, LEADER, seed), mine)
    )
    sampler = setting.load_sampler(main_slhf().name, seed, "follower")
    return kl_to_start(sampler, as_replies(sampler, refiner.form, led, replies))
