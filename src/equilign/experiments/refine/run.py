"""The run: prompts in, lines out, chunk by chunk; then the summary."""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from transformers.utils import logging as transformers_logging

from equilign.errors import ConfigError, DataError, RunDirectoryError
from equilign.evaluation.refine import Refiner
from equilign.experiments.judges import make_oracle, oracle_name
from equilign.experiments.refine.charts import save_charts
from equilign.experiments.refine.chunks import Desk, refine_chunk
from equilign.experiments.refine.config import RefineConfig
from equilign.experiments.refine.players import Player, Players
from equilign.experiments.refine.rows import Lines, output_row, written
from equilign.experiments.refine.source import Row, Source, fingerprint
from equilign.experiments.refine.summary import Tally, add_line, summarise
from equilign.experiments.train_config import read_config_file
from equilign.files import Journal, explain_disk_full, write_json
from equilign.oracles.judge_text import CONFIG_NAME
from equilign.rollout.follower import FollowerPrompt
from equilign.runs import RunDirectory, peak_memory_mb

_LOG = logging.getLogger("equilign")

Progress = Callable[[str, int, int, int], None]
Echo = Callable[[bytes], None]

ANSWERS, SUMMARY, PARTIAL = "answers.jsonl", "summary.json", "partial"


@dataclass(frozen=True)
class Task:
    """A refinement, checked.

    Attributes:
        config: what is done.
        folder: the run directory.
        source: the prompts.
        check: raises for a prompt that cannot be answered.
        desk: makes everybody who works on a chunk; models are loaded then.
        claim: takes the folder; called when everything else is known to be right.
        total: number of prompts; None where only the end of stdin will tell.
    """

    config: RefineConfig
    folder: Path
    source: Source
    check: Callable[[Row], None]
    desk: Callable[[], Desk]
    claim: Callable[[], None]
    total: int | None = None


def run_refine(
    config: RefineConfig,
    folder: Path,
    *,
    resume: bool = False,
    progress: Progress,
    echo: Echo | None = None,
) -> dict[str, Any]:
    """Run or resume a refinement in ``folder``.

    Args:
        config: what is done.
        folder: the run directory; gets ``answers.jsonl``, ``summary.json`` and ``figures/``.
        resume: go on with the run that is there.
        progress: called while it works.
        echo: called with every line of ``answers.jsonl``, from the first, as soon as it is there.

    Returns:
        The summary, which is also written.

    Raises:
        EquilignError: something that the user can put right.
    """
    began = time.perf_counter()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    spec, base = oracle_spec(config.oracle)
    players = Players(config)
    form, leader, follower = players.form(), players.leader(), players.follower()
    source = Source(config.source, config.answers is not None, config.chat, config.max_prompts)
    check = _checker(leader, follower, form)
    settings = {**config.settings(), "oracle": spec, "follower_prompt": asdict(form)}
    total = None
    if source.again:
        progress("reading the prompts", 0, 0, 1)
        total, settings["rows_digest"] = source.scan(check)
        progress("reading the prompts", 0, 1, 1)
    run = RunDirectory(folder)
    run.check(settings, resume=resume)
    oracle = None if spec is None else make_oracle(spec, base)

    def desk() -> Desk:
        return Desk(
            config,
            Refiner(follower.open(), form, follower.fits),
            None if leader is None else leader.open(),
            oracle,
            lambda text: len(follower.tokenizer(text, add_special_tokens=False)["input_ids"]),
        )

    claim = lambda: run.open(settings, resume=resume)  # noqa: E731
    task = Task(config, folder, source, check, desk, claim, total)
    with explain_disk_full(folder):
        tally = work(task, progress, echo)
        finished = folder / SUMMARY
        if not finished.exists():
            words = {"oracle": oracle_name(spec), "follower_prompt": asdict(form)}
            _finish(task, {**summarise(tally, config), **words}, began)
        found: dict[str, Any] = json.loads(finished.read_text(encoding="utf-8"))
        return found


def _finish(task: Task, numbers: Mapping[str, Any], began: float) -> None:
    """Pictures and summary; the summary comes last: it says that a run is finished."""
    config, folder = task.config, task.folder
    figures = save_charts(numbers, folder)
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)
    summary = {
        "rounds": numbers["rounds"],
        **{k: v for k, v in numbers.items() if k != "rounds"},
        "keep": config.keep,
        "num_samples": config.num_samples,
        "seed": config.seed,
        "players": {"leader": config.leader or config.answers, "follower": config.follower},
        "answers": str(folder / ANSWERS),
        "figures": [str(path.relative_to(folder)) for path in figures],
        "output_dir": str(folder),
        "seconds": time.perf_counter() - began,
        "peak_memory_mb": peak_memory_mb(),
    }
    write_json(folder / SUMMARY, summary)


# -- the work ------------------------------------------------------------------------------


def work(task: Task, progress: Progress, echo: Echo | None = None) -> Tally:
    """Refine what is not refined yet, and count every line.

    Raises:
        RunDirectoryError: what was refined are other prompts.
    """
    config, tally = task.config, Tally()
    finished = (task.folder / SUMMARY).exists()
    old = written(task.folder / ANSWERS)
    writer: _Writer | None = None
    try:
        for index, chunk in enumerate(_chunks(task.source, config.chunk_size)):
            lines = list(islice(old, len(chunk)))
            _same(task, chunk, [line for _, line in lines])
            if len(lines) < len(chunk):
                if finished:
                    raise RunDirectoryError(
                        f"{task.folder} holds a finished run with fewer prompts than "
                        f"{task.source.name} has now; choose another --output-dir"
                    )
                for row in chunk:
                    task.check(row)
                writer = writer or _Writer(task, progress)
                lines += writer.write(index, chunk, len(lines))
            for raw, line in lines:
                add_line(tally, config, line)
                if echo is not None:
                    echo(raw)
            progress("refined", 0, tally.prompts, task.total or tally.prompts + 1)
        if next(old, None) is not None:
            raise _other_prompts(task, "fewer prompts")
    finally:
        if writer is not None:
            writer.close()
    return tally


