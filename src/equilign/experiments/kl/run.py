"""Every model answers, both models are asked, the distances are written."""

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from equilign.errors import DataError
from equilign.evaluation.divergence import distance
from equilign.evaluation.intervals import Estimate
from equilign.experiments.kl.chart import save_distances
from equilign.experiments.kl.config import KLConfig
from equilign.experiments.kl.players import Pairing, Row, divergence_of, make_pairings
from equilign.experiments.tournament.answers import Prompts, prompts_of
from equilign.experiments.tournament.contestants import named
from equilign.files import Journal, explain_disk_full, write_json, write_jsonl
from equilign.runs import RunDirectory, peak_memory_mb

Progress = Callable[[str, int, int, int], None]

ANSWERS, RESULTS, PARTIAL = "answers.jsonl", "results.json", "partial"


@dataclass(frozen=True)
class Played:
    """What one row of the results is about.

    Attributes:
        title: of the row.
        model: the model's name.
        source: what it is.
        role: ``model``, ``leader`` or ``follower``.
        rows: of each prompt.
    """

    title: str
    model: str
    source: str
    role: str
    rows: Sequence[Sequence[Row]]


def run_kl(
    config: KLConfig, folder: Path, *, resume: bool = False, progress: Progress
) -> dict[str, Any]:
    """Run or resume a measurement of distances in ``folder``.

    Args:
        config: who is measured.
        folder: the run directory; gets ``answers.jsonl``, ``results.json`` and ``figures/``.
        resume: go on with the run that is there: finished chunks of answers stay.
        progress: called while it works.

    Returns:
        The results, which are also written.

    Raises:
        EquilignError: something that the user can put right.
    """
    began = time.perf_counter()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    prompts = prompts_of(config.prompts, config.chat, config.max_prompts)
    pairings, weights = make_pairings(config)
    for pairing in pairings:
        with named(pairing.entry):
            pairing.check(prompts)
    settings = {
        **config.settings(),
        "prompts_digest": prompts.digest,
        "start": {"model": config.start, "weights": weights},
        "models": {p.entry.name: _made(p) for p in pairings},
    }
    run = RunDirectory(folder)
    run.open(settings, resume=resume)
    finished = folder / RESULTS
    with explain_disk_full(folder):
        if not finished.exists():
            played = [x for p in pairings for x in _play(p, prompts, folder, progress)]
            _finish(config, prompts, played, folder, began)
        known: dict[str, Any] = json.loads(finished.read_text(encoding="utf-8"))
        return known


def _made(pairing: Pairing) -> dict[str, Any]:
    """What a model's answers depend on, beyond what is the same for all."""
    return {k: v for k, v in pairing.model.made.items() if k != "sampling"}


def _play(pairing: Pairing, prompts: Prompts, folder: Path, progress: Progress) -> Iterator[Played]:
    """The rows of a model; finished chunks are in its journal and are not made again."""
    entry, size = pairing.entry, pairing.config.chunk_size
    stage = f"{entry.name}: answers and distances"
    journal = Journal(folder / PARTIAL / f"{entry.name}.jsonl")
    try:
        for index, begin in enumerate(range(0, len(prompts), size)):
            if index not in journal.entries:
                progress(stage, 0, begin, len(prompts))
                with named(entry):
                    part = prompts.prompts[begin : begin + size]
                    journal.add(index, pairing.rows(part, index))
    finally:
        journal.close()
    progress(stage, 0, len(prompts), len(prompts))
    pairing.forget()
    for role in pairing.players:
        rows = [row for index in sorted(journal.entries) for row in journal.entries[index][role]]
        if not any(rows):
            raise DataError(
                f"player {entry.name}: the Follower can be shown none of the answers: they and "
                "their prompts are too long for it, or for the start model. Lower max_new_tokens"
            )
        alone = len(pairing.players) == 1
        yield Played(
            pairing.title(role), entry.name, entry.source, "model" if alone else role, rows
        )


def _finish(
    config: KLConfig, prompts: Prompts, played: Sequence[Played], folder: Path, began: float
) -> None:
    """Answers, pictures and results; the results come last: they say that a run is finished."""
    write_jsonl(folder / ANSWERS, _lines(prompts, played))
    players = [_numbers(config, one) for one in played]
    figures = save_distances(players, folder / "figures")
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)
    results = {
        "start": config.start,
        "players": players,
        "prompts": len(prompts),
        "num_samples": config.num_samples,
        "max_new_tokens": config.max_new_tokens,
        "seed": config.seed,
        "answers": str(folder / ANSWERS),
        "figures": [str(path.relative_to(folder)) for path in figures],
        "output_dir": str(folder),
        "seconds": time.perf_counter() - began,
        "peak_memory_mb": peak_memory_mb(),
    }
    write_json(folder / RESULTS, results)


def _lines(prompts: Prompts, played: Sequence[Played]) -> Iterator[dict[str, Any]]:
    for one in played:
        for prompt, rows in zip(prompts.prompts, one.rows, strict=True):
            for row in rows:
                yield {"prompt": prompt, "player": one.title, **_plain(row)}


def _numbers(config: KLConfig, played: Played) -> dict[str, Any]:
    """A row of the results."""
    found = [[divergence_of(row) for row in rows] for rows in played.rows if rows]
    far = distance(found, longest=config.max_new_tokens)
    answers = sum(map(len, found))
    return {
        "name": played.title,
        "model": played.model,
        "source": played.source,
        "role": played.role,
        "kl": _interval("nats", far.kl),
        "k1": _interval("nats", far.k1),
        "kl_per_token": _interval("nats", far.per_token),
        "tokens": _interval("mean", far.tokens),
        "finished_share": far.finished,
        "answers": answers,
        "prompts": len(found),
        "not_shown": len(played.rows) * config.num_samples - answers,
    }


def _interval(name: str, estimate: Estimate) -> dict[str, float | None]:
    return _plain({name: estimate.value, "low": estimate.low, "high": estimate.high})


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as JSON has them: what has no bound, or no number, is null."""
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()
    }
