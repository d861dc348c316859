"""What a sweep of this machine says: the narrator's lines and, in a terminal, a table of what runs at the moment."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hydra_plugins.diffexp_local_launcher._narrator import Narrator, duration, last_lines, say

if TYPE_CHECKING:
    from rich.console import Group

_PATIENCE = 2.0  # seconds without a free slot before that is said
_NEXT = 3  # jobs that wait, shown below those that run


class Display(Narrator):
    """Tells of each job of this machine.

    Args:
        logs: As of `Narrator`.
        numbers: As of `Narrator`.
        names: As of `Narrator`.
        at_a_time: As of `Narrator`.
        slots: How many there are.
    """

    def __init__(
        self, logs: Sequence[Path], numbers: Sequence[int], names: Sequence[str], at_a_time: int, slots: int
    ) -> None:
        super().__init__(logs, numbers, names, at_a_time)
        self.slots = slots
        self.places: dict[int, str] = {}
        self.note = ""
        self.live = False

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The table stands below what is said until the block ends; there is none where stdout is no terminal."""
        if not sys.stdout.isatty():
            yield
            return
        from rich.live import Live

        with Live(get_renderable=self.table, refresh_per_second=4, transient=True):
            self.live = True
            yield
        self.live = False

    def started(self, index: int, where: str = "") -> None:
        """A job starts in this slot. The table shows it."""
        self.places[index], self.note = where, ""
        if self.live:
            self.running[index] = time.monotonic()
        else:
            super().started(index, where)

    def exited(self, index: int, code: int, seconds: float) -> None:
        """A job ended by itself, with this exit code."""
        state = "done" if code == 0 else f"FAILED (exit code {code})" if code > 0 else f"KILLED (signal {-code})"
        self.ended(index, state, seconds)

    def waiting(self, seconds: float) -> None:
        """No slot has been free for this time."""
        if seconds > _PATIENCE and not self.running and not self.note:
            self.note = f"every slot of this machine ({self.slots} in all) is held by other sweeps: waiting for one"
            if not self.live:
                say(self.note)

    def stopping(self, why: str, grace: float) -> None:
        """The jobs were asked to end, and have this many seconds."""
        say(f"{why}: the jobs have {grace:.0f} s to save their work and end; Ctrl-C again kills them")

    def table(self) -> "Group":
        """What runs, what runs next, and how many are left."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        now = time.monotonic()
        running = dict(self.running)  # this is another thread
        grid = Table(box=None, expand=True, pad_edge=False, header_style="bold")
        for name, share in {"job": 0, "state": 0, "overrides": 2, "slot": 0, "for": 0, "last line": 3}.items():
            grid.add_column(name, ratio=share or None, no_wrap=True, overflow="ellipsis")
        for index, start in running.items():
            said = (last_lines(self.logs[index]) or [""])[-1].strip()
            row = ("running", self.names[index], self.places.get(index, ""), duration(now - start), said)
            grid.add_row(f"#{self.numbers[index]}", *map(Text, row))
        first = len(self.places)  # they start in order
        for index in range(first, min(first + _NEXT, len(self.logs))):
            grid.add_row(f"#{self.numbers[index]}", "waiting", Text(self.names[index]), style="dim")
        counts = [f"{self.done} of {len(self.logs)} ended", f"{self.failed} failed" if self.failed else ""]
        counts += [f"{len(running)} running", f"{len(self.logs) - first} waiting" if first < len(self.logs) else ""]
        counts += [self.left() if self.seconds and self.done < len(self.logs) else "", self.note]
        return Group(grid, Text(", ".join(filter(None, counts)), style="bold"))
