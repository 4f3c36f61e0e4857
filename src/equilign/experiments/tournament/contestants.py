"""Contestants that are models: who answers, and answers that survive a stop."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from equilign.errors import DataError, EquilignError
from equilign.evaluation.refine import Refiner
from equilign.experiments.refine.config import SHIPPED, RefineConfig
from equilign.experiments.refine.players import Player, Players, find_folder
from equilign.experiments.tournament.answers import Answer, Answers, Prompts, digest, pack, unpack
from equilign.experiments.tournament.config import TournamentConfig
from equilign.experiments.tournament.specs import Entry, PlayerSpec
from equilign.files import Journal
from equilign.models import shipped_model_path
from equilign.oracles.build import file_digest
from equilign.rollout import Prompt, Sampler
from equilign.rollout.follower import FILE_NAME
from equilign.trainers.rounds import derive_seed

Tell = Callable[[str, int, int], None]
_ADAPTER = "adapter_config.json"
_DECISIVE = (
    *("num_samples", "temperature", "top_p", "max_new_tokens", "max_prompt_tokens"),
    *("batch_size", "chunk_size", "dtype", "device", "seed"),
)
"""Options that decide what a model answers; a refinement has them as well."""


@dataclass(frozen=True)
class Model:
    """A model, or a Leader with its Follower, that answers prompts.

    Attributes:
        name: of the player.
        players: loads models.
        rounds: of refinement; 0 without a Follower.
        made: everything that the answers depend on, but for the prompts.
        num_samples: answers to each prompt.
        seed: of all of them.
        chunk_size: prompts answered together.
    """

    name: str
    players: Players
    rounds: int
    made: dict[str, Any]
    num_samples: int
    seed: int
    chunk_size: int

    def check(self, prompts: Prompts) -> None:
        """Raise before anything is generated if a prompt cannot be answered.

        Raises:
            DataError: it is too long; names it.
            ModelError: the model cannot read such prompts at all.
        """
        leader = self._leader()
        for row in prompts.rows:
            if not leader.fits(row.prompt):
                raise DataError(
                    f"{row.where}: the prompt has {leader.tokens(row.prompt)} tokens for player "
                    f"{self.name}; between 1 and {leader.limit} are allowed. Shorten it, or raise "
                    "max_prompt_tokens"
                )
        if self.rounds:
            follower = self.players.follower()
            form = self.players.form()
            for row in prompts.rows[:1]:
                follower.tokens(form.of(row.prompt, "..."))

    def answers(self, prompts: Prompts, path: Path, tell: Tell) -> Answers:
        """All answers; finished chunks are in the journal and are not made again.

        Args:
            prompts: what is asked.
            path: of the journal.
            tell: called with a stage, prompts answered, and all.
        """
        journal = Journal(path)
        try:
            found: list[Any] = []
            with self._open() as answer:
                for index, start in enumerate(range(0, len(prompts), self.chunk_size)):
                    part = prompts.prompts[start : start + self.chunk_size]
                    if index not in journal.entries:
                        tell(f"{self.name} answers", start, len(prompts))
                        seed = derive_seed(self.seed, "tournament", self.name, index)
                        journal.add(index, pack(answer(part, seed)))
                    found += journal.entries[index]
            tell(f"{self.name} answers", len(prompts), len(prompts))
            return unpack(found)
        finally:
            journal.close()

    def _leader(self) -> Player:
        leader = self.players.leader()
        assert leader is not None  # noqa: S101 - its configuration always has one
        return leader

    @contextmanager
    def _open(self) -> Iterator[Callable[[Sequence[Prompt], int], list[list[Answer]]]]:
        """Models are loaded when the first answer is wanted, servers' connections closed."""
        opened: list[Sampler] = []

        def answer(part: Sequence[Prompt], seed: int) -> list[list[Answer]]:
            if not opened:
                opened.append(self._leader().open())
                if self.rounds:
                    opened.append(self.players.follower().open())
            groups = opened[0].sample(part, self.num_samples, seed)
            if not self.rounds:
                last = [list(g.completions) for g in groups]
            else:
                fits = self.players.follower().fits
                refiner = Refiner(opened[1], self.players.form(), fits)
                chains = refiner.chain(groups, self.rounds, derive_seed(seed, "follower"))
                last = [[chain.answers[-1] for chain in row] for row in chains]
            return [[Answer(c.text, len(c.ids), c.finished) for c in row] for row in last]

        try:
            yield answer
        finally:
            for sampler in opened:
                close = getattr(sampler, "close", None)
                if close is not None:
                    close()


