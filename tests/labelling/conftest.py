import json
import shutil
import tempfile
import threading
from pathlib import Path

import pytest

from equilign.labelling import LabelStore
from equilign.labelling.server import LabelServer

from .people import ServerProcess


@pytest.fixture
def quick_folder():
    """A folder in memory where there is one: a slow disk is waited for at every answer."""
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(dir=memory if memory.is_dir() else None)
    yield Path(folder)
    shutil.rmtree(folder)


@pytest.fixture
def store(quick_folder):
    made = LabelStore(quick_folder / "labels.sqlite")
    yield made
    made.close()


@pytest.fixture
def serve():
    """Start servers in this process; they are closed afterwards."""
    started = []

    def start(store, **options):
        server = LabelServer(store, **options)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


def questions(count):
    return [(f"prompt {i}", f"yes {i}", f"no, and that is all about {i}") for i in range(count)]


@pytest.fixture
def pairs_file(tmp_path):
    def write(count):
        path = tmp_path / f"pairs-{count}.jsonl"
        rows = [{"prompt": p, "chosen": a, "rejected": b} for p, a, b in questions(count)]
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
        return path

    return write


@pytest.fixture
def process():
    """Make servers in processes of their own; those that still run are killed afterwards."""
    made = []

    def make(*arguments, **options):
        made.append(ServerProcess(*arguments, **options))
        return made[-1]

    yield make
    for server in made:
        if server.process is not None and server.process.returncode is None:
            server.kill()
