"""Processes side by side: each in a slot of the machine, each with its log, none left behind."""

import asyncio
import os
import random
import shlex
import signal
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hydra_plugins.diffexp_local_launcher._slots import HeldSlot, Slot, first_free, slots_folder

_GRACE = 30.0  # seconds that a job has to save its work and end once it was asked to

_POLL = 0.05  # seconds between two looks for a free slot; many times less than a process takes to start

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)  # cluster's warnings too


@dataclass(frozen=True)
class Job:
    """A command, where it runs, and the file that takes all it prints."""

    command: Sequence[str]
    folder: str
    environment: Mapping[str, str]
    log: Path


class Listener(Protocol):
    """Is told what happens to the jobs, by their index."""

    def started(self, index: int, where: str) -> None:
        """A job starts in this slot."""

    def exited(self, index: int, code: int, seconds: float, fatal: bool) -> None:
        """A job ended by itself, with this exit code. If that is fatal, all others are about to be ended."""

    def stopped(self, index: int, code: int, seconds: float) -> None:
        """A job ended because it was asked to, or was killed."""

    def waiting(self, seconds: float) -> None:
        """No slot has been free for this time."""

    def stopping(self, why: str, grace: float) -> None:
        """The jobs that run are asked to end, and have this many seconds; no more are started."""


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
    slots: Sequence[Slot],
    listener: Listener,
    at_a_time: int,
    stagger: float = 0.0,
    fail_fast: bool = False,
) -> list[int | None]:
    """Runs the jobs, each in a slot, and returns their exit codes (minus the signal that ended one).

    Args:
        jobs: Started in this order.
        slots: That they may hold, and share with all other sweeps of this machine.
        listener: Told of what happens.
        at_a_time: How many may run at once, if there are slots for them.
        stagger: Seconds between two starts, at least.
        fail_fast: The first job that fails ends the others with SIGTERM; None is their exit code, and that of those
            that were not started.

    Raises:
        StoppedError: This process got one of `_SIGNALS`. All jobs got it too, and all have ended.
        PermissionError: The folder of the slots is somebody else's.
    """
    return asyncio.run(_run_all(jobs, slots, listener, at_a_time, stagger, fail_fast))


async def _run_all(
    jobs: Sequence[Job], slots: Sequence[Slot], listener: Listener, at_a_time: int, stagger: float, fail_fast: bool
) -> list[int | None]:
    room, turn, folder = asyncio.Semaphore(at_a_time), asyncio.Lock(), slots_folder()
    signals: list[int] = []
    fatal = False  # a job has failed that ends the others
    earliest = 0.0

    async def run(index: int) -> int:
        nonlocal earliest
        async with room:
            async with turn:  # one looks for a slot at a time: they start in order
                await asyncio.sleep(earliest - time.monotonic())
                held = await _free(slots, folder, listener)
                start = time.monotonic()
                earliest = start + stagger
            try:
                code = await run_in(held, index, start)
            finally:
                held.release()
        if fatal:
            listener.stopping("fail_fast", _GRACE)
            cancel_all_but(index)
        return code

    async def run_in(held: HeldSlot, index: int, start: float) -> int:
        nonlocal fatal
        with jobs[index].log.open("ab") as log:
            process = await _start(jobs[index], log.fileno(), held)
        try:
            listener.started(index, held.slot.name)
            code = await process.wait()
        except asyncio.CancelledError:
            code = await _end(process, signals[0] if signals else signal.SIGTERM)
            listener.stopped(index, code, time.monotonic() - start)
            raise
        fatal = fail_fast and code != 0
        listener.exited(index, code, time.monotonic() - start, fatal)
        return code

    tasks = [asyncio.create_task(run(index)) for index in range(len(jobs))]

    def cancel_all_but(index: int | None) -> None:
        for number, task in enumerate(tasks):
            if number != index:
                task.cancel()

    def stop(number: int) -> None:
        ending = bool(signals) or fatal
        signals.append(number)
        if not ending:
            listener.stopping(signal.Signals(number).name, _GRACE)
        if not ending or number == signal.SIGINT:  # `timeout` sends SIGTERM twice and means it once
            cancel_all_but(None)

    with _signals_to(stop):
        await asyncio.wait(tasks)
    if signals:
        raise StoppedError(signals[0])
    return [None if task.cancelled() else task.result() for task in tasks]


async def _free(slots: Sequence[Slot], folder: Path, listener: Listener) -> HeldSlot:
    """Waits for a slot. Whoever has just freed one has no better chance of it than a sweep that waits."""
    await asyncio.sleep(random.uniform(0, _POLL))
    since = time.monotonic()
    while (held := first_free(slots, folder)) is None:
        listener.waiting(time.monotonic() - since)
        await asyncio.sleep(_POLL)
    return held


async def _start(job: Job, log: int, held: HeldSlot) -> asyncio.subprocess.Process:
    # A group of its own: the terminal's Ctrl-C reaches it through us alone, and what it starts ends with it.
    os.write(log, f"$ {shlex.join(job.command)}\n".encode())
    return await asyncio.create_subprocess_exec(
        *job.command,
        cwd=job.folder,
        env={**job.environment, **held.slot.environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log,
        stderr=asyncio.subprocess.STDOUT,
        process_group=0,
        pass_fds=[held.handle],
    )


async def _end(process: asyncio.subprocess.Process, number: int) -> int:
    """Passes the signal on, waits, and returns the exit code; to be cancelled, or too long a wait, kills."""
    _signal_group(process.pid, number)
    try:
        await asyncio.wait_for(process.wait(), _GRACE)
    except (TimeoutError, asyncio.CancelledError):
        pass
    finally:
        _signal_group(process.pid, signal.SIGKILL)  # what the job itself has started and left behind, too
        code = await process.wait()
    return code


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
