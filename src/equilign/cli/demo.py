"""`equilign demo`."""

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from equilign.cli.console import plain, print_json, round_progress, win_rate_table
from equilign.errors import ConfigError
from equilign.methods import TRAINED

_SHOWN_IN_JSON = 20


def _names(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for item in value for name in item.replace(",", " ").split())


@click.command("demo", context_settings={"show_default": True})
@click.option(
    "--methods",
    "methods",
    multiple=True,
    default=("sppo",),
    callback=_names,
    help=f"Methods to run, comma-separated or repeated. Available: {', '.join(TRAINED)}.",
)
@click.argument("more_methods", nargs=-1, metavar="[MORE METHODS]...")
@click.option("--model", default="shipped", help="'shipped', or the folder of a chat model.")
@click.option("--prompts", default=None, help="JSON lines with a 'prompt' to align on.")
@click.option("--eval-prompts", default=None, help="The same, to evaluate on.")
@click.option("--seed", type=int, default=0, help="Seed of everything.")
@click.option("--rounds", type=int, default=3, help="Rounds of sample, compare, train.")
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    default=Path("equilign-demo"),
    help="Run directory.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in the output directory.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(  # noqa: PLR0913 - one parameter per option
    methods: tuple[str, ...],
    more_methods: tuple[str, ...],
    model: str,
    prompts: str | None,
    eval_prompts: str | None,
    seed: int,
    rounds: int,
    output_dir: Path,
    resume: bool,
    as_json: bool,
) -> None:
    """Align the shipped chat model by a preference game and show what happened.

    The model describes restaurants; a panel of five attributes judges. Takes a few minutes on two
    CPU cores and needs no network. Writes a run directory with report.html in it.
    """
    chosen = tuple(dict.fromkeys((*methods, *more_methods)))
    for name in chosen:
        if name not in TRAINED:
            raise ConfigError(f"no method {name!r}; there are: {', '.join(TRAINED)}")
    from equilign.experiments.demo import DemoConfig, run_demo  # torch is imported here

    config = DemoConfig(
        methods=chosen,
        model=model,
        prompts=prompts,
        eval_prompts=eval_prompts,
        seed=seed,
        rounds=rounds,
    )
    with round_progress(rounds) as progress:
        summary = run_demo(config, output_dir, resume=resume, progress=progress)
    if as_json:
        print_json(_short(summary))
    else:
        _print(summary)


def _short(summary: dict[str, Any]) -> dict[str, Any]:
    methods = {
        name: {**m, "examples": m["examples"][:_SHOWN_IN_JSON]}
        for name, m in summary["methods"].items()
    }
    return {**summary, "methods": methods}


def _print(summary: dict[str, Any]) -> None:
    console = Console()
    for m in summary["methods"].values():
        title = f"{m['title']}: win rate against the start model on prompts not trained on"
        console.print(win_rate_table(title, m["rounds"]))
        for example in m["examples"][:3]:
            for label, key in (("prompt", "prompt"), ("before", "before"), ("after ", "after")):
                console.print(Text(f"{label}  ", style="bold").append_text(plain(example[key])))
            console.print()
    folder = Path(summary["output_dir"])
    console.print(
        Text(
            f"{summary['seconds']:.0f} seconds, peak memory {summary['peak_memory_mb']:.0f} MB\n"
            f"Open {folder / 'report.html'}"
        )
    )
