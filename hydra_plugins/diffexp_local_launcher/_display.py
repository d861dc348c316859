"""What a sweep of this machine says: the narrator's lines and, in a terminal, a table of what runs at the moment."""

import re
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hydra_plugins.diffexp_local_launcher._narrator import Narrator, duration, last_lines, say

if TYPE_CHECKING:
    from rich.console import Group

_PATIENCE = 2.0  # seconds without a free slot before that is said
_NEXT = 3  # jobs that wait, shown below those that run
_WIDEST = 40  # characters of a job's overrides


class Display(Narrator):
    """Tells of each job of this machine.

    Args:
        logs: As of `Narrator`.
        numbers: As of `Narrator`.
        overrides: Those of each job.
        at_a_time: As of `Narrator`.
        slots: How many there are.
    """

    def __init__(
        self,
        logs: Sequence[Path],
        numbers: Sequence[int],
        overrides: Sequence[Sequence[str]],
        at_a_time: int,
        slots: int,
    ) -> None:
        super().__init__(logs, numbers, [" ".join(words) for words in overrides], at_a_time)
        shared = set[str]().union(*overrides[:1]).intersection(*overrides) if len(overrides) > 1 else set[str]()
        self.differences = [" ".join(word for word in words if word not in shared) for words in overrides]
        self.slots = slots
        self.places: dict[int, str] = {}
        self.note = ""
        self.live = False

    @contextmanager
    def shown(self) -> Generator[None]:
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
        for name in ("job", "state", "overrides", "slot", "for", "ETA"):
            grid.add_column(name, no_wrap=True, max_width=_WIDEST if name == "overrides" else None)
        grid.add_column("last line", no_wrap=True, ratio=1)  # takes the rest
        for index, start in running.items():
            said = next((line for line in reversed(last_lines(self.logs[index])) if not line.startswith(" ")), "")
            eta = re.search(r"\bETA (\d[\d:]*)", said)  # a narrow terminal cuts lines off before it
            spent, left = duration(now - start), eta[1] if eta else ""
            row = ("running", self.differences[index], self.places.get(index, ""), spent, left, said)
            grid.add_row(f"#{self.numbers[index]}", *map(Text, row))
        first = len(self.places)  # they start in order
        for index in range(first, min(first + _NEXT, len(self.logs))):
            grid.add_row(f"#{self.numbers[index]}", "waiting", Text(self.differences[index]), style="dim")
        counts = [f"{self.done} of {len(self.logs)} ended", f"{self.failed} failed" if self.failed else ""]
        counts += [f"{len(running)} running", f"{len(self.logs) - first} waiting" if first < len(self.logs) else ""]
        counts += [self.left() if self.seconds and self.done < len(self.logs) else "", self.note]
        return Group(grid, Text(", ".join(filter(None, counts)), style="bold"))