def make_model(entry: Entry, config: TournamentConfig, like: Players | None) -> Model:
    """The contestant of a player that is no file.

    Args:
        entry: who it is.
        config: of the tournament.
        like: players whose loaded models may be used again.

    Raises:
        ModelError, ConfigError: there is no such model, or it is on no such server.
    """
    spec = entry.spec
    own = {**config.settings(), **spec.sampling()}
    with named(entry):
        refine, rounds = _as_refinement(spec, own, config.download)
        players = Players(refine, like)
        made: dict[str, Any] = {
            "player": {k: v for k, v in spec.settings().items() if k != "server"},
            "weights": _weights(refine, spec.url, rounds),
            "sampling": {k: own[k] for k in _DECISIVE},
        }
        if rounds:
            made["follower_prompt"] = asdict(players.form())
    size = config.chunk_size
    return Model(entry.name, players, rounds, made, own["num_samples"], config.seed, size)


def _as_refinement(
    spec: PlayerSpec, own: Mapping[str, Any], download: bool
) -> tuple[RefineConfig, int]:
    """The options of a refinement with the same players, and its rounds; 0: nobody improves."""
    leader, follower = spec.leader or spec.model, spec.follower
    rounds = spec.rounds if follower is not None else 0
    if spec.model is not None and spec.url is None and spec.role == "pair" and is_pair(spec.model):
        follower, rounds = spec.model, spec.rounds
    rest: dict[str, Any] = {
        "prompts": SHIPPED,  # not read: the tournament has its own
        "leader": leader,
        "follower": follower or leader,
        "instruction": spec.instruction,
        "template": spec.template,
        "download": download,
    }
    if spec.url is not None:
        rest["leader_url"], rest["leader_tokenizer"] = spec.url, spec.tokenizer
        rest["leader_option"] = tuple(f"{k}={v}" for k, v in spec.server.items())
    return RefineConfig(**{k: own[k] for k in _DECISIVE}, **rest), rounds


@contextmanager
def named(entry: Entry) -> Iterator[None]:
    """Errors within say whose they are."""
    try:
        yield
    except EquilignError as error:
        if str(error).startswith(f"player {entry.name}"):
            raise
        raise type(error)(f"player {entry.name}: {error}") from error


def is_pair(source: str) -> bool:
    """Whether a folder holds a Leader and a Follower, as one model or as two.

    Raises:
        ModelError: see `equilign.experiments.refine.players.find_folder`.
    """
    if source == SHIPPED or not Path(source).expanduser().is_dir():
        return False
    leads, follows = (Path(find_folder(source, role)) for role in ("leader", "follower"))
    if leads != follows:
        return True
    alone = leads.name == "follower" and (leads.parent / "leader").is_dir()
    return (leads / FILE_NAME).is_file() and not alone


def _weights(config: RefineConfig, url: str | None, rounds: int) -> str | None:
    """What is in the folders of a player; None where the weights are somebody else's."""
    if url is not None:
        return None
    sources = [find_folder(str(config.leader), "leader")]
    if rounds:
        sources.append(find_folder(config.follower, "follower"))
    found: list[Any] = []
    for source in sources:
        folder = shipped_model_path() if source == SHIPPED else Path(source).expanduser()
        if not folder.is_dir():
            found.append(source)
            continue
        kept = [p for p in sorted(folder.iterdir()) if _counts(p)]
        found.append([(p.name, file_digest(p)) for p in kept])
    return digest(found)


def _counts(path: Path) -> bool:
    # A model card, or the state of an optimiser beside the weights, changes no answer.
    names = (_ADAPTER, "config.json", "chat_template.jinja", "tokenizer.json", FILE_NAME)
    return path.is_file() and (path.suffix in (".safetensors", ".bin") or path.name in names)


def with_prompts(made: dict[str, Any], prompts: Prompts) -> dict[str, Any]:
    """``made`` of a player that answers these prompts."""
    return {**made, "prompts": prompts.digest}
