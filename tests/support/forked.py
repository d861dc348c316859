"""Commands in processes of their own that need not import torch first: each is forked from one that has."""

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Self

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["pytest", "sklearn.datasets", "diffexp.cli.main", "diffexp.training.train", "diffexp.cli.build"]
)


class Forked:
    """A process as `subprocess` would start it: with this one's environment and folder, and with its output caught."""

    def __init__(
        self, program: Callable[[], int], *words: str, file_size: int | None = None, **environment: str
    ) -> None:
        """Starts it; `words` are its arguments, and it may write no file larger than `file_size` bytes."""
        self._folder = Path(tempfile.mkdtemp())
        arguments = (program, words, os.environ | environment, self._folder, file_size)
        self._process = CONTEXT.Process(target=_started, args=arguments)
        self._process.start()
        assert self._process.pid
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        """Its exit status, minus the signal that killed it; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, once it has ended.

        Raises:
            subprocess.TimeoutExpired: It goes on.
        """
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it has printed on its two streams, once it has ended."""
        self.wait(timeout)
        return (self._folder / "out").read_text(), (self._folder / "err").read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.join()
        shutil.rmtree(self._folder)


def diffexp(*words: str, file_size: int | None = None) -> Forked:
    """`python -m diffexp words...`"""
    return Forked(_diffexp, *words, file_size=file_size)


def _diffexp() -> int:
    from diffexp.cli.main import main

    return main()


def python(code: str) -> Forked:
    """`python -c code`"""
    return Forked(_python, code)


def _python() -> int:
    exec(compile(sys.argv[1], "<string>", "exec"), {"__name__": "__main__"})
    return 0


def _started(
    program: Callable[[], int], words: tuple[str, ...], environment: dict[str, str], folder: Path, file_size: int | None
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for stream, name in ((1, "out"), (2, "err")):
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(file, stream)
        os.close(file)
    sys.argv = [sys.argv[0], *words]
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    sys.exit(program())
