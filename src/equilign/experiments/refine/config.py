"""Options of a refinement."""

from dataclasses import asdict, dataclass, field
from typing import Any

from equilign.errors import ConfigError

STDIN = "-"
SHIPPED = "shipped"
KEEP = ("last", "all", "best")
DTYPES = ("float32", "bfloat16", "float16")


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True, kw_only=True)
class RefineConfig:
    """Who leads, who follows, what is kept; every attribute's help is what the command line shows.

    Raises:
        ConfigError: an option is out of range, or contradicts another one.
    """

    follower: str = field(
        metadata=_help(
            "Who improves: a folder saved by SLHFTrainer, a run directory, any chat model "
            "(folder, 'shipped', hub name), or the server's name of it with --follower-url."
        )
    )
    prompts: str | None = field(
        default=None,
        metadata=_help(
            "Prompts for the Leader: a data file, '-' for JSON lines on stdin, or 'shipped'."
        ),
    )
    leader: str | None = field(
        default=None,
        metadata=_help("Who answers first: as --follower."),
    )
    answers: str | None = field(
        default=None,
        metadata=_help(
            "In place of a Leader: prompts with answers, as prompt and completion(s), or as "
            "instruction and output (AlpacaEval); a data file, or '-' for JSON lines on stdin."
        ),
    )
    leader_url: str | None = field(
        default=None, metadata=_help("The Leader is on this OpenAI-compatible server (.../v1).")
    )
    leader_tokenizer: str | None = field(
        default=None, metadata=_help("Of a Leader on a server; its name by default.")
    )
    leader_option: tuple[str, ...] = field(
        default=(),
        metadata=_help("NAME=VALUE for the Leader's server, such as api_key_env=MY_KEY. Repeat."),
    )
    follower_url: str | None = field(
        default=None, metadata=_help("The Follower is on this OpenAI-compatible server (.../v1).")
    )
    follower_tokenizer: str | None = field(
        default=None, metadata=_help("Of a Follower on a server; its name by default.")
    )
    follower_option: tuple[str, ...] = field(
        default=(), metadata=_help("NAME=VALUE for the Follower's server. Repeat.")
    )
    instruction: str | None = field(
        default=None,
        metadata=_help(
            "What the Follower is asked to do. Default: as it was trained, else to improve it."
        ),
    )
    template: str | None = field(
        default=None,
        metadata=_help(
            "Plain-text prompts only: the Follower's prompt, with {prompt}, {answer} and "
            "{instruction} in it."
        ),
    )
    rounds: int = field(default=3, metadata=_help("How often an answer is improved."))
    num_samples: int = field(
        default=1, metadata=_help("Answers of the Leader per prompt; each begins a chain.")
    )
    keep: str = field(
        default="last",
        metadata=_help("last: each chain's last answer; all: every answer; best: oracle's pick."),
    )
    oracle: str | None = field(
        default=None,
        metadata=_help(
            "Who judges: a YAML file with a specification, the specification itself "
            "('restaurant', '{kind: reward, path: FOLDER}'), or a fitted judge's folder."
        ),
    )
    compare: bool = field(
        default=False,
        metadata=_help(
            "Also compare with best-of-n and independent answers of the Leader, for as many "
            "generated answers."
        ),
    )
    opponents: int = field(
        default=2, metadata=_help("Further answers of the Leader that --compare plays against.")
    )
    chat: bool = field(
        default=False, metadata=_help("Turn plain-text prompts into one user message of a chat.")
    )
    max_prompts: int | None = field(default=None, metadata=_help("The first so many only."))
    temperature: float = field(default=1.0, metadata=_help("Of the softmax; 0 decodes greedily."))
    top_p: float = field(default=1.0, metadata=_help("Nucleus mass."))
    max_new_tokens: int = field(default=256, metadata=_help("Length limit of an answer."))
    max_prompt_tokens: int | None = field(
        default=None,
        metadata=_help("Length limit of what a model is shown. Default: what its positions leave."),
    )
    batch_size: int = field(default=64, metadata=_help("Answers generated together."))
    chunk_size: int = field(
        default=64,
        metadata=_help("Prompts worked on together; their lines are written together."),
    )
    dtype: str = field(default="float32", metadata=_help(f"Of weights: {', '.join(DTYPES)}."))
    device: str | None = field(
        default=None, metadata=_help("Such as cpu or cuda:1. Default: a GPU if there is one.")
    )
    seed: int = field(default=0, metadata=_help("Seed of everything."))
    download: bool = field(default=False, metadata=_help("Models may be fetched from the hub."))

    def __post_init__(self) -> None:
        self._check_numbers()
        if self.keep not in KEEP:
            raise ConfigError(f"keep = {self.keep!r}; there are: {', '.join(KEEP)}")
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype = {self.dtype!r}; there are: {', '.join(DTYPES)}")
        self._check_leader()
        judged = {"--keep best": self.keep == "best", "--compare": self.compare}
        for name in [name for name, on in judged.items() if on and self.oracle is None]:
            raise ConfigError(f"{name} needs a judge: add --oracle, such as --oracle restaurant")
        for who in ("leader", "follower"):
            own = [f"--{who}-{n}" for n in ("tokenizer", "option") if getattr(self, f"{who}_{n}")]
            if own and getattr(self, f"{who}_url") is None:
                raise ConfigError(f"{own[0]} is for a model on a server: add --{who}-url")

    def _check_numbers(self) -> None:
        least = {
            "rounds": 1,
            "num_samples": 1,
            "opponents": 1,
            "max_new_tokens": 1,
            "batch_size": 1,
            "chunk_size": 1,
            "seed": 0,
            "temperature": 0.0,
        }
        for name in ("max_prompts", "max_prompt_tokens"):
            if getattr(self, name) is not None:
                least[name] = 1
        for name, bound in least.items():
            value = getattr(self, name)
            if not value >= bound:  # nan is refused, too
                raise ConfigError(f"{name} = {value}; it must be >= {bound}")
        if not 0.0 < self.top_p <= 1.0:
            raise ConfigError(f"top_p = {self.top_p}; it must be in (0, 1]")

    def _check_leader(self) -> None:
        if (self.leader is None) == (self.answers is None):
            both = self.leader is not None
            raise ConfigError(
                ("--leader and --answers both say who answers first; give one of them")
                if both
                else "who answers first? Give --leader MODEL, or --answers FILE with answers"
            )
        if self.answers is None:
            if self.prompts is None:
                raise ConfigError("--leader needs --prompts FILE (or '-', or 'shipped')")
            return
        clashes = {
            "--prompts": self.prompts is not None,
            "--leader-url": self.leader_url is not None,
            "--num-samples": self.num_samples != 1,
            "--compare": self.compare,
        }
        reasons = {
            "--prompts": "the file of --answers holds the prompts, too",
            "--leader-url": "the answers are there already",
            "--num-samples": "every answer of the file begins a chain",
            "--compare": "it needs further answers of the Leader; give --leader",
        }
        for name, given in clashes.items():
            if given:
                raise ConfigError(f"{name} does not go with --answers: {reasons[name]}")

    @property
    def source(self) -> str:
        """Where the prompts are from."""
        return str(self.prompts if self.answers is None else self.answers)

    def settings(self) -> dict[str, Any]:
        """What decides the result, as plain values."""
        found = {k: v for k, v in asdict(self).items() if k != "download"}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}
