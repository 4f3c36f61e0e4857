"""`equilign methods`."""

from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from equilign.cli.console import print_json
from equilign.methods import METHODS


@click.command("methods")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(as_json: bool) -> None:
    """Every method: the game it plays, its paper, what it converges to, its maturity."""
    if as_json:
        print_json({"methods": {name: asdict(m) for name, m in METHODS.items()}})
        return
    table = Table()
    for name in ("method", "game", "paper", "converges to", "maturity"):
        table.add_column(name)
    for m in METHODS.values():
        table.add_row(m.name, m.game, m.paper, m.converges_to, m.maturity)
    Console().print(table)
