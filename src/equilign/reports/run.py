"""Reading a run summary into plain records in which every missing value is None.

The page, its figures and its sentences work on these records, so only this module has to cope
with keys that are absent, None or of an unexpected type.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Estimate:
    """A number with the bounds of its 95 % interval."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Cycles:
    """How cyclic one round's sampled comparisons are."""

    prompts: int | None
    with_cycle: int | None
    share: Estimate
    condorcet: float | None


@dataclass(frozen=True)
class Round:
    """One round of training."""

    number: int
    win: Estimate
    kl: float | None
    tokens: float | None
    loss: float | None
    seconds: float | None
    cycles: Cycles


@dataclass(frozen=True)
class Example:
    """One prompt answered before and after training."""

    prompt: str
    before: str
    after: str
    probability: float | None
    attributes: Mapping[str, float]


@dataclass(frozen=True)
class Method:
    """One training method and what came of it."""

    title: str
    paper: str
    seconds: float | None
    rounds: Sequence[Round]
    win: Estimate
    kl: float | None
    tokens: float | None
    attributes: Mapping[str, Estimate]
    examples: Sequence[Example]


@dataclass(frozen=True)
class Judge:
    """One attribute of the oracle."""

    name: str
    description: str
    kind: str
    accuracy: Estimate


@dataclass(frozen=True)
class Run:
    """Everything the report tells about."""

    command: str
    model: str
    oracle: str
    seed: str
    output: str
    seconds: float | None
    memory: float | None
    train: int | None
    evaluation: int | None
    samples: int | None
    start_tokens: float | None
    judges: Sequence[Judge]
    methods: Sequence[Method]
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)


def number(value: object) -> float | None:
    """Return a finite number as float, anything else as None."""
    if isinstance(value, bool | str | bytes) or value is None:
        return None
    try:
        result = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def count(value: object) -> int | None:
    """Return a finite number rounded to an integer, anything else as None."""
    result = number(value)
    return None if result is None else round(result)


def text(value: object) -> str:
    """Return a value as a string, None as the empty string."""
    return "" if value is None else str(value)


def name(value: object, most: int = 160) -> str:
    """Return a value as a string short enough for a heading, a sentence or a table cell."""
    line = text(value)
    return line if len(line) <= most else f"{line[:most]}…"


def mapping(value: object) -> Mapping[str, Any]:
    """Return a mapping with string keys, anything else as an empty one."""
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def records(value: object) -> list[Mapping[str, Any]]:
    """Return the mappings in a sequence; anything else counts as an empty sequence."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return []
    return [mapping(item) for item in value if isinstance(item, Mapping)]


def estimate(source: Mapping[str, Any], key: str) -> Estimate:
    """Read the value under `key` and the bounds beside it; half an interval counts as none."""
    low, high = number(source.get("low")), number(source.get("high"))
    if low is None or high is None:
        low = high = None
    return Estimate(number(source.get(key)), low, high)


def _cycles(source: Mapping[str, Any]) -> Cycles:
    return Cycles(
        prompts=count(source.get("prompts")),
        with_cycle=count(source.get("with_cycle")),
        share=estimate(source, "share"),
        condorcet=number(source.get("condorcet_share")),
    )


def _round(source: Mapping[str, Any], position: int) -> Round:
    given = count(source.get("round"))
    return Round(
        number=position if given is None else given,
        win=estimate(source, "win_rate"),
        kl=number(source.get("kl_nats")),
        tokens=number(source.get("mean_tokens")),
        loss=number(source.get("loss")),
        seconds=number(source.get("seconds")),
        cycles=_cycles(mapping(source.get("cycles"))),
    )


def _example(source: Mapping[str, Any]) -> Example:
    scores = {key: number(item) for key, item in mapping(source.get("attributes")).items()}
    return Example(
        prompt=text(source.get("prompt")),
        before=text(source.get("before")),
        after=text(source.get("after")),
        probability=number(source.get("win_prob")),
        attributes={name(key): item for key, item in scores.items() if item is not None},
    )


def _method(key: str, source: Mapping[str, Any]) -> Method:
    rounds = [_round(item, i) for i, item in enumerate(records(source.get("rounds")), 1)]
    last = rounds[-1] if rounds else _round({}, 0)
    final = mapping(source.get("final"))
    win, kl, tokens = (
        estimate(final, "win_rate"),
        number(final.get("kl_nats")),
        number(final.get("mean_tokens")),
    )
    return Method(
        title=name(source.get("title")) or name(key.upper()),
        paper=name(source.get("paper")),
        seconds=number(source.get("seconds")),
        rounds=rounds,
        win=last.win if win.value is None else win,
        kl=last.kl if kl is None else kl,
        tokens=last.tokens if tokens is None else tokens,
        attributes={
            name(key): estimate(mapping(item), "win_rate")
            for key, item in mapping(final.get("attributes")).items()
        },
        examples=[_example(item) for item in records(source.get("examples"))],
    )


def _judge(source: Mapping[str, Any]) -> Judge:
    return Judge(
        name=name(source.get("name")),
        description=text(source.get("description")),
        kind=name(source.get("kind")),
        accuracy=estimate(source, "held_out_accuracy"),
    )


def read_run(summary: Mapping[str, Any]) -> Run:
    """Read a summary (see `equilign.reports.schema`) without ever failing on a missing part."""
    source = mapping(summary)
    prompts, oracle = mapping(source.get("prompts")), mapping(source.get("oracle"))
    return Run(
        command=name(source.get("command")),
        model=name(source.get("model")),
        oracle=name(oracle.get("name")),
        seed=name(source.get("seed")),
        output=text(source.get("output_dir")),
        seconds=number(source.get("seconds")),
        memory=number(source.get("peak_memory_mb")),
        train=count(prompts.get("train")),
        evaluation=count(prompts.get("evaluation")),
        samples=count(source.get("samples_per_prompt")),
        start_tokens=number(mapping(source.get("start")).get("mean_tokens")),
        judges=[_judge(item) for item in records(oracle.get("attributes"))],
        methods=[
            _method(key, mapping(item)) for key, item in mapping(source.get("methods")).items()
        ],
        config=mapping(source.get("config")),
        environment=mapping(source.get("environment")),
    )
