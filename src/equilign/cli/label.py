"""`equilign label`."""

import signal
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from equilign.cli.console import plain, print_json
from equilign.errors import ConfigError, DataError

if TYPE_CHECKING:
    from equilign.labelling import LabelStore
    from equilign.labelling.server import LabelServer
    from equilign.labelling.statistics import LabelStatistics, SideBias


class _PageFirst(click.Group):
    """A group whose own arguments are those of `serve`: `equilign label pairs.jsonl` serves."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `serve` in front of what is no sub-command and no call for help."""
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["serve", *args]
        return super().parse_args(ctx, args)


@click.group("label", cls=_PageFirst, context_settings={"show_default": True})
def command() -> None:
    """People compare answers on a local page, and are an oracle.

    `equilign label pairs.jsonl` opens the page, as `equilign label serve pairs.jsonl` does. FILES
    hold preference pairs, or prompts with several completions, such as the rounds of a run.
    """


_database = click.option(
    "--database",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("labels.sqlite"),
    help="The file with comparisons and answers.",
)
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


@command.command("serve")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@_database
@click.option("--host", default="127.0.0.1", help="Address to listen on; others need a token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8642, help="0 takes a free one.")
@click.option(
    "--overlap",
    type=click.IntRange(min=1),
    default=None,
    help="People who answer each comparison.  [default: 1]",
)
@click.option("--question", default=None, help="What people are asked.")
@click.option("--lease", type=float, default=600.0, help="Seconds a comparison is kept for one.")
@click.option("--require-token", is_flag=True, help="A token also on loopback.")
@click.option("--new-token", is_flag=True, help="A token, and not the one of earlier starts.")
@click.option("--allow-host", multiple=True, help="A further name of this server (repeatable).")
@click.option("--threads", type=click.IntRange(1, 256), default=32, help="Requests at once.")
@click.option("--until-done", is_flag=True, help="Stop when everything is answered.")
@click.option(
    "--browser/--no-browser",
    default=None,
    help="Open the page here.  [default: where stderr is a terminal]",
)
@_json
def serve(  # noqa: PLR0913 - options
    files: tuple[Path, ...],
    database: Path,
    host: str,
    port: int,
    overlap: int | None,
    question: str | None,
    lease: float,
    require_token: bool,
    new_token: bool,
    allow_host: tuple[str, ...],
    threads: int,
    until_done: bool,
    browser: bool | None,
    as_json: bool,
) -> None:
    """Open the page on which people compare the answers in FILES.

    Without FILES it shows what the database holds: earlier comparisons, and questions of a training
    run whose oracle is of kind `human`. Stop it with Ctrl-C; go on by starting it again.
    """
    from equilign.labelling.access import is_loopback, kept_token
    from equilign.labelling.server import LabelServer
    from equilign.labelling.store import LabelStore

    store = LabelStore(database, lease=lease)
    added = _add_files(store, files, overlap)
    asked = question or store.note("question") or "Which answer is better?"
    store.note("question", asked)
    guarded = require_token or new_token or not is_loopback(host)
    token = kept_token(database, new=new_token) if guarded else None
    server = LabelServer(
        store, host, port, token=token, question=asked, names=allow_host, threads=threads
    )
    store.note("url", server.url.partition("?")[0])
    standing = store.standing()
    if as_json:
        print_json(
            {
                "url": server.url,
                "database": str(database),
                "added": added,
                "answered": standing.answered,
                "wanted": standing.wanted,
            }
        )
    _tell(f"{standing.answered} of {standing.wanted} answers are in {database}")
    _tell(f"open {server.url}   (Ctrl-C stops; nothing is lost)")
    if browser or (browser is None and sys.stderr.isatty() and is_loopback(host)):
        webbrowser.open(server.url)
    _run(server, until_done)
    standing = store.standing()
    _tell(f"stopped; {standing.answered} of {standing.wanted} answers are in {database}")
    store.close()


def _tell(text: str) -> None:
    click.echo(f"equilign: {text}", err=True)


def _add_files(store: "LabelStore", files: tuple[Path, ...], overlap: int | None) -> int:
    from equilign.formats import answer_pairs, load_rows

    added = 0
    for path in files:
        pairs = answer_pairs(load_rows(path))
        if not pairs:
            raise DataError(f"{path} holds no two different answers to the same prompt")
        added += store.add(pairs, wanted=overlap or 1, source=path.name)
    if overlap is not None:
        store.want(overlap)
    return added


def _run(server: "LabelServer", until_done: bool) -> None:
    with _stopped_by_signals():
        stop = threading.Event()
        if until_done:
            threading.Thread(target=_watch, args=(server, stop), daemon=True).start()
        try:
            server.serve_forever(poll_interval=0.25)
        except KeyboardInterrupt:
            pass
        finally:
            stop.set()
            server.server_close()


def _watch(server: "LabelServer", stop: threading.Event) -> None:
    while not stop.wait(0.5):
        standing = server.store.standing()
        if standing.wanted and standing.answered >= standing.wanted:
            stop.wait(1.0)  # the last browser learns that its answer is stored
            server.shutdown()
            return


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """A plain kill ends the server as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@command.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_database
@click.option("--answers", "single", is_flag=True, help="One row per answer, not per pair.")
@click.option("--skips", is_flag=True, help="With --answers: skipped comparisons, too.")
@click.option("--ties/--no-ties", default=True, help="Pairs with as many votes for each answer.")
@_json
def export(
    file: Path, database: Path, single: bool, skips: bool, ties: bool, as_json: bool
) -> None:
    """Write the answers to FILE (JSON lines) in TRL's preference format.

    Each row has `prompt, chosen, rejected, chosen_prob` (the share of votes for `chosen`), `votes`
    and `annotator`. With --answers a row is one person's answer, with all that is known of it.
    """
    from equilign.files import write_jsonl
    from equilign.labelling.transfer import answer_rows, pair_rows

    if skips and not single:
        raise ConfigError("--skips goes with --answers: a pair that all skipped has no preference")
    store = _existing(database)
    rows = answer_rows(store, skips=skips) if single else pair_rows(store)
    if not ties:
        rows = [r for r in rows if r["chosen_prob"] != 0.5]
    store.close()
    write_jsonl(file, rows)
    if as_json:
        print_json({"rows": len(rows), "file": str(file), "database": str(database)})
    else:
        _tell(f"{len(rows)} rows in {file}")


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@_database
@click.option("--annotator", default="imported", help="Who answered, where no column says so.")
@_json
def import_(file: Path, database: Path, annotator: str, as_json: bool) -> None:
    """Take answers from FILE in TRL's preference format; twice is as good as once.

    `chosen_prob` (1 without it), `annotator`, `votes`, `position` and `key` are read where they
    are there.
    """
    from equilign.formats import load_rows
    from equilign.labelling.store import LabelStore
    from equilign.labelling.transfer import import_rows

    rows = load_rows(file)
    store = LabelStore(database)
    done = import_rows(store, rows, annotator=annotator)
    store.close()
    if as_json:
        print_json({**vars(done), "file": str(file), "database": str(database)})
        return
    _tell(
        f"{done.answers} answers imported, {done.repeated} were there already, {done.kept} gave "
        f"way to an answer of the same person; {done.pairs} new pairs in {database}"
    )


@command.command("stats")
@_database
@_json
def stats(database: Path, as_json: bool) -> None:
    """Who answered how much, agreement, position bias, time per answer."""
    from equilign.labelling.statistics import label_statistics

    store = _existing(database)
    found = label_statistics(store.answers(undone=True))
    standing = store.standing()
    store.close()
    if as_json:
        progress = {"answered": standing.answered, "wanted": standing.wanted}
        print_json({"database": str(database), **progress, **found.to_json()})
        return
    _print(found, standing.answered, standing.wanted)


def _existing(database: Path) -> "LabelStore":
    from equilign.labelling.store import LabelStore

    if not database.exists():
        raise DataError(
            f"there is no file {database}; `equilign label FILE --database {database}` makes it"
        )
    return LabelStore(database)


# -- for a person --------------------------------------------------------------------------


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _side(bias: "SideBias") -> str:
    if bias.left_share is None:
        return "–"
    return f"{bias.left_share:.2f} ({bias.low:.2f} to {bias.high:.2f})"


def _print(found: "LabelStatistics", answered: int, wanted: int) -> None:
    console = Console()
    title = f"{found.answers} answers to {found.comparisons} comparisons ({answered} of {wanted})"
    table = Table(title=title, title_justify="left")
    table.add_column("annotator")
    for name in ("answers", "ties", "skips", "undone", "seconds", "left wins (95 %)"):
        table.add_column(name, justify="right")
    for name, person in found.annotators.items():
        counts: list[Any] = [person.answers, person.ties, person.skips, person.undone]
        seconds = _number(person.median_seconds, 1)
        table.add_row(plain(name), *map(str, counts), seconds, _side(person.bias))
    console.print(table)
    lines = [
        f"Left wins: {_side(found.bias)}; sides are drawn at random, so 0.50 is no bias",
        f"Median seconds per answer: {_number(found.median_seconds, 1)}",
        f"Agreement of two people on the same pair: {_number(found.agreement)} "
        f"(Krippendorff's alpha {_number(found.alpha)}, {found.shared} pairs)",
    ]
    console.print(Text("\n".join(lines)))
    if len(found.agreements) > 1:
        _print_agreements(console, found)


def _print_agreements(console: Console, found: "LabelStatistics") -> None:
    table = Table(title="agreement", title_justify="left")
    for name in ("first", "second"):
        table.add_column(name)
    for name in ("pairs", "agreement"):
        table.add_column(name, justify="right")
    for row in found.agreements:
        table.add_row(plain(row.first), plain(row.second), str(row.pairs), f"{row.share:.2f}")
    console.print(table)
