"""Viewers as programs of their own: the environments that they are in, and those that serve pages."""

import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from runs import ROOT


def python_of(name: str) -> Path:
    """The Python of `.venv-<name>`; without one the test is skipped."""
    folder = ROOT / f".venv-{name}"
    if not (folder / ".ready").is_file():
        pytest.skip(f"nothing is installed in {folder.name}: see what `make test-viewers` says of it")
    return folder / "bin" / "python"


@contextmanager
def serving(*command: str):
    """A program that serves pages at a free port of this machine ("{port}"); gives the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(word).format(port=port) for word in command]
    with TemporaryFile("w+") as said, subprocess.Popen(words, stdout=said, stderr=said) as program:
        try:
            _wait_for(program, port, said)
            yield f"http://127.0.0.1:{port}"
        finally:
            program.terminate()


def _wait_for(program, port: int, said, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if program.poll() is not None:
            said.seek(0)
            raise AssertionError(said.read())
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"nothing answers at port {port}")
