"""What a sweep says while it runs: one line when a job starts and one when it ends, with what is left."""

import time
from collections.abc import Sequence
from pathlib import Path

# What a job's log says that the job did not: its command, Hydra's advice, the lines of submitit and srun.
_OF_OTHERS = ("$ ", "Set the environment variable HYDRA_FULL_ERROR", "submitit ", "srun: ")


def say(line: str) -> None:
    """Prints at once, for a log file is read while it grows."""
    print(line, flush=True)


class Narrator:
    """Tells of each job.

    Args:
        logs: Where each job prints to.
        numbers: The number of each in the sweep.
        names: What each job is called.
        at_a_time: How many may run at once.
    """

    def __init__(self, logs: Sequence[Path], numbers: Sequence[int], names: Sequence[str], at_a_time: int) -> None:
        self.logs, self.numbers, self.names, self.at_a_time = logs, numbers, names, at_a_time
        self.seconds: list[float] = []
        self.running: dict[int, float] = {}

    @property
    def done(self) -> int:
        """How many jobs have ended."""
        return len(self.seconds)

    def started(self, index: int) -> None:
        """A job starts."""
        self.running[index] = time.monotonic()
        say(f"#{self.numbers[index]} started: {self.names[index]}")

    def ended(self, index: int, state: str, seconds: float) -> None:
        """A job ended, in this state."""
        del self.running[index]
        self.seconds.append(seconds)
        rest = f", {self._left()}" if self.done < len(self.logs) else ""
        say(
            f"#{self.numbers[index]} {state} in {duration(seconds)}: {self.names[index]} "
            f"({self.done} of {len(self.logs)}{rest}){_last_words(self.logs[index])}"
        )

    def _left(self) -> str:
        """Until the last job ends, if those to come take as long as those that ended."""
        left = len(self.logs) - self.done
        mean = sum(self.seconds) / self.done
        running = sum(max(0.0, mean - (time.monotonic() - start)) for start in self.running.values())
        seconds = (running + mean * (left - len(self.running))) / min(self.at_a_time, left)
        # Jobs that have outlasted the others say nothing about when they end.
        return f"about {duration(seconds)} left" if round(seconds) else f"{left} still running"


def _last_words(path: Path) -> str:
    """The last line that a job printed and those that it continues, being indented; on lines of their own."""
    if not path.exists():  # it ended before it began
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16384))
        lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
    said = [line.rstrip() for line in lines if line.strip() and not line.startswith(_OF_OTHERS)]
    first = max((i for i, line in enumerate(said) if not line.startswith(" ")), default=0)
    return "".join(f"\n    {line[:1000]}" for line in said[first:])


def duration(seconds: float) -> str:
    """The time in the two units that matter: 1 h 20 min, 3 min 5 s, 12 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
