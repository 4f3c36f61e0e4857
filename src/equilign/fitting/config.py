"""Options of fitting a judge."""

from dataclasses import asdict, dataclass, field
from typing import Any

from equilign.errors import ConfigError
from equilign.oracles.judge_text import FORMATS, KINDS

SCRATCH = "scratch"
"""Base model: none; a small encoder made from a configuration, with a tokenizer of the data."""

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class FitConfig:
    """How a judge is fitted; see `equilign fit-oracle --help` for what each option means.

    Attributes are documented by the ``help`` of their fields, which the command line shows.

    Raises:
        ConfigError: an option is out of range; names it and what is allowed.
    """

    kind: str = field(metadata={"help": "reward, pairwise or general."})
    data: tuple[str, ...] = field(
        metadata={
            "help": "Preference pairs: a .jsonl, .json, .csv (each maybe .gz) or .parquet file, a "
            "folder with one of them, or a folder of the datasets library. Repeat for several."
        }
    )
    base: str = field(
        default=SCRATCH,
        metadata={
            "help": "Model to start from: a folder, a hub name, 'shipped', or 'scratch' for a "
            "small encoder trained from nothing."
        },
    )
    epochs: int | None = field(
        default=None,
        metadata={"help": "Passes over the data at most. Default: 30 from scratch, else 3."},
    )
    patience: int = field(
        default=5, metadata={"help": "Stop after this many epochs without a better validation."}
    )
    learning_rate: float | None = field(
        default=None,
        metadata={"help": "Default: 1e-3 from scratch, 1e-4 with --lora, else 2e-5."},
    )
    batch_size: int = field(default=32, metadata={"help": "Pairs per optimiser step."})
    micro_batch_size: int | None = field(
        default=None, metadata={"help": "Pairs per forward pass. Default: the batch size."}
    )
    weight_decay: float | None = field(
        default=None,
        metadata={"help": "Of the optimiser (AdamW). Default: 1 from scratch, else 0.01."},
    )
    max_length: int | None = field(
        default=None,
        metadata={
            "help": "Tokens read at most; a longer prompt loses its beginning. Default: 512 from "
            "scratch, else what the model takes."
        },
    )
    dimensions: int = field(
        default=4, metadata={"help": "Planes of a general judge's embedding (2 numbers each)."}
    )
    prompt_format: str | None = field(
        default=None, metadata={"help": "chat, pair or plain. Default: by the tokenizer."}
    )
    lora: bool = field(default=False, metadata={"help": "Train a LoRA adapter, merged at the end."})
    lora_rank: int = field(default=16, metadata={"help": "Rank of the adapter."})
    dtype: str = field(default="float32", metadata={"help": "float32 or bfloat16 (on a GPU)."})
    gradient_checkpointing: bool = field(
        default=False, metadata={"help": "Less memory, more time."}
    )
    held_out: float = field(default=0.2, metadata={"help": "Share of the prompts measured on."})
    validation: float = field(default=0.1, metadata={"help": "Share of the prompts to stop on."})
    compare: bool = field(
        default=True,
        metadata={"help": "Also fit the transitive (or the general) judge, and compare the two."},
    )
    seed: int = field(default=0, metadata={"help": "Seed of everything."})
    allow_download: bool = field(
        default=False, metadata={"help": "Whether a hub name may be fetched."}
    )

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"there is no judge of kind {self.kind!r}: {', '.join(KINDS)}")
        if not self.data:
            raise ConfigError("give the preference pairs to fit on with --data")
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}; got {self.dtype!r}")
        if self.prompt_format is not None and self.prompt_format not in FORMATS:
            raise ConfigError(f"prompt_format must be one of {', '.join(FORMATS)}")
        for name in ("epochs", "patience", "batch_size", "micro_batch_size", "dimensions"):
            _at_least(name, vars(self)[name], 1)
        _at_least("lora_rank", self.lora_rank, 1)
        _at_least("seed", self.seed, 0)
        _at_least("max_length", self.max_length, 8)
        if self.learning_rate is not None and not 0.0 < self.learning_rate < float("inf"):
            raise ConfigError(f"learning_rate must be positive; got {self.learning_rate}")
        if self.weight_decay is not None and not 0.0 <= self.weight_decay < float("inf"):
            raise ConfigError(f"weight_decay must be >= 0; got {self.weight_decay}")
        if self.lora and self.base == SCRATCH:
            raise ConfigError("LoRA adapts a model that exists: give one with --base")
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ConfigError(
                f"batch_size {self.batch_size} must be a multiple of micro_batch_size "
                f"{self.micro_batch_size}"
            )

    def schedule(self) -> tuple[int, float, float]:
        """Epochs, learning rate and weight decay, defaults filled in."""
        scratch = self.base == SCRATCH
        epochs, rate, decay = (30, 1e-3, 1.0) if scratch else (3, 1e-4 if self.lora else 2e-5, 0.01)
        return (
            epochs if self.epochs is None else self.epochs,
            rate if self.learning_rate is None else self.learning_rate,
            decay if self.weight_decay is None else self.weight_decay,
        )

    def outputs(self, kind: str) -> int:
        """Numbers that a judge of ``kind`` gives per text."""
        return 2 * self.dimensions if kind == "general" else 1

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for ``config.yaml``."""
        return {**asdict(self), "data": list(self.data)}


def _at_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise ConfigError(f"{name} must be at least {least}; got {value}")
