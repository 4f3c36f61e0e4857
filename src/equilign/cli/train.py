"""`equilign train`."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from equilign.cli.console import plain, print_json, round_progress
from equilign.errors import ConfigError, EquilignError
from equilign.methods import TRAINED

if TYPE_CHECKING:
    from equilign.experiments.train_config import TrainConfig

_SHOWN_IN_JSON = 20


@click.command(
    "train",
    context_settings={"ignore_unknown_options": True, "show_default": True},
    epilog="Every option of the method and of transformers is a flag: --learning_rate 1e-5, "
    "--num_rounds 5; and so is every other line of the configuration: --oracle.kind restaurant, "
    "--peft.r 16. See them all with --print-config.",
)
@click.argument("method")
@click.argument("flags", nargs=-1, type=click.UNPROCESSED, metavar="[--NAME VALUE]...")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    default=None,
    help="YAML file with model, data, oracle, peft, evaluation, args.",
)
@click.option(
    "--set", "assignments", multiple=True, metavar="NAME=VALUE", help="The same as --NAME VALUE."
)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    default=None,
    show_default="output_dir of the file, else runs/METHOD",
    help="Run directory.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in the output directory.")
@click.option("--download", is_flag=True, help="Models may be fetched from the hub.")
@click.option("--print-config", is_flag=True, help="Print every option as YAML and stop.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(  # noqa: PLR0913 - one parameter per option
    method: str,
    flags: tuple[str, ...],
    config_file: Path | None,
    assignments: tuple[str, ...],
    output_dir: Path | None,
    resume: bool,
    download: bool,
    print_config: bool,
    as_json: bool,
) -> int:
    """Align a model by METHOD; what is judged, by whom, and how stands in a YAML file.

    Example: equilign train sppo --config recipes/train/sppo.yaml --learning_rate 5e-5

    Under accelerate launch only the main process prints and writes.
    """
    if method not in TRAINED:
        raise ConfigError(f"no method {method!r} trains models; there are: {', '.join(TRAINED)}")
    if download:
        os.environ["HF_HUB_OFFLINE"] = "0"  # before the hub's library is imported
    with _quiet_unless_main():
        config, folder = _read(method, config_file, [*assigned(assignments), *flagged(flags)])
        if print_config:
            from equilign.experiments.resolved import resolved_yaml

            click.echo(resolved_yaml(config), nl=False)
            return 0
        summary = _run(config, output_dir or folder, resume, download)
    if summary is not None:
        if as_json:
            print_json(_short(summary))
        else:
            _print(summary)
    return 0


# -- what was asked for ----------------------------------------------------------------------


def assigned(assignments: Sequence[str]) -> list[tuple[str, str]]:
    """``NAME=VALUE`` of --set as pairs.

    Raises:
        ConfigError: one has no ``=``.
    """
    pairs = []
    for text in assignments:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise ConfigError(f"--set {text!r}: write NAME=VALUE, such as learning_rate=1e-5")
        pairs.append((name, value))
    return pairs


def flagged(flags: Sequence[str]) -> list[tuple[str, str]]:
    """Unknown flags as pairs: ``--name value``, ``--name=value``; ``--name`` alone is true.

    Raises:
        ConfigError: a value without a name before it.
    """
    pairs = []
    rest = list(flags)
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("--") or flag == "--":
            raise ConfigError(
                f"what is {flag!r}? The method comes first, then options as --NAME VALUE"
            )
        name, sign, value = flag[2:].partition("=")
        if not sign:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        pairs.append((name, value))
    return pairs


def _read(
    method: str, config_file: Path | None, pairs: Sequence[tuple[str, str]]
) -> tuple["TrainConfig", Path]:
    from equilign.experiments.train_config import make_config, parse_override, read_config_file

    values = {} if config_file is None else read_config_file(config_file)
    overrides = [parse_override(name, value) for name, value in pairs]
    base = Path() if config_file is None else config_file.parent
    folder = values.get("output_dir") or Path("runs") / method
    if not isinstance(folder, str | Path):
        raise ConfigError(f"output_dir is {folder!r}; it must be a folder")
    return make_config(method, values, overrides, base), Path(folder)


@contextmanager
def _quiet_unless_main() -> Iterator[None]:
    """All processes of a launcher stumble over the same mistake; the main one tells it."""
    try:
        yield
    except EquilignError:
        if os.environ.get("RANK", "0") != "0":
            raise SystemExit(2) from None
        raise


def _run(
    config: "TrainConfig", folder: Path, resume: bool, download: bool
) -> dict[str, Any] | None:
    from equilign.experiments.train import run_train  # torch is imported here
    from equilign.experiments.train_job import planned_rounds

    if os.environ.get("RANK", "0") != "0":
        return run_train(
            config, folder, resume=resume, download=download, progress=lambda *args: None
        )
    with round_progress(planned_rounds(config, folder)) as progress:
        return run_train(config, folder, resume=resume, download=download, progress=progress)


# -- what came of it -------------------------------------------------------------------------


def _short(summary: dict[str, Any]) -> dict[str, Any]:
    methods = {
        name: {**m, "examples": m["examples"][:_SHOWN_IN_JSON]}
        for name, m in summary["methods"].items()
    }
    return {**summary, "methods": methods}


def _interval(row: dict[str, Any]) -> str:
    return f"{row['win_rate']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _table(title: str, rounds: Sequence[dict[str, Any]]) -> Table:
    second = any("held_out" in r for r in rounds)
    table = Table(title=title, title_justify="left")
    names = ["round", "win rate (95 %)", *(["held-out judge"] if second else []), "KL (nats)"]
    for name in (*names, "tokens"):
        table.add_column(name, justify="right")
    for r in rounds:
        cells = [str(r["round"]), _interval(r)]
        cells += [_interval(r["held_out"])] if second else []
        table.add_row(*cells, f"{r['kl_nats']:.2f}", f"{r['mean_tokens']:.1f}")
    return table


def _print(summary: dict[str, Any]) -> None:
    console = Console()
    folder = Path(summary["output_dir"])
    for name, m in summary["methods"].items():
        if m["rounds"] and m["rounds"][0]["win_rate"] is not None:
            title = f"{m['title']}: win rate against the start model on prompts not trained on"
            console.print(_table(title, m["rounds"]))
        for example in m["examples"][:3]:
            for label, key in (("prompt", "prompt"), ("before", "before"), ("after ", "after")):
                console.print(Text(f"{label}  ", style="bold").append_text(plain(example[key])))
            console.print()
        console.print(Text(f"Model: {folder / 'models' / name}"))
    console.print(
        Text(
            f"{summary['seconds']:.0f} seconds, peak memory {summary['peak_memory_mb']:.0f} MB\n"
            f"Open {folder / 'report.html'}"
        )
    )
