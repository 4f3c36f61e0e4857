"""Every code block of the documentation runs, page by page, top to bottom.

`python` blocks of a page share one namespace; `bash` blocks run line by line. `equilign demo` runs
with a tiny random model and a few prompts in place of the shipped ones: what is tested is that
the commands and what follows from their files work, not the result. `text` blocks are not code.
"""

import re
import shlex
from pathlib import Path

import pytest

from equilign.cli.main import _exit_code

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(p for p in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page):
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def run_command(line, chat_model, prompts_file):
    words = shlex.split(line)
    assert words[0] == "equilign", f"only equilign commands are run: {line}"
    arguments = words[1:]
    if arguments[0] == "demo":
        arguments += ["--model", str(chat_model), "--prompts", str(prompts_file)]
    assert _exit_code(arguments) == 0, line


PAGES_WITH_CODE = [p for p in PAGES if any(kind in ("python", "bash") for kind, _ in blocks(p))]


@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_page(page, tmp_path, monkeypatch, chat_model, prompts_file, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for kind, code in blocks(page):
        if kind == "python":
            exec(compile(code, str(page), "exec"), namespace)
        elif kind == "bash":
            for line in code.strip().splitlines():
                run_command(line, chat_model, prompts_file)


def test_every_block_says_what_it_is():
    for page in PAGES:
        for kind, code in blocks(page):
            assert kind in ("python", "bash", "text"), f"{page}: {kind!r} block {code[:40]!r}"


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_method_has_a_row_with_files_that_exist():
    from equilign.methods import METHODS

    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    for method in METHODS.values():
        row = next(x for x in text.splitlines() if x.startswith(f"| `{method.name}`"))
        assert method.maturity in row
        assert method.paper in row
        for path in re.findall(r"`((?:rules|trainers|tests)/[\w/]+\.py)`", row):
            base = ROOT if path.startswith("tests/") else ROOT / "src" / "equilign"
            assert (base / path).exists(), path


def test_commands_of_the_reference_are_those_there_are():
    from equilign.cli.main import COMMANDS

    text = (ROOT / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## equilign ([\w-]+)", text, re.MULTILINE)) == set(COMMANDS)
