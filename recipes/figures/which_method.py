"""Draw docs/figures/which-method.svg: from what you have to the method.

    python recipes/figures/which_method.py

The figure follows the reader's light or dark mode, needs no network, and says in words what its
colours say.
"""

from dataclasses import dataclass
from html import escape
from pathlib import Path

TARGET = Path(__file__).resolve().parents[2] / "docs" / "figures" / "which-method.svg"

WIDTH, STEP, TOP = 760, 104, 16
QUESTION_X, QUESTION_WIDTH, QUESTION_HEIGHT = 16, 330, 62
METHOD_X, METHOD_WIDTH = 424, 320

STYLE = """
text { font: 15px system-ui, sans-serif; fill: #1f2328; }
.code { font: 600 15px ui-monospace, monospace; }
.small { font-size: 13px; }
.question { fill: #ffffff; stroke: #57606a; stroke-width: 1.5; }
.method { fill: #e8f1f8; stroke: #0072b2; stroke-width: 2; }
path { fill: none; stroke: #57606a; stroke-width: 1.5; }
.head { fill: #57606a; stroke: none; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .question { fill: #22272e; stroke: #9da7b1; }
  .method { fill: #16303f; stroke: #56b4e9; }
  path { stroke: #9da7b1; }
  .head { fill: #9da7b1; }
}
""".strip()


@dataclass(frozen=True)
class Fork:
    """A question, where one answer leads aside to methods and the other one on.

    Attributes:
        question: two lines.
        aside: the answer that leads to the methods.
        onward: the answer that leads to the next question; empty at the last one.
        methods: names.
        note: one line about them.
    """

    question: tuple[str, str]
    aside: str
    onward: str
    methods: str
    note: str


FORKS = (
    Fork(
        ("Is one answer enough, or may you", "draw several and keep the best?"),
        "several",
        "one",
        "best of n",
        "no training; try it first",
    ),
    Fork(
        ("Does a number say how good an answer", "is (a test, a checker, a reward)?"),
        "yes",
        "no",
        "rloo or ppo",
        "the reward model is to learn too: sta-naive",
    ),
    Fork(
        ("Can somebody compare new answers", "(a model, a rule, people)?"),
        "no",
        "yes",
        "dpo or ipo",
        "on old pairs; or fit a judge to them",
    ),
    Fork(
        ("Will a second answer be written", "after the first one is seen?"),
        "yes",
        "no",
        "slhf, then refine",
        "a Leader and a Follower",
    ),
    Fork(
        ("Do preferences go in circles?", "(equilign diagnose tells)"),
        "no",
        "yes",
        "sppo or iterated-dpo",
        "level where we measured",
    ),
    Fork(
        ("Must the model stay near", "where it started?"),
        "yes",
        "no",
        "egpo or nash-md",
        "KL weight beta > 0",
    ),
)
LAST = ("omwu or onpo", "the last policy settles")


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    name = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}"{name} text-anchor="{anchor}">{escape(words)}</text>'


def _box(x: float, y: float, width: float, kind: str) -> str:
    size = f'width="{width}" height="{QUESTION_HEIGHT}" rx="8"'
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" {size}/>'


def _methods(y: float, names: str, note: str, x: float = METHOD_X) -> list[str]:
    middle = x + METHOD_WIDTH / 2
    return [
        _box(x, y, METHOD_WIDTH, "method"),
        _text(middle, y + 27, names, "code", "middle"),
        _text(middle, y + 48, note, "small", "middle"),
    ]


def _right(y: float) -> str:
    begin, end = QUESTION_X + QUESTION_WIDTH, METHOD_X
    head = f'<path class="head" d="M{end} {y:g} l-9 -5 v10 z"/>'
    return f'<path d="M{begin} {y:g} H{end - 8}"/>{head}'


def _down(x: float, begin: float, end: float) -> str:
    head = f'<path class="head" d="M{x:g} {end:g} l-5 -9 h10 z"/>'
    return f'<path d="M{x:g} {begin:g} V{end - 8:g}"/>{head}'


def draw() -> str:
    """The figure as SVG."""
    height = TOP + STEP * len(FORKS) + QUESTION_HEIGHT + 16
    parts = []
    centre = QUESTION_X + QUESTION_WIDTH / 2
    gap = (QUESTION_X + QUESTION_WIDTH + METHOD_X) / 2 - 4
    for i, fork in enumerate(FORKS):
        y = TOP + STEP * i
        parts += [_box(QUESTION_X, y, QUESTION_WIDTH, "question")]
        parts += [
            _text(centre, y + 26 + 21 * k, q, "", "middle") for k, q in enumerate(fork.question)
        ]
        parts += [_right(y + QUESTION_HEIGHT / 2)]
        parts += [_text(gap, y + QUESTION_HEIGHT / 2 - 7, fork.aside, "small", "middle")]
        parts += _methods(y, fork.methods, fork.note)
        parts += [_down(centre, y + QUESTION_HEIGHT, y + STEP)]
        parts += [_text(centre + 10, y + QUESTION_HEIGHT + 26, fork.onward, "small")]
    last = TOP + STEP * len(FORKS)
    parts += _methods(last, *LAST, x=centre - METHOD_WIDTH / 2)
    said = " ".join(
        f"{' '.join(f.question)} {f.aside}: {f.methods}, {f.note}. {f.onward}: go on."
        for f in FORKS
    )
    title = f"{said} {LAST[0]}, {LAST[1]}."
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}">\n<style>\n{STYLE}\n</style>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    TARGET.write_text(draw(), encoding="utf-8")
    print(TARGET)
