"""What a sweep shows in a terminal, and what Ctrl-C does there: real processes in a real pseudo-terminal."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from rich.console import Console
from small_app import alive, command_line, environment, sleepers, small_app, wait_until

from hydra_plugins.diffexp_local_launcher._display import Display
from hydra_plugins.diffexp_local_launcher._processes import _GRACE


class Terminal:
    """A terminal of 110 x 30 characters in which a sweep runs.

    Attributes:
        process: The sweep.
        shown: All that it has written so far.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._keys, screen = pty.openpty()
        fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 110, 0, 0))
        self.process = subprocess.Popen(
            command_line(*arguments), cwd=folder, env=environment(folder) | {"TERM": "xterm"}, start_new_session=True,
            stdin=screen, stdout=screen, stderr=screen, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(screen)
        self._written = b""
        self._reader = Thread(target=self._read)
        self._reader.start()

    @property
    def shown(self) -> str:
        return self._written.decode()

    @property
    def plain(self) -> str:
        """What was shown, without colours and movements."""
        return re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", self.shown).replace("\r", "")

    def press_ctrl_c(self) -> None:
        os.write(self._keys, b"\x03")

    def end(self) -> int:
        code = self.process.wait(60)
        self._reader.join()
        os.close(self._keys)
        return code

    def _read(self) -> None:
        while True:
            try:
                self._written += os.read(self._keys, 4096)
            except OSError:  # the last process has closed it
                return


@contextmanager
def terminal(folder: Path, *arguments: str) -> Iterator[Terminal]:
    it = Terminal(folder, *arguments)
    try:
        yield it
    finally:
        if it.process.poll() is None:
            it.process.terminate()
            it.end()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_app(tmp_path)


def test_a_terminal_shows_what_runs_and_keeps_what_has_ended(folder: Path) -> None:
    """The first job waits for a file: until then the table stands, with the last line of its log and what is next."""
    choices = ("number=0,1,2,3,4,5", "broken=[1]", "wait_for=go", "say='step 7 of 9, ETA 0:03 [/red]'")
    with terminal(folder, *choices, "hydra.launcher.jobs=1") as it:
        wait_until(lambda: "ETA 0:03" in it.plain)
        table = it.plain[it.plain.rindex("job") :].splitlines()
        assert re.match(r"job +state +overrides +slot +for +ETA +last line", table[0])
        assert re.match(r"#0 +running +number=0 +cpu \d+ +\d+ s +0:03 +step 7 of 9, ETA 0:03 \[/red\]", table[1])
        assert [line.split()[:2] for line in table[2:5]] == [[f"#{n}", "waiting"] for n in (1, 2, 3)]
        assert table[5].strip() == "0 of 6 ended, 1 running, 5 waiting"
        (folder / "ran" / "go.start").touch()
        assert it.end() == 1
    assert "started" not in it.plain
    states = re.findall(r"^(?:.*[^#])??#(\d) (done|FAILED)[^\n]* in \d+ s: number=", it.plain, re.M)
    assert states == [(str(n), "FAILED" if n == 1 else "done") for n in range(6)]
    assert "    RuntimeError: number 1 is broken" in it.plain
    assert it.shown.count("\x1b[?25l") == it.shown.count("\x1b[?25h")  # the cursor is back


def test_below_the_table_each_thing_stands_once(tmp_path: Path) -> None:
    """How many run, and when all will have ended where that is known. None waits when all are being ended."""
    it = Display([tmp_path / "none"] * 6, list(range(6)), list("abcdef"), at_a_time=2, slots=2)
    console = Console(width=110)

    def rows() -> list[str]:
        with console.capture() as drawn:
            console.print(it.table())
        return drawn.get().splitlines()

    it.started(0, "cpu 0")
    it.started(1, "cpu 1")
    it.exited(0, 1, 0.1, fatal=False)
    assert rows()[-1] == "1 of 6 ended, 1 failed, 1 running, 4 waiting"
    it.started(2, "cpu 0")
    it.exited(1, 0, 60.0, fatal=False)
    assert rows()[-1] == "2 of 6 ended, 1 failed, 1 running, 3 waiting, about 2 min 0 s left"
    it.started(3, "cpu 1")
    it.exited(2, 1, 60.0, fatal=False)
    it.started(4, "cpu 0")
    it.running = dict.fromkeys(it.running, 0.0)  # since long ago: only of the last is anything known
    assert rows()[-1] == "3 of 6 ended, 2 failed, 2 running, 1 waiting, about 30 s left"
    it.exited(4, 1, 60.0, fatal=True)
    assert [row.split()[:2] for row in rows()[1:-1]] == [["#3", "stopping"]]
    assert rows()[-1] == "4 of 6 ended, 3 failed, 1 running"


def test_ctrl_c_asks_and_a_second_one_kills(folder: Path) -> None:
    """The jobs do not listen to the first."""
    with terminal(folder, "number=0,1,2", "stubborn=true", "sleeper=true", "hydra.launcher.jobs=2") as it:
        pids = sleepers(folder, jobs=2)
        asked = time.monotonic()
        it.press_ctrl_c()
        wait_until(lambda: "Ctrl-C again kills them" in it.plain)
        assert all(alive(pid) for pid in pids[::2])
        it.press_ctrl_c()
        assert it.end() != 0
    assert time.monotonic() - asked < _GRACE  # after which they would have been killed without it
    assert not [pid for pid in pids if alive(pid)]
    assert "0 of 3 had finished" in it.plain
    assert not (folder / "ran" / "2.start").exists()
