"""The results as tables, figures and a page."""

from collections.abc import Mapping, Sequence
from typing import Any

from equilign.experiments.omwu.charts import charts
from equilign.experiments.omwu.judging import amount
from equilign.experiments.omwu.linear_phase import WINDOW, summarise
from equilign.experiments.omwu.scales import Scale
from equilign.reports.reproduction import ReproductionPage, Section
from equilign.reports.tables import Table
from equilign.reports.words import duration

Results = dict[str, Any]

PAPER = "arXiv:2512.24818"

NOT_FOUND = (
    "The paper’s full text was not available to us: its step sizes, game generator, networks and "
    "plotted values are unknown here. What is compared are its stated claims (abstract and "
    "reviews), on games of the sizes it uses (10 and 100 responses). Hyperparameters of every "
    "method are chosen on games that are not reported on."
)


def _row(cells: Sequence[Any]) -> tuple[str, ...]:
    return tuple(c if isinstance(c, str) else amount(c) for c in cells)


def _text(table: Mapping[str, Any]) -> Table:
    rows = [_row(row) for row in table["rows"]]
    return Table(table["caption"], table["columns"], rows, len(table["columns"]) - 1)


def _gap(value: float | None) -> float | str:
    return "diverged" if value is None else value


def _table(name: str, caption: str, columns: list[str], rows: list[list[Any]]) -> dict[str, Any]:
    return {"name": name, "caption": caption, "columns": columns, "rows": rows}


