"""`equilign methods`."""

from dataclasses import asdict

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from equilign.cli.console import plain, print_json
from equilign.methods import METHODS, Method


@click.command("methods")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(as_json: bool) -> None:
    """Every method: the game it plays, its paper, what it converges to, where, its maturity."""
    if as_json:
        print_json({"methods": {name: asdict(m) for name, m in METHODS.items()}})
        return
    console = Console()
    for game in dict.fromkeys(m.game for m in METHODS.values()):
        console.print(Text(game[:1].upper() + game[1:], style="bold"))
        console.print(_table([m for m in METHODS.values() if m.game == game]))
        console.print()
    console.print("Play one: equilign play GAME --rules NAME. Equations: docs/methods.md.")


def _table(methods: list[Method]) -> Table:
    # The paper stands under the name, so that 80 columns are enough.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("method\npaper", no_wrap=True)
    table.add_column("converges to", ratio=1)
    table.add_column("plays", width=8)
    table.add_column("maturity", width=8)
    for m in methods:
        name = Text(m.name, style="bold") + "\n" + plain(m.paper)
        table.add_row(name, plain(m.converges_to), plain(", ".join(m.plays)), plain(m.maturity))
    return table
