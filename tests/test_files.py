"""Files that are whole or not there, whatever happens while they are written."""

import errno
import json
import os
import re
import subprocess
import sys
import textwrap
from itertools import pairwise

import pytest

from equilign.errors import DataError, DiskFullError
from equilign.files import (
    Journal,
    explain_disk_full,
    is_disk_full,
    read_jsonl,
    sync_folder,
    write_atomically,
    write_json,
    write_jsonl,
)

HARD_VALUES = [
    {"text": "naïve café, 日本語, \u2028 and \x85 and \x0b stay in one line"},
    'new\nline, carriage\rreturn, quote " and backslash \\',
    "half a surrogate \ud83d",
    [1, 2.5, None, True],
    {},
    "",
]


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


# -- the journal --------------------------------------------------------------------------


def journal_file(path, values):
    journal = Journal(path)
    for key, value in enumerate(values):
        journal.add(key, value)
    journal.close()
    return path.read_bytes()


def test_journal_returns_what_was_added(tmp_path):
    path = tmp_path / "deep" / "folder" / "journal.jsonl"
    raw = journal_file(path, HARD_VALUES)
    assert raw.count(b"\n") == len(HARD_VALUES)
    journal = Journal(path)
    assert journal.entries == dict(enumerate(HARD_VALUES))
    assert all(type(key) is int for key in journal.entries)
    journal.close()
    assert path.read_bytes() == raw


def test_journal_survives_a_kill_at_every_byte_of_the_last_line(tmp_path):
    path = tmp_path / "journal.jsonl"
    raw = journal_file(path, ["first", {"second": "é \u2028"}, {"last": ["ü", 1.5, "}\\"]}])
    start = raw[:-1].rindex(b"\n") + 1
    for end in range(start, len(raw) + 1):
        path.write_bytes(raw[:end])
        journal = Journal(path)
        assert sorted(journal.entries) == ([0, 1, 2] if end == len(raw) else [0, 1]), end
        journal.add(7, "after the kill")
        journal.close()
        again = Journal(path)
        assert again.entries == journal.entries, end
        assert again.entries[7] == "after the kill"
        again.close()


def test_journal_cut_in_an_earlier_line_keeps_what_stands_before(tmp_path):
    path = tmp_path / "journal.jsonl"
    raw = journal_file(path, ["first", "second", "third"])
    first, second, third = raw.splitlines(keepends=True)
    path.write_bytes(first + second[:-5] + b"\n" + third)
    journal = Journal(path)
    assert journal.entries == {0: "first"}
    journal.close()
    assert path.read_bytes() == first


def test_journal_later_entry_of_a_key_wins(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.add(3, "old")
    journal.add(3, "new")
    assert journal.entries == {3: "new"}
    journal.close()
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.entries == {3: "new"}
    journal.close()


def test_journal_is_on_disk_before_add_returns(tmp_path, monkeypatch):
    """Another process, here another handle, sees the line; and the disk was told to keep it."""
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(handle), real(handle)))
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.add(0, "value")
    assert json.loads(path.read_text()) == {"key": 0, "value": "value"}
    assert len(synced) == 1
    journal.close()


def test_journal_forgets_an_entry_that_did_not_reach_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.add(0, "kept")
    kept = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match="No space left"):
            journal.add(1, "lost")
        assert path.read_bytes() == kept
        assert journal.entries == {0: "kept"}
    journal.add(2, "later")
    journal.close()
    journal = Journal(path)
    assert journal.entries == {0: "kept", 2: "later"}
    journal.close()


def test_journal_can_be_removed(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.add(0, 1)
    journal.remove()
    assert not path.exists()
    journal.remove()


# -- a disk that is really full -----------------------------------------------------------


def run_with_file_limit(tmp_path, body):
    """Run ``body`` where no file may grow beyond 4096 bytes; the writes fail half-way."""
    script = """
        import os, resource, signal, sys
        from pathlib import Path
        from equilign.errors import DiskFullError
        from equilign.files import *
        from equilign.files import is_disk_full

        folder = Path(sys.argv[1])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

        def limit(size):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    """
    code = textwrap.dedent(script) + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_full_disk_leaves_the_old_file(tmp_path):
    said = run_with_file_limit(
        tmp_path,
        """
        path = folder / "state.json"
        write_json(path, {"round": 1})
        limit(4096)
        try:
            with explain_disk_full(folder):
                write_json(path, {"round": 2, "data": "x" * 10_000})
        except DiskFullError as error:
            print(error)
        """,
    )
    assert said == (
        f"no space left on the disk of {tmp_path}. Everything written so far is intact: "
        "free some space and continue with --resume.\n"
    )
    assert json.loads((tmp_path / "state.json").read_text()) == {"round": 1}
    assert os.listdir(tmp_path) == ["state.json"]


@pytest.mark.parametrize("value", [4080, 200_000])  # less and more than buffers usually hold
def test_full_disk_cuts_the_journal_back_to_whole_lines(tmp_path, value):
    """Then space is freed and the same process goes on: nothing of the failed entry may follow."""
    said = run_with_file_limit(
        tmp_path,
        """
        journal = Journal(folder / "journal.jsonl")
        journal.add(0, "kept")
        size = os.path.getsize(journal.path)
        limit(4096)
        try:
            journal.add(1, "x" * VALUE)
        except OSError as error:
            print(is_disk_full(error), os.path.getsize(journal.path) - size)
        limit(hard)
        journal.add(2, "later")
        journal.close()
        """.replace("VALUE", str(value)),
    )
    assert said == "True 0\n"
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.entries == {0: "kept", 2: "later"}
    journal.close()


def test_full_disk_then_close_leaves_whole_lines(tmp_path):
    run_with_file_limit(
        tmp_path,
        """
        journal = Journal(folder / "journal.jsonl")
        journal.add(0, "kept")
        limit(4096)
        try:
            journal.add(1, "y" * 4080)
        except OSError:
            limit(hard)
        journal.close()
        """,
    )
    assert (tmp_path / "journal.jsonl").read_text() == '{"key": 0, "value": "kept"}\n'


# -- what counts as a full disk -----------------------------------------------------------


def chained(*errors, explicit):
    """The last error, caused by the one before, and so on."""
    for inner, outer in pairwise(errors):
        setattr(outer, "__cause__" if explicit else "__context__", inner)
    return errors[-1]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_by_error_number(number):
    assert is_disk_full(OSError(number, "some words"))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at inline_container.cc] . : No space left on device"),
        Exception("Error while serializing: I/O error: File too large (os error 27)"),
        Exception("IoError(Os { code: 28 }) No space left (os error 28)"),
        ValueError("write failed: Disk quota exceeded"),
    ],
)
def test_full_disk_by_the_words_of_a_library(error):
    assert is_disk_full(error)


