"""The run: everybody answers, the judge judges, the results are written."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from transformers.utils import logging as transformers_logging

from equilign.errors import RunDirectoryError
from equilign.experiments.judges import make_oracle, oracle_name
from equilign.experiments.refine.run import oracle_spec
from equilign.experiments.tournament.answers import (
    Answers,
    Prompts,
    Shelf,
    alpaca_rows,
    digest,
    pack,
    read_answers,
    read_prompts,
)
from equilign.experiments.tournament.config import TournamentConfig
from equilign.experiments.tournament.contestants import Model, make_model, named, with_prompts
from equilign.experiments.tournament.judging import (
    VERDICTS,
    Preview,
    ask,
    decisive,
    make_schedule,
    preview,
    recorded,
    unwritten,
)
from equilign.experiments.tournament.results import results
from equilign.experiments.tournament.specs import Entry, read_players
from equilign.files import explain_disk_full, write_atomically, write_json
from equilign.oracles import Oracle
from equilign.oracles.cache import CachedOracle
from equilign.reports.tournament import Sheet, render_tournament
from equilign.runs import RunDirectory, peak_memory_mb

Progress = Callable[[str, int, int, int], None]
Allow = Callable[[Preview], None]

RESULTS, GAMES, PARTIAL, REPORT = "results.json", "prompts.jsonl", "partial", "report.html"


@dataclass(frozen=True)
class TournamentDirectory(RunDirectory):
    """`RunDirectory` that other players may join."""

    def _check_same(self, held: dict[str, Any], config: dict[str, Any], resume: bool) -> None:
        there, now = (
            {**x, "players": None, "oracle": decisive(x.get("oracle"))} for x in (held, config)
        )
        super()._check_same(there, now, resume)


@dataclass
class Tournament:
    """A tournament, checked.

    Attributes:
        config: what is done.
        folder: the run directory.
        entries: the players.
        prompts: what they answer.
        models: by name, of the players that are models.
        answers: by name, as far as they are there.
        spec: of the judge.
        base: folder that the specification's paths start from.
        oracle: the judge; made last, when all else is in order.
        seconds: that each player's answers took in this run.
    """

    config: TournamentConfig
    folder: Path
    entries: Sequence[Entry]
    prompts: Prompts
    models: dict[str, Model]
    answers: dict[str, Answers]
    spec: dict[str, Any]
    base: Path
    oracle: Oracle = field(init=False)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Of the players, in order."""
        return [entry.name for entry in self.entries]

    @property
    def missing(self) -> list[Model]:
        """Players that have not answered yet."""
        return [m for name, m in self.models.items() if name not in self.answers]

    def made(self, name: str) -> dict[str, Any]:
        """Everything that a player's answers depend on."""
        if name in self.models:
            return with_prompts(self.models[name].made, self.prompts)
        return {"answers": digest(pack(self.answers[name]))}

    def settings(self) -> dict[str, Any]:
        """What decides the results."""
        return {
            **self.config.settings(),
            "oracle": self.spec,
            "prompts_digest": self.prompts.digest,
            "players": {e.name: e.spec.settings() for e in self.entries},
        }

    def preview(self) -> Preview:
        """What judging will take; the most that it can while answers are missing."""
        count, guess = len(self.prompts), None
        players = []
        for name in self.names:
            if name in self.answers:
                players.append(self.answers[name])
            else:
                model = self.models[name]
                players.append(unwritten(count, model.num_samples, name))
                guess = max(guess or 0, 4 * model.players.config.max_new_tokens)
        stored: CachedOracle | None = None
        if isinstance(self.oracle, CachedOracle) or (self.folder / VERDICTS).exists():
            stored = recorded(self.oracle, self.spec, self.base, self.folder)
        return preview(make_schedule(self.prompts.texts, players), stored, self.spec, guess)


def run_tournament(
    config: TournamentConfig,
    folder: Path,
    *,
    resume: bool = False,
    dry_run: bool = False,
    allow: Allow = lambda preview: None,
    progress: Progress,
) -> dict[str, Any]:
    """Run a tournament in ``folder``, or go on with the one that is there.

    Args:
        config: what is done.
        folder: the run directory.
        resume: go on; other players may have joined.
        dry_run: count the questions, and do nothing else.
        allow: called with what judging will take before any player or judge is asked, and again
            when all answers are there; raises to forbid it.
        progress: called while it works.

    Returns:
        The results, which are also in ``results.json``; of a dry run the preview.

    Raises:
        EquilignError: something that the user can put right.
    """
    began = time.perf_counter()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    task = prepare(config, folder, resume, progress)
    if dry_run:
        return {"players": task.names, "prompts": len(task.prompts), **task.preview().plain()}
    stored = _finished(task)
    if stored is not None:
        return stored
    if task.missing:
        allow(task.preview())
    settings = task.settings()
    with explain_disk_full(folder):
        TournamentDirectory(folder).open(settings, resume=resume)
        text = yaml.safe_dump(settings, sort_keys=False)
        write_atomically(TournamentDirectory(folder).config_file, text)
        _answer(task, progress)
        found = task.preview()
        allow(found)
        return _play(task, found, began, progress)


