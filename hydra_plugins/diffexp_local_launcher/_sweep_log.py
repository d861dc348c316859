"""What a sweep prints while it runs: one line when a job starts and one when it ends, with an estimate of the rest."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

_COMMAND = "$ "  # begins the line of a job's log with the command that started it

# Lines of a job's log that the job did not print: its command, Hydra's advice, the lines of submitit and srun.
_OF_OTHERS = (_COMMAND, "Set the environment variable HYDRA_FULL_ERROR", "submitit ", "srun: ")


def say(line: str) -> None:
    """Print at once, for a log file is read while it grows."""
    print(line, flush=True)


class SweepLog:
    """Prints what happens to each job.

    Args:
        logs: Where each job prints to.
        numbers: The number of each in the sweep.
        names: What each job is called.
        at_a_time: How many may run at once.

    Attributes:
        states: How many jobs ended in each state, by its first word.
        seconds: How long each job took that was done; those that failed are no guide to the others.
        running: When each running job started.
    """

    def __init__(self, logs: Sequence[Path], numbers: Sequence[int], names: Sequence[str], at_a_time: int) -> None:
        self.logs, self.numbers, self.names, self.at_a_time = logs, numbers, names, at_a_time
        self.states = Counter[str]()
        self.seconds: list[float] = []
        self.running: dict[int, float] = {}

    @property
    def failed(self) -> int:
        """How many jobs failed, not counting those that were stopped."""
        return self.states["FAILED"] + self.states["KILLED"]

    def started(self, index: int, where: str = "") -> None:
        """A job starts, on this part of the machine."""
        self.running[index] = time.monotonic()
        say(f"#{self.numbers[index]} started{where and f' on {where}'}{self._named(index)}")

    def ended(self, index: int, state: str, seconds: float) -> None:
        """A job ended, in this state."""
        del self.running[index]
        self.states[state.split()[0]] += 1
        if state == "done":
            self.seconds.append(seconds)
        left = self.left() or (f"{len(self.running)} still running" if self.running else "")
        say(
            f"#{self.numbers[index]} {state} in {duration(seconds)}{self._named(index)} "
            f"({self.states.total()} of {len(self.logs)}{left and f', {left}'}){log_tail(self.logs[index])}"
        )

    def left(self) -> str:
        """Time until the last job ends, if the others take as long as those that were done; empty if unknown."""
        left = len(self.logs) - self.states.total()
        if not left or not self.seconds:
            return ""
        mean = sum(self.seconds) / len(self.seconds)
        running = sum(max(0.0, mean - (time.monotonic() - start)) for start in self.running.values())
        seconds = (running + mean * (left - len(self.running))) / min(self.at_a_time, left)
        # Nothing is known of jobs that have outlasted the others.
        return f"about {duration(seconds)} left" if round(seconds) else ""

    def _named(self, index: int) -> str:
        return self.names[index] and f": {self.names[index]}"


def log_tail(path: Path) -> str:
    """The last line that a job printed with the indented lines that continue it, each on a line of its own."""
    lines = last_lines(path)
    first = max((i for i, line in enumerate(lines) if not line.startswith(" ")), default=0)
    return "".join(f"\n    {line[:1000]}" for line in lines[first:])


def last_lines(path: Path) -> list[str]:
    """What a job printed last, without the lines of others in its log; none if it ended before it printed.

    A sweep that is repeated appends to the log: what stands before the last command is of an earlier job.
    """
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16384))
        lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
    lines = lines[max((i for i, line in enumerate(lines) if line.startswith(_COMMAND)), default=0) :]
    return [line.rstrip() for line in lines if line.strip() and not line.startswith(_OF_OTHERS)]


def duration(seconds: float) -> str:
    """The time in its two largest units: 1 h 20 min, 3 min 5 s, 12 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