class _Writer:
    """Refines chunks and appends their lines; models are loaded and the folder is taken first."""

    def __init__(self, task: Task, progress: Progress) -> None:
        self.task, self.progress = task, progress
        self.desk = task.desk()
        task.claim()
        self.lines = Lines(task.folder / ANSWERS)

    def write(
        self, index: int, chunk: Sequence[Row], skip: int
    ) -> list[tuple[bytes, dict[str, Any]]]:
        """The lines of a chunk but for the first ``skip``, which are there already."""
        # The name tells other prompts from these: a stage of theirs is not taken for ours.
        name = f"chunk-{index:06d}-{fingerprint(chunk)}.jsonl"
        journal = Journal(self.task.folder / PARTIAL / name)
        size = self.task.config.chunk_size

        def tell(stage: str, done: bool) -> None:
            at = index * size + (len(chunk) if done else 0)
            self.progress(stage, 0, at, self.task.total or at + 1)

        try:
            refined = refine_chunk(self.desk, chunk, index, journal, tell)
            found = []
            for item in refined[skip:]:
                line = output_row(self.desk, item)
                text = json.dumps(line, ensure_ascii=False) + "\n"
                found.append((text.encode(errors="backslashreplace"), line))
            self.lines.append([raw for raw, _ in found])
            journal.remove()
        finally:
            journal.close()
        return found

    def close(self) -> None:
        """Close the file, and servers' connections."""
        self.lines.close()
        for player in (self.desk.leader, self.desk.refiner.follower):
            close = getattr(player, "close", None)
            if close is not None:
                close()


def _chunks(source: Source, size: int) -> Iterator[list[Row]]:
    rows = iter(source)
    while chunk := list(islice(rows, size)):
        yield chunk


def _same(task: Task, chunk: Sequence[Row], lines: Sequence[Mapping[str, Any]]) -> None:
    """Raise unless the lines that are there were made from the chunk's rows."""
    for row, line in zip(chunk, lines, strict=False):
        if line["refinement"]["input"] != fingerprint([row]):
            raise _other_prompts(task, f"another row at {row.where}")


def _other_prompts(task: Task, what: str) -> RunDirectoryError:
    return RunDirectoryError(
        f"{task.folder / ANSWERS} was made from other rows: {task.source.name} has {what}. "
        "Give the same file to resume, or choose another --output-dir"
    )


# -- what was asked for --------------------------------------------------------------------


def oracle_spec(text: str | None) -> tuple[dict[str, Any] | None, Path]:
    """The specification that ``--oracle`` means, and the folder that its paths start from.

    Args:
        text: a YAML file (a specification, or a configuration with an ``oracle`` section), a
            judge's folder, or a specification as YAML; a bare word is a kind.

    Raises:
        ConfigError: it is none of them.
    """
    here = Path()
    if text is None:
        return None, here
    path = Path(text).expanduser()
    if path.is_dir():
        return _judge_spec(path), here
    if path.suffix in (".yaml", ".yml"):
        values = read_config_file(path)
        spec = values.get("oracle", values)
        base = path.parent / str(values.get("base_dir") or "")
    else:
        try:
            spec, base = yaml.safe_load(text), here
        except yaml.YAMLError as error:
            raise ConfigError(f"--oracle {text!r} is not YAML: {error}") from None
        if isinstance(spec, str):
            spec = {"kind": spec}
    if not isinstance(spec, dict):
        raise ConfigError(
            f"--oracle {text!r} is no specification; write a kind such as restaurant, "
            "'{kind: reward, path: FOLDER}', or name a YAML file or a judge's folder"
        )
    return spec, base


def _judge_spec(path: Path) -> dict[str, Any]:
    file = next(
        (f for f in (path / CONFIG_NAME, path / "judge" / CONFIG_NAME) if f.is_file()), None
    )
    if file is None:
        raise ConfigError(
            f"--oracle {path} is a folder without {CONFIG_NAME}; name one that equilign "
            "fit-oracle made, or give '{kind: reward, path: FOLDER}'"
        )
    try:
        kind = json.loads(file.read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} does not say what kind of judge it is: {error!r}") from error
    return {"kind": kind, "path": str(path)}


def _checker(
    leader: Player | None, follower: Player, form: FollowerPrompt
) -> Callable[[Row], None]:
    """Raises for a prompt that the Leader cannot read, or that cannot become a Follower's."""
    told = False

    def check(row: Row) -> None:
        nonlocal told
        if leader is not None and not leader.fits(row.prompt):
            raise DataError(
                f"{row.where}: the prompt has {leader.tokens(row.prompt)} tokens; between 1 and "
                f"{leader.limit} are allowed. Shorten it, or raise max_prompt_tokens"
            )
        follower.tokens(form.of(row.prompt, "..."))
        if isinstance(row.prompt, str) and follower.tokenizer.chat_template and not told:
            told = True
            _LOG.warning(
                "the prompts are plain text and %s is a chat model: with --chat they become user "
                "messages",
                follower.name,
            )

    return check