def prepare(config: TournamentConfig, folder: Path, resume: bool, progress: Progress) -> Tournament:
    """Read and check everything; nothing is written, no model is asked."""
    entries = read_players(config)
    spec, base = oracle_spec(config.oracle)
    assert spec is not None  # noqa: S101 - the option is required
    progress("reading prompts and answers", 0, 0, 1)
    prompts = read_prompts(config, entries)
    answers, models = {}, {}
    last: Model | None = None
    for entry in entries:
        if entry.spec.answers is not None:
            answers[entry.name] = read_answers(entry, prompts)
            continue
        like = last.players if last is not None and _same_models(last, entry) else None
        last = models[entry.name] = make_model(entry, config, like)
    task = Tournament(config, folder, entries, prompts, models, answers, spec, base)
    TournamentDirectory(folder).check(task.settings(), resume=resume)
    shelf = Shelf(folder)
    for entry in entries:
        if entry.name not in models:
            continue
        held = shelf.held(entry.name, task.made(entry.name))
        if held is not None:
            answers[entry.name] = held
            continue
        with named(entry):
            models[entry.name].check(prompts)
    progress("reading prompts and answers", 0, 1, 1)
    task.oracle = make_oracle(spec, base)
    return task


def _same_models(last: Model, entry: Entry) -> bool:
    there = last.players.config
    s = entry.spec
    return s.url is None and (there.leader, there.follower) == (
        s.leader or s.model,
        s.follower or s.model,
    )


def _answer(task: Tournament, progress: Progress) -> None:
    shelf = Shelf(task.folder)
    waiting = task.missing
    for number, model in enumerate(waiting):
        began = time.perf_counter()
        made = task.made(model.name)
        path = task.folder / PARTIAL / f"{model.name}-{digest(made)[:16]}.jsonl"

        def tell(stage: str, done: int, total: int) -> None:
            progress(stage, 0, done, total)

        found = model.answers(task.prompts, path, tell)
        task.answers[model.name] = found
        shelf.put(model.name, made, alpaca_rows(model.name, task.prompts, found))
        path.unlink(missing_ok=True)
        task.seconds[model.name] = time.perf_counter() - began
        if all(other.players.models is not model.players.models for other in waiting[number + 1 :]):
            model.players.forget()
    if (task.folder / PARTIAL).exists() and not any((task.folder / PARTIAL).iterdir()):
        (task.folder / PARTIAL).rmdir()
    for name in task.names:
        if name not in task.models:
            shelf.put(name, None, alpaca_rows(name, task.prompts, task.answers[name]))


def _finished(task: Tournament) -> dict[str, Any] | None:
    """The results that are there, if they are of these answers and nothing is left to ask."""
    path = task.folder / RESULTS
    if task.missing or not path.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        same = found["fingerprint"] == _fingerprint(task)
        open_pairs = found["comparisons"]["no_verdict"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(f"cannot read {path}: {error!r}; remove it") from error
    return found if same and not open_pairs and (task.folder / REPORT).exists() else None


def _fingerprint(task: Tournament) -> str:
    made = [(name, task.made(name)) for name in task.names]
    return digest([made, decisive(task.spec), task.prompts.digest, task.config.seed])


def _play(task: Tournament, found: Preview, began: float, progress: Progress) -> dict[str, Any]:
    names = task.names
    players = [task.answers[name] for name in names]
    schedule = make_schedule(task.prompts.texts, players)
    oracle = recorded(task.oracle, task.spec, task.base, task.folder)
    start = time.perf_counter()
    try:
        verdicts = ask(schedule, oracle, lambda done, total: progress("judging", 0, done, total))
    finally:
        oracle.close()
    judged = time.perf_counter()
    numbers, wins = results(names, players, schedule, verdicts, task.config.seed)
    progress("report", 0, 0, 1)
    counts = oracle.statistics
    summary = {
        **numbers,
        "oracle": oracle_name(task.spec),
        "sources": {e.name: e.source for e in task.entries},
        "questions": {**found.plain(), "asked": counts.asked, "abstained": counts.abstained},
        "seed": task.config.seed,
        "config": task.settings(),
        "output_dir": str(task.folder),
        "fingerprint": _fingerprint(task),
        "seconds_by_part": {
            "answers": task.seconds,
            "judging": judged - start,
            "numbers": time.perf_counter() - judged,
        },
    }
    write_atomically(task.folder / GAMES, "".join(_games(task, players, wins)))
    texts = [[[a.text for a in row] for row in player] for player in players]
    sheet = Sheet(task.prompts.texts, texts, wins)
    before = time.perf_counter()
    environment = json.loads((task.folder / "environment.json").read_text(encoding="utf-8"))
    figures = render_tournament({**summary, "environment": environment}, sheet, task.folder)
    summary["figures"] = [str(path.relative_to(task.folder)) for path in figures]
    summary["seconds_by_part"]["report"] = time.perf_counter() - before
    summary["seconds"] = time.perf_counter() - began
    summary["peak_memory_mb"] = peak_memory_mb()
    write_json(task.folder / RESULTS, summary)
    progress("report", 0, 1, 1)
    return summary


def _games(task: Tournament, players: Sequence[Answers], wins: np.ndarray) -> Iterator[str]:
    """One line per prompt: all texts, whole, and the game that they play."""
    for p, text in enumerate(task.prompts.texts):
        row = {
            "prompt": text,
            "answers": {
                name: [a.text for a in answers[p]]
                for name, answers in zip(task.names, players, strict=True)
            },
            "win_rate": [[None if v != v else v for v in line] for line in wins[p].tolist()],
        }
        yield json.dumps(row, ensure_ascii=False) + "\n"
