"""The states of the jobs of one submission, from SLURM's controller."""

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

#: A job in one of these has ended for good; all others may still run.
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
}  # fmt: skip

#: Reasons for which a job never starts unless it or the cluster is changed.
NEVER = {
    "BadConstraints", "DependencyNeverSatisfied", "InvalidAccount", "InvalidQOS", "JobHeldAdmin", "PartitionConfig",
    "PartitionNodeLimit", "PartitionTimeLimit", "launch failed requeued held",
}  # fmt: skip


class ControllerError(Exception):
    """The controller has not responded for a long time; the text is the last error of squeue."""


@dataclass(frozen=True)
class State:
    """A job's state in SLURM's words (PENDING, RUNNING, ...), and why it waits."""

    name: str
    reason: str


def states(job: str) -> dict[str, State] | str:
    """The state of each element of a job array (`12_0`) or of a job (`12`), or why they cannot be read.

    Those that the controller has forgotten, `MinJobAge` seconds after their end, are not in it.
    """
    command = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={job}", "--format=%i|%T|%r"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode and "Invalid job id" not in done.stderr:
        return done.stderr.strip()
    rows = [line.split("|", 2) for line in done.stdout.splitlines()]
    return {job: State(name, reason) for job, name, reason in rows}


def cancel(job: str) -> None:
    """Take a job, or one element of an array, out of the queue, if the controller responds."""
    _send("scancel", job)


def requeue(job: str) -> None:
    """End a job and put it back into the queue, if the controller responds."""
    _send("scontrol", "requeue", job)


def _send(*command: str) -> None:
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, capture_output=True, timeout=60)


def watched(
    read: Callable[[], Mapping[str, State] | str], every: float, patience: float = 600.0
) -> Iterator[Mapping[str, State]]:
    """The states from `read`, again and again.

    Args:
        read: Returns the states, or the reason why there are none.
        every: Seconds between two calls.
        patience: Seconds without states before giving up; a controller may be restarted meanwhile.

    Raises:
        ControllerError: There were no states for so long.
    """
    last = time.monotonic()
    while True:
        found = read()
        if not isinstance(found, str):
            last = time.monotonic()
            yield found
        elif time.monotonic() - last > patience:
            raise ControllerError(found)
        time.sleep(every)
