"""Models and the start model side by side: do they fit together, and what do they answer?"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from equilign.errors import ConfigError, DataError, ModelError
from equilign.evaluation.divergence import Divergence, divergences, other_vocabulary
from equilign.experiments.kl.config import KLConfig, read_models, start_entry
from equilign.experiments.refine.players import LocalSampler, Player, find_folder, vocabulary
from equilign.experiments.tournament.answers import Prompts
from equilign.experiments.tournament.contestants import Model, is_pair, make_model, named
from equilign.experiments.tournament.specs import Entry
from equilign.games.records import excerpt
from equilign.rollout import Group, Prompt, encode_prompt, pad_token
from equilign.trainers.players import ROLES, Role
from equilign.trainers.rounds import derive_seed

_LOG = logging.getLogger("equilign")

Row = dict[str, Any]
"""One answer and what both models say of it, as JSON."""


@dataclass(frozen=True)
class Pairing:
    """A model, or a Leader with its Follower, and the start model.

    Attributes:
        entry: who it is.
        model: says how it plays.
        players: who is measured, by role; a model alone is a Leader.
        start: the start model.
        config: what is done.
    """

    entry: Entry
    model: Model
    players: Mapping[Role, Player]
    start: Player
    config: KLConfig

    def title(self, role: Role) -> str:
        """The name of a row of the results."""
        return f"{self.entry.name} {role}" if len(self.players) > 1 else self.entry.name

    # -- before anything is generated -------------------------------------------------------

    def check(self, prompts: Prompts) -> None:
        """Raise unless both models can read the prompts, and see the same tokens in them.

        Raises:
            ModelError: the two have other tokenizers or vocabularies.
            DataError: a prompt is too long for one of them.
        """
        for role in self.players:
            self._same_vocabulary(role)
        self.model.check(prompts)
        for row in prompts.rows:
            tokens = self.players["leader"].tokens(row.prompt)
            if tokens > self.start.limit:
                raise DataError(
                    f"{row.where}: the prompt has {tokens} tokens; the start model has room for "
                    f"{self.start.limit}. Shorten it, or lower max_new_tokens"
                )
        for role in self.players:
            self._same_tokenizer(role, prompts)

    def _same_vocabulary(self, role: Role) -> None:
        folders = (
            find_folder(str(getattr(self.model.players.config, role)), role),
            find_folder(self.config.start, "leader"),
        )
        mine, theirs = (vocabulary(folder, self.config.download) for folder in folders)
        if mine is not None and theirs is not None and mine != theirs:
            raise ModelError(other_vocabulary(mine, theirs))

    def _same_tokenizer(self, role: Role, prompts: Prompts) -> None:
        mine, theirs = self.players[role].tokenizer, self.start.tokenizer
        difference = None
        if mine.get_vocab() != theirs.get_vocab():
            difference = "their vocabularies differ"
        else:
            cut = (t for t in prompts.texts if encode_prompt(mine, t) != encode_prompt(theirs, t))
            if (text := next(cut, None)) is not None:
                difference = f"they make other tokens of {excerpt(text)}"
        if difference is not None:
            raise ModelError(
                f"its tokenizer is not that of the start model {self.config.start}: {difference}. "
                "Give as --start the model that it was trained from, or one with the same tokenizer"
            )
        if any(_rendered(mine, p) != _rendered(theirs, p) for p in prompts.prompts):
            _LOG.warning(
                "%s and the start model have different chat templates: both are shown the prompts "
                "as the former writes them",
                self.title(role),
            )

    # -- work -------------------------------------------------------------------------------

    def rows(self, part: Sequence[Prompt], index: int) -> dict[str, list[list[Row]]]:
        """Answers to some prompts with what both models say: for each role, a list per prompt."""
        seed = derive_seed(self.config.seed, "kl", self.entry.name, index)
        leader = _local(self.players["leader"])
        led = leader.sample(part, self.config.num_samples, seed)
        found: dict[str, list[list[Row]]] = {"leader": self._measured(leader, led)}
        if "follower" in self.players:
            found["follower"] = self._replies(led, derive_seed(seed, "follower"))
        return found

    def _replies(self, led: Sequence[Group], seed: int) -> list[list[Row]]:
        """The Follower's replies to these answers; none to one that it cannot be shown."""
        form, follower = self.model.players.form(), self.players["follower"]
        most = min(follower.limit, self.start.limit)
        asked: list[tuple[int, str, Prompt]] = []
        for i, group in enumerate(led):
            for text in (c.text for c in group.completions):
                prompt = form.of(group.prompt, text)
                if 0 < follower.tokens(prompt) <= most:
                    asked.append((i, text, prompt))
        found: list[list[Row]] = [[] for _ in led]
        if asked:
            sampler = _local(follower)
            groups = sampler.sample([prompt for _, _, prompt in asked], 1, seed)
            for (i, text, _), rows in zip(asked, self._measured(sampler, groups), strict=True):
                found[i] += [{"shown": text, **row} for row in rows]
        return found

    def _measured(self, policy: LocalSampler, groups: Sequence[Group]) -> list[list[Row]]:
        found = divergences(
            policy.playing,
            _local(self.start).playing,
            groups,
            pad_id=pad_token(policy.tokenizer),
            batch_size=self.config.batch_size,
        )
        return [
            [_row(c.text, d) for c, d in zip(group.completions, row, strict=True)]
            for group, row in zip(groups, found, strict=True)
        ]

    def forget(self) -> None:
        """Let go of the models, unless there is but one with its adapters."""
        if len(self.model.players.models) > 1:
            self.model.players.forget()


