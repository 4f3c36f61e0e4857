"""The outputs printed on the page of solution concepts are those of its code."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "solution-concepts.md"


def test_outputs_of_the_page(capsys):
    blocks = re.findall(
        r"^```(\w+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    namespace, printed, compared = {}, "", 0
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, str(PAGE), "exec"), namespace)
            printed += capsys.readouterr().out
        else:
            assert [x.rstrip() for x in printed.splitlines()] == text.splitlines()
            printed, compared = "", compared + 1
    assert compared == 5