@pytest.mark.parametrize("explicit", [True, False])
def test_full_disk_by_what_caused_it(explicit):
    full = OSError(errno.ENOSPC, "x")
    assert is_disk_full(chained(full, KeyError("a"), RuntimeError("b"), explicit=explicit))
    other = OSError(errno.EACCES, "x")
    assert not is_disk_full(chained(other, KeyError("a"), RuntimeError("b"), explicit=explicit))


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EACCES, "Permission denied"), ValueError("space"), KeyError(28), OSError()],
)
def test_other_errors_are_no_full_disk(error):
    assert not is_disk_full(error)


def test_an_error_that_is_its_own_cause_is_no_endless_loop():
    error = RuntimeError("x")
    error.__cause__ = error
    assert not is_disk_full(error)


def test_full_disk_is_explained_once_with_the_cure(tmp_path):
    with pytest.raises(DiskFullError) as caught, explain_disk_full(tmp_path):
        no_space()
    assert str(caught.value) == (
        f"no space left on the disk of {tmp_path}. Everything written so far is intact: "
        "free some space and continue with --resume."
    )
    assert isinstance(caught.value.__cause__, OSError)
    inner = caught.value
    with pytest.raises(DiskFullError) as again, explain_disk_full(tmp_path / "other"):
        raise inner
    assert again.value is inner


@pytest.mark.parametrize(
    "error", [ValueError("x"), OSError(errno.EACCES, "x"), KeyboardInterrupt()]
)
def test_other_errors_pass_unchanged(tmp_path, error):
    with pytest.raises(type(error)) as caught, explain_disk_full(tmp_path):
        raise error
    assert caught.value is error


# -- atomic writes ------------------------------------------------------------------------


def test_write_replaces_and_makes_folders(tmp_path):
    path = tmp_path / "a" / "b" / "file.bin"
    write_atomically(path, b"\x00\xff\r\n")
    assert path.read_bytes() == b"\x00\xff\r\n"
    write_atomically(path, "é\r\n\ud83d")
    assert path.read_bytes() == "é\r\n\\ud83d".encode()
    assert os.listdir(path.parent) == ["file.bin"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch, broken, old):
    path = tmp_path / "file.txt"
    if old is not None:
        path.write_text(old)
    with monkeypatch.context() as patch:
        if broken == "fsync":
            patch.setattr(os, "fsync", no_space)
        else:
            patch.setattr(type(path), "replace", no_space)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(path, "new")
    assert os.listdir(tmp_path) == ([] if old is None else ["file.txt"])
    assert old is None or path.read_text() == old


def test_the_new_content_is_synced_before_it_replaces_the_old(tmp_path, monkeypatch):
    """After a power cut a file renamed too early would be empty."""
    path = tmp_path / "file.txt"
    path.write_text("old")
    seen = []

    def fsync(handle):
        seen.append((os.readlink(f"/proc/self/fd/{handle}"), path.read_text()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(path, "new")
    (first, before), (second, after) = seen
    assert os.path.dirname(first) == str(tmp_path), "same folder, or the rename is a copy"
    assert first != str(path)
    assert (before, second, after) == ("old", str(tmp_path), "new")


def test_sync_folder_closes_its_handle(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        sync_folder(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


# -- JSON ---------------------------------------------------------------------------------


def test_json_is_indented_and_readable(tmp_path):
    write_json(tmp_path / "a.json", {"name": "Café", "list": [1, 2]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.startswith('{\n  "name": "Café",\n')
    assert text.endswith("}\n")


def test_json_lines_return_what_was_written(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"value": value} for value in HARD_VALUES]
    write_jsonl(path, iter(rows))
    assert path.read_bytes().count(b"\n") == len(rows)
    assert read_jsonl(path) == rows
    write_jsonl(path, [])
    assert path.read_bytes() == b""
    assert read_jsonl(path) == []


def test_empty_lines_and_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\n{"a": 1}\r\n  \n{"a": 2}')
    assert read_jsonl(path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"a": ', r"not JSON \(Expecting value"),
        ("words", r"not JSON"),
        ("[1, 2]", r"expected a JSON object, got '\[1, 2\]'"),
        ("3", r"expected a JSON object, got '3'"),
    ],
)
def test_a_bad_line_is_named_with_its_file(tmp_path, line, what):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "\u2028"}\n\n' + line + '\n{"a": 2}\n', encoding="utf-8")
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}, line 3: {what}"):
        read_jsonl(path)


@pytest.mark.parametrize("kind", ["missing", "folder", "not text"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, kind):
    path = tmp_path / "rows.jsonl"
    if kind == "folder":
        path.mkdir()
    elif kind == "not text":
        path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=f"^cannot read {re.escape(str(path))}: "):
        read_jsonl(path)