def _methods_table(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for key in found["chosen"].values():
        row = found["contestants"][key]
        low, middle, high = row["final_quantiles"]
        arrivals = [row["arrival_quantiles"][target][1] for target in ("0.001", "1e-06")]
        reached = f"{row['reached']['1e-06']} of {found['games']}"
        settings = [row["title"], f"{row['beta']:g}", f"{row['eta']:g}"]
        gaps = [_gap(value) for value in (middle, low, high)]
        rows.append([*settings, *gaps, *arrivals, reached])
    columns = ["Method", "beta", "eta", "Gap, median", "lower decile", "upper decile"]
    columns += ["Calls to 1e-3", "Calls to 1e-6", "At 1e-6"]
    caption = f"{found['title']}: after {found['calls']:,} oracle calls, {found['games']} games"
    return _table(f"methods-{name}", caption, columns, rows)


def _floors_table(name: str, title: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    cells = []
    for r in rows:
        medians = [_gap(r[key][1]) for key in ("exact_quantiles", "measured_quantiles")]
        cells.append([r["title"], f"{r['beta']:g}", f"{r['eta']:g}", *medians, f"{r['agree']:.0%}"])
    columns = ["Method", "beta", "eta", "Exact floor", "Final gap", "Games within 5 %"]
    return _table(f"floors-{name}", f"{title}: original gap, medians", columns, cells)


def _linear_table(results: Results) -> dict[str, Any]:
    rows = []
    for study in results["linear"].values():
        s = summarise(study)
        rows.append(
            [study["title"], f"{study['eta']:g}", f"{s['through']} of {s['games']}"]
            + [(s[key] or [None] * 3)[1] for key in ("burn_in", "one_minus_rate")]
            + [
                "–" if s[key] is None else f"{s[key][i]:.4f}"
                for key, i in (("r_squared", 0), ("halves", 1), ("measured_over_predicted", 1))
            ]
        )
    columns = ["Games", "eta", "Through", "Burn-in", "1 - rate"]
    columns += ["R², lower decile", "Halves", "Measured / predicted"]
    return _table("linear-phase", "OMWU’s linear phase (medians unless said)", columns, rows)


def _regrowth_table(results: Results) -> dict[str, Any]:
    rows = []
    for run in results["regrowth"]["runs"]:
        lowest = run["lowest_after"]
        after = "–" if lowest is None else amount(10.0**lowest)
        rows.append([run["title"], f"1e-{run['power']}", run["regrown_at"], after])
    columns = ["Method", "Start", "Steps to regrow", "Lowest afterwards"]
    return _table("regrowth", "A rarely played response", columns, rows)


def _neural_table(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for row in found["contestants"].values():
        low, middle, high = row["final_quantiles"]
        settings = [row["title"], f"{row['beta']:g}", f"{row['learning_rate']:g}"]
        gaps = [_gap(value) for value in (row["start_quantiles"][1], middle, low, high)]
        rows.append([*settings, *gaps])
    columns = ["Method", "beta", "Learning rate", "Gap at start", "Gap, median", "lower", "upper"]
    caption = f"{found['title']}: after {found['gradient_steps']:,} gradient steps"
    return _table(f"networks-{name}", caption, columns, rows)


def tables(results: Results) -> list[dict[str, Any]]:
    """Every table: ``name, caption, columns, rows``; None stands for never or nothing."""
    found = [_methods_table(*item) for item in results["tabular"].items()]
    found.append(_linear_table(results))
    for name, rows in results["floors"].items():
        found.append(_floors_table(name, results["tabular"][name]["title"], rows))
    found.append(_regrowth_table(results))
    return found + [_neural_table(*item) for item in results["neural"].items()]


def _words(results: Results) -> dict[str, list[str]]:
    regrowth = results["regrowth"]
    return {
        "matrices": [
            "Three families: full support with 11 responses (one interior equilibrium), with 10 "
            "(a set of them), and independent uniform win probabilities as in EGPO’s code, where "
            "an even number of responses rules a full-support equilibrium out. The gap is always "
            "that of the original game. An oracle call judges every response against one policy: "
            "EGPO needs two per step, nested loops one per inner step. MWU is SPPO with its exact "
            "normaliser: the same step. OGDA is not in the paper; it is there as a yardstick.",
        ],
        "average": [
            "The mean of all policies so far converges for every no-regret method; a language "
            "model would have to be averaged over its own history to use it.",
        ],
        "linear": [
            f"A straight line on a logarithmic axis is a linear rate. It is fitted while the "
            f"largest gap still to come is between {WINDOW[0]:g} and {WINDOW[1]:g}; what comes "
            "before is the burn-in. The prediction is the largest modulus of the step linearised "
            "at the equilibrium, from the exact solution and no fit. OMWU can be arbitrarily "
            "slow: a nearly degenerate equilibrium has a slow mode, and such games are counted "
            "as not through, not left out.",
        ],
        "floors": [
            "A regularised method ends at the regularised equilibrium. Its gap in the original "
            "game is computed exactly, game by game, and does not depend on the method.",
        ],
        "regrowth": [
            f"One game of {regrowth['n']} responses; the response that the equilibrium plays most "
            f"(probability {regrowth['equilibrium_probability']:.2f}) starts exponentially rare. "
            "Logits move at a speed that does not depend on the probability, so each decade takes "
            "the same time; a policy gradient from the policy’s own pairs moves in proportion to "
            "the probability itself.",
        ],
        "networks": [
            "The network of EGPO’s simulations: a learnable input of 10 numbers, two hidden layers "
            "of 10, 100 logits; plain gradient descent on squared differences of uniform pairs, "
            "exact expectations. One network per game, unless it says one network (shared by all "
            "games, as in that code). Learning rates are chosen on every other game. All methods "
            "get the same number of gradient steps.",
        ],
        "steps": [
            "The final gap against the mirror step on the games that choose it (each method at the "
            "KL weight that is best for that step). Too large a step breaks the last iterate.",
        ],
    }


def _lead(results: Results, claims: Sequence[Mapping[str, Any]]) -> list[str]:
    holds = [claim["holds"] for claim in claims]
    return [
        f"Of {len(holds)} claims, {holds.count(True)} hold on this run’s numbers, "
        f"{holds.count(False)} do not, and {holds.count(None)} are not decided by its budget.",
        NOT_FOUND,
    ]


def build_page(
    results: Results,
    claims: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    scale: Scale,
    environment: Mapping[str, Any],
    measured: Mapping[str, float],
) -> tuple[ReproductionPage, list[dict[str, Any]]]:
    """The page, and the tables as data."""
    said, drawn, data = _words(results), charts(results), tables(results)
    titles = {
        "matrices": "Last iterates on matrices",
        "average": "Last against average",
        "linear": "The linear phase",
        "floors": "Bias floors",
        "regrowth": "Rarely played responses",
        "networks": "Networks",
        "steps": "How step sizes were chosen",
    }
    mine = {
        "matrices": "methods-",
        "linear": "linear-",
        "floors": "floors-",
        "regrowth": "regrowth",
        "networks": "networks-",
    }
    sections = [
        Section(
            key,
            title,
            said[key],
            drawn[key],
            [_text(t) for t in data if key in mine and t["name"].startswith(mine[key])],
        )
        for key, title in titles.items()
    ]
    facts = [
        ("Whole run", duration(measured["seconds"])),
        ("Peak memory", f"{measured['peak_memory_mb']:,.0f} MB"),
        *((k.replace("_", " "), str(v)) for k, v in vars(scale).items()),
    ]
    page = ReproductionPage(
        title="Optimistic multiplicative weights, reproduced",
        kicker=f"equilign reproduce omwu · scale {settings['scale']} · seed {settings['seed']}",
        paper=PAPER,
        lead=_lead(results, claims),
        claims=claims,
        sections=sections,
        facts=facts,
        config=dict(settings),
        environment=environment,
    )
    return page, data
