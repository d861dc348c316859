"""The progress of a sweep on this machine: the lines of its log and, in a terminal, a table of the running jobs."""

import re
import signal
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hydra_plugins.diffexp_local_launcher._sweep_log import SweepLog, duration, last_lines, say

if TYPE_CHECKING:
    from rich.console import Group

_PATIENCE = 2.0  # seconds without a free slot before that is printed
_NEXT = 3  # waiting jobs, shown below the running ones
_WIDEST = 40  # characters of a job's overrides

# The time left that a job prints in its last line, as diffexp's own progress lines do; the table has a column for it.
_ETA = re.compile(r"\bETA (\d[\d:]*)")

# Exit codes of a program that was stopped and has saved its work.
_INTERRUPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM)


class Display(SweepLog):
    """Prints what happens to each job of this machine.

    Args:
        logs, numbers, names, at_a_time: As of `SweepLog`.
        slots: How many there are.
    """

    def __init__(
        self, logs: Sequence[Path], numbers: Sequence[int], names: Sequence[str], at_a_time: int, slots: int
    ) -> None:
        super().__init__(logs, numbers, names, at_a_time)
        self.slots = slots
        self.places: dict[int, str] = {}
        self.note = ""
        self.end = ""  # why all jobs are being stopped
        self.live = False

    @contextmanager
    def shown(self) -> Generator[None]:
        """Keep the table below the printed lines until the block ends; no table where stdout is no terminal."""
        if not sys.stdout.isatty():
            yield
            return
        from rich.live import Live

        with Live(get_renderable=self.table, refresh_per_second=4, transient=True):
            self.live = True
            yield
        self.live = False

    def started(self, index: int, where: str = "") -> None:
        """A job starts in this slot."""
        self.places[index], self.note = where, ""
        if self.live:
            self.running[index] = time.monotonic()
        else:
            super().started(index, where)

    def exited(self, index: int, code: int, seconds: float, fatal: bool) -> None:
        """A job ended by itself, with this exit code. If that is fatal, all others are about to be stopped."""
        if fatal:
            self.end = f"since #{self.numbers[index]} failed"
        state = f"interrupted (exit code {code})" if code in _INTERRUPTED else f"FAILED (exit code {code})"
        self.ended(index, "done" if code == 0 else state if code > 0 else f"KILLED (signal {-code})", seconds)

    def stopped(self, index: int, code: int, seconds: float) -> None:
        """A job ended because the launcher stopped or killed it."""
        self.ended(index, f"stopped ({self.end}{', then killed' if code == -signal.SIGKILL else ''})", seconds)

    def waiting(self, seconds: float) -> None:
        """No slot has been free for this time."""
        if seconds > _PATIENCE and not self.running and not self.note:
            self.note = f"every slot of this machine ({self.slots} in all) is held by other sweeps: waiting for one"
            if not self.live:
                say(self.note)

    def stopping(self, why: str, grace: float) -> None:
        """The running jobs are being stopped, and have this many seconds; no more are started."""
        self.end, self.note = self.end or f"by {why}", ""
        again = " again" if why == "SIGINT" else ""
        if self.running:
            stop = f"the jobs that run are being stopped, and have {grace:.0f} s to save their work"
            say(f"{why}: {stop}; Ctrl-C{again} kills them")
        elif self.states.total() < len(self.logs):
            say(f"{why}: no more jobs are started")

    def left(self) -> str:
        """As of `SweepLog`; unknown when the jobs are being stopped."""
        return "" if self.end else super().left()

    def table(self) -> "Group":
        """The running jobs, the next ones, and how many are left."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        now = time.monotonic()
        running = dict(self.running)  # this is another thread
        grid = Table(box=None, expand=True, pad_edge=False, header_style="bold")
        for name in ("job", "state", "overrides", "slot", "for", "ETA"):
            grid.add_column(name, no_wrap=True, max_width=_WIDEST if name == "overrides" else None)
        grid.add_column("last line", no_wrap=True, ratio=1)  # takes the rest
        for index, start in running.items():
            line = next((line for line in reversed(last_lines(self.logs[index])) if not line.startswith(" ")), "")
            eta = _ETA.search(line)  # a narrow terminal may cut it off the line itself
            spent, left = duration(now - start), eta[1] if eta else ""
            state = "stopping" if self.end else "running"
            row = (state, self.names[index], self.places.get(index, ""), spent, left, line)
            grid.add_row(f"#{self.numbers[index]}", *map(Text, row))
        first = len(self.logs) if self.end else len(self.places)  # they start in order
        for index in range(first, min(first + _NEXT, len(self.logs))):
            grid.add_row(f"#{self.numbers[index]}", "waiting", Text(self.names[index]), style="dim")
        counts = [f"{self.states.total()} of {len(self.logs)} ended", f"{self.failed} failed" if self.failed else ""]
        counts += [f"{len(running)} running" if running else ""]
        counts += [f"{len(self.logs) - first} waiting" if first < len(self.logs) else "", self.left(), self.note]
        return Group(grid, Text(", ".join(filter(None, counts)), style="bold"))
