"""Processes side by side: a few at a time, each with its log, none left behind."""

import asyncio
import os
import shlex
import signal
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_GRACE = 30.0  # seconds that a job has to save its work and end once it was asked to

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)  # cluster's warnings too


@dataclass(frozen=True)
class Job:
    """A command, where it runs, and the file that takes all it prints."""

    command: Sequence[str]
    folder: str
    environment: Mapping[str, str]
    log: Path


class StoppedError(Exception):
    """The jobs were ended because this process got a signal.

    Attributes:
        signal: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


def run_all(
    jobs: Sequence[Job],
    at_a_time: int,
    started: Callable[[int], None],
    ended: Callable[[int, int, float], None],
    fail_fast: bool = False,
) -> list[int | None]:
    """Runs the jobs, a few at a time, and returns their exit codes (minus the signal that ended one).

    Args:
        jobs: Started in this order.
        at_a_time: How many may run at once.
        started: Called with a job's index when it starts.
        ended: Called with a job's index, its exit code and its seconds when it ends.
        fail_fast: The first job that fails ends the others with SIGTERM; None is their exit code, and that of those
            that were not started.

    Raises:
        StoppedError: This process got one of `_SIGNALS`. All jobs got it too, and all have ended.
    """
    return asyncio.run(_run_all(jobs, at_a_time, started, ended, fail_fast))


async def _run_all(
    jobs: Sequence[Job],
    at_a_time: int,
    started: Callable[[int], None],
    ended: Callable[[int, int, float], None],
    fail_fast: bool,
) -> list[int | None]:
    slots = asyncio.Semaphore(at_a_time)
    signals: list[int] = []

    async def run(index: int) -> int:
        async with slots:
            start = time.monotonic()
            with jobs[index].log.open("ab") as log:
                process = await _start(jobs[index], log.fileno())
            try:
                started(index)
                code = await process.wait()
            except asyncio.CancelledError:
                await _end(process, signals[0] if signals else signal.SIGTERM)
                raise
            ended(index, code, time.monotonic() - start)
            if code and fail_fast:
                cancel_all_but(index)
            return code

    tasks = [asyncio.create_task(run(index)) for index in range(len(jobs))]

    def cancel_all_but(index: int | None) -> None:
        for number, task in enumerate(tasks):
            if number != index:
                task.cancel()

    def stop(number: int) -> None:
        signals.append(number)
        cancel_all_but(None)

    with _signals_to(stop):
        await asyncio.wait(tasks)
    if signals:
        raise StoppedError(signals[0])
    return [None if task.cancelled() else task.result() for task in tasks]


async def _start(job: Job, log: int) -> asyncio.subprocess.Process:
    # A group of its own: the terminal's Ctrl-C reaches it through us alone, and what it starts ends with it.
    os.write(log, f"$ {shlex.join(job.command)}\n".encode())
    return await asyncio.create_subprocess_exec(
        *job.command,
        cwd=job.folder,
        env=job.environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log,
        stderr=asyncio.subprocess.STDOUT,
        process_group=0,
    )


async def _end(process: asyncio.subprocess.Process, number: int) -> None:
    """Passes the signal on and waits; a second signal, or too long a wait, kills."""
    _signal_group(process.pid, number)
    try:
        await asyncio.wait_for(process.wait(), _GRACE)
    except (TimeoutError, asyncio.CancelledError):
        pass
    finally:
        _signal_group(process.pid, signal.SIGKILL)  # what the job itself has started and left behind, too
        await process.wait()


def _signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


@contextmanager
def _signals_to(stop: Callable[[int], None]) -> Generator[None, None, None]:
    """Calls `stop` for the signals that end a program; those that are ignored, as under nohup, stay so."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    taken = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    for number in taken:
        loop.add_signal_handler(number, stop, number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])
