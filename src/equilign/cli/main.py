"""The command line: parsing only. Sub-commands are imported when they are called."""

import logging
import os
import sys
import traceback
from importlib import import_module

import click

from equilign.errors import EquilignError

COMMANDS = {
    "correct": ("equilign.cli.correct", "Who improves whose answers: Followers on Leaders."),
    "demo": ("equilign.cli.demo", "Align the shipped model and open a page that shows it."),
    "diagnose": ("equilign.cli.diagnose", "Is a reward model enough for this preference data?"),
    "exploit": ("equilign.cli.exploit", "How exploitable is a model? Bounds with intervals."),
    "fit-oracle": ("equilign.cli.fit_oracle", "Train a judge from pairwise preferences."),
    "kl": ("equilign.cli.kl", "How far models are from the one that they started from."),
    "label": ("equilign.cli.label", "A page on which people compare answers, and are an oracle."),
    "methods": ("equilign.cli.methods", "Every method: its game, its paper, its maturity."),
    "play": ("equilign.cli.play", "Play a game by learning rules, with their duality gaps."),
    "refine": ("equilign.cli.refine", "Answers improved over several rounds by a Follower."),
    "report": ("equilign.cli.report", "Write the page of a run again."),
    "reproduce": ("equilign.cli.reproduce", "The experiments of a paper, claim by claim."),
    "solve": ("equilign.cli.solve", "The exact solution of a matrix, named game or data file."),
    "tournament": ("equilign.cli.tournament", "Everybody against everybody, with intervals."),
    "train": ("equilign.cli.train", "Align a model by any method, from a YAML file."),
}
"""Name -> (module with a click command called `command`, one line of help)."""

EXTRAS = {
    "lm": ("accelerate", "datasets", "peft", "safetensors", "tokenizers", "torch", "transformers"),
    "report": ("jinja2", "matplotlib"),
}
"""Extra -> packages that it brings."""


class LazyGroup(click.Group):
    """A group that knows its commands' names without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        command = import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)  # noqa: S101 - our own table
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help lines of `COMMANDS`, so that `--help` imports nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="equilign")
def cli() -> None:
    """Align language models by playing preference games.

    Start with: equilign demo
    """


def _offline() -> None:
    # Nothing is fetched and nothing is reported, whatever the libraries' defaults are.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _tell() -> None:
    # What the library has to say while it works goes to stderr, one plain line each.
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("equilign: %(message)s"))
    log = logging.getLogger("equilign")
    log.setLevel(logging.INFO)
    log.addHandler(handler)


def run(arguments: list[str] | None = None) -> None:
    """Entry point: 0 done, 2 the user's input is wrong, 1 anything else."""
    _offline()
    _tell()
    sys.exit(_exit_code(arguments))


def _exit_code(arguments: list[str] | None) -> int:
    from equilign.text import visible

    try:
        result = cli.main(arguments, prog_name="equilign", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        click.echo(f"equilign: {visible(error.format_message())}", err=True)
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(f"Try '{error.ctx.command_path} --help'.", err=True)
        return 2
    except EquilignError as error:
        click.echo(f"equilign: {visible(str(error))}", err=True)
        if error.exit_code == 1:
            click.echo("equilign: commands with --resume go on from there.", err=True)
        return error.exit_code
    except ModuleNotFoundError as error:
        extra = next((k for k, names in EXTRAS.items() if error.name in names), None)
        if extra is None:
            raise
        click.echo(
            f"equilign: this command needs {error.name}, which is not installed; "
            f"pip install 'equilign[{extra}]' brings it.",
            err=True,
        )
        return 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("equilign: interrupted; commands with --resume go on from there.", err=True)
        return 1
    except BrokenPipeError:
        return 1
    except Exception:  # a bug of ours: show it whole
        click.echo(traceback.format_exc(), err=True)
        click.echo("equilign: this is a bug; please report the lines above.", err=True)
        return 1


if __name__ == "__main__":
    run()