def make_pairings(config: KLConfig) -> tuple[list[Pairing], str | None]:
    """All models of the options, each beside the start model, and the start model's digest.

    Raises:
        ConfigError: a specification is none, or the start model is two.
        ModelError: there is no such model.
    """
    entries, sampling, first = read_models(config), config.sampling(), start_entry(config)
    with named(first):
        if is_pair(config.start) and len({find_folder(config.start, r) for r in ROLES}) > 1:
            raise ConfigError(
                f"{config.start} holds a Leader and a Follower; give the folder of one of them"
            )
        beginning = make_model(first, sampling, None)
        start = _there(beginning.players.leader())
    found = []
    for entry in entries:
        model = make_model(entry, sampling, beginning.players)
        with named(entry):
            players: dict[Role, Player] = {"leader": _there(model.players.leader())}
            if model.rounds:
                players["follower"] = model.players.follower()
        found.append(Pairing(entry, model, players, start, config))
    _check_titles(found)
    return found, beginning.made["weights"]


def _check_titles(pairings: Sequence[Pairing]) -> None:
    titles: set[str] = set()
    for title in (p.title(role) for p in pairings for role in p.players):
        if title.casefold() in titles:
            raise ConfigError(f"two rows would be called {title!r}; rename one: --model NAME=SPEC")
        titles.add(title.casefold())


def divergence_of(row: Mapping[str, Any]) -> Divergence:
    """A row's numbers."""
    return Divergence(*(row[k] for k in ("logp", "start_logp", "kl", "tokens", "finished")))


def _row(text: str, found: Divergence) -> Row:
    return {
        "answer": text,
        "logp": found.logp,
        "start_logp": found.start_logp,
        "kl": found.exact,
        "tokens": found.tokens,
        "finished": found.finished,
    }


def _local(player: Player) -> LocalSampler:
    sampler = player.open()
    assert isinstance(sampler, LocalSampler)  # noqa: S101 - nobody is on a server here
    return sampler


def _there(player: Player | None) -> Player:
    assert player is not None  # noqa: S101 - these options always have a Leader
    return player


def _rendered(tokenizer: Any, prompt: Prompt) -> tuple[int, ...] | None:  # noqa: ANN401
    """Tokens of a prompt; None where the tokenizer cannot render chat messages."""
    try:
        return encode_prompt(tokenizer, prompt)
    except (ModelError, TemplateError):
        return None
