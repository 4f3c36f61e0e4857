"""Wrong input: one clear message, exit code 2, no traceback, nothing written."""

import subprocess
import sys

import pytest

from equilign.cli.main import COMMANDS, _exit_code


def outcome(capsys, *arguments):
    code = _exit_code([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert out == ""
    return code, err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--roundz", "2"], "No such option '--roundz'. Did you mean '--rounds'?"),
        (["demo", "--rounds", "two"], "'two' is not a valid integer"),
        (["demo", "--rounds", "0"], "rounds = 0; it must be >= 1"),
        (["demo", "--seed", "-1"], "seed = -1; it must be >= 0"),
        (["demo", "--methods", "spo"], "no method 'spo'; there are: sppo"),
        (["demo", "sppo", "foo"], "no method 'foo'"),
        (["demo", "--eval-prompts", "x.jsonl"], "--eval-prompts needs --prompts"),
        (["demo", "--model", "/nowhere/model"], "no model folder at /nowhere/model"),
        (["demo", "--prompts", "/nowhere.jsonl"], "cannot read the prompts file /nowhere.jsonl"),
        (["dmo"], "No such command 'dmo'"),
        (["report", "/nowhere"], "cannot read /nowhere/summary.json"),
    ],
)
def test_message_and_exit_code(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, err = outcome(capsys, *arguments)
    assert code == 2
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no prompts"),
        ("\n\n", "has no prompts"),
        ('{"prompt": "name[A], eatType[pub]"}\nnot json\n', "line 2:"),
        ('{"text": "x"}\n', 'line 1: each line must be a JSON object with a "prompt"'),
        ("[1, 2]\n", "line 1: each line must be a JSON object"),
        ('{"prompt": 7}\n', 'line 1: "prompt" must be text or a list'),
        ('{"prompt": " "}\n', 'line 1: "prompt" is empty'),
        ('{"prompt": [{"role": "user"}]}\n', 'line 1: every chat message needs "role"'),
        ('{"prompt": "tell me a joke"}\n', "line 1: not an attribute list"),
        ('{"prompt": "name[A]"}\n', "too few for 3 rounds"),
    ],
)
def test_bad_prompts_file_names_file_and_line(capsys, tmp_path, content, message):
    path, folder = tmp_path / "p.jsonl", tmp_path / "run"
    path.write_text(content)
    code, err = outcome(capsys, "demo", "--prompts", path, "--output-dir", folder)
    assert code == 2
    assert str(path) in err
    assert message in err
    assert not folder.exists()


def test_binary_prompts_file(capsys, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    code, err = outcome(capsys, "demo", "--prompts", path, "--output-dir", tmp_path / "run")
    assert code == 2
    assert f"cannot read the prompts file {path}" in err


@pytest.mark.parametrize("broken", ["config.json", "model.safetensors", "tokenizer.json"])
def test_unreadable_model_folder(capsys, tmp_path, chat_model, broken):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in chat_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / broken).write_bytes(b"garbage")
    code, err = outcome(capsys, "demo", "--model", folder, "--output-dir", tmp_path / "run")
    assert code == 2
    assert str(folder) in err
    assert "cannot load" in err
    assert not (tmp_path / "run").exists()


def test_folder_that_is_no_model(capsys, tmp_path):
    code, err = outcome(capsys, "demo", "--model", tmp_path, "--output-dir", tmp_path / "run")
    assert code == 2
    assert "is no model folder: it has no config.json" in err


def test_output_directory_with_other_files(capsys, tmp_path, chat_model):
    (tmp_path / "thesis.tex").write_text("years of work")
    for extra in ([], ["--resume"]):
        code, err = outcome(capsys, "demo", "--model", chat_model, "--output-dir", tmp_path, *extra)
        assert code == 2
        assert "is not empty and holds no run of equilign" in err
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert len(list(tmp_path.iterdir())) == 1


def test_output_directory_that_is_a_file(capsys, tmp_path, chat_model):
    path = tmp_path / "file"
    path.write_text("mine")
    code, err = outcome(capsys, "demo", "--model", chat_model, "--output-dir", path)
    assert code == 2
    assert "is a file" in err
    assert path.read_text() == "mine"


def test_messages_do_not_drive_the_terminal(capsys, tmp_path):
    code, err = outcome(capsys, "demo", "--model", "\x1b[2Jboo\u202e")
    assert code == 2
    assert "\x1b" not in err
    assert "\u202e" not in err
    assert r"\x1b[2Jboo\u202e" in err


def test_help_imports_no_torch():
    code = (
        "import sys\n"
        "from equilign.cli.main import _exit_code\n"
        "for args in ([], ['--help'], ['demo', '--help'], ['methods'], ['--version']):\n"
        "    _exit_code(args)\n"
        "heavy = {'torch', 'transformers', 'numba', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("package", "extra", "arguments"),
    [("torch", "lm", ["demo"]), ("jinja2", "report", ["report", "."])],
)
def test_missing_extra_is_named(package, extra, arguments, tmp_path):
    code = (
        "import sys\n"
        f"sys.modules[{package!r}] = None\n"
        "from equilign.cli.main import run\n"
        f"run({arguments!r})\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 2, result.stderr
    assert f"needs {package}" in result.stderr
    assert f"pip install 'equilign[{extra}]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_every_command_is_in_the_help(capsys):
    assert _exit_code(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)
