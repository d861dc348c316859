"""Processes side by side: each in a slot of the machine, each with its log file, none left behind."""

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

from hydra_plugins.diffexp_local_launcher._display import Display
from hydra_plugins.diffexp_local_launcher._slots import HeldSlot, Slot, first_free, slots_folder

_GRACE = 30.0  # seconds that a job has to save its work and exit once it is signalled to stop

_POLL = 0.05  # seconds between two looks for a free slot; much less than a process takes to start

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)  # cluster's warnings too


@dataclass(frozen=True)
class Job:
    """A command, its working directory and environment, and the file that takes all it prints."""

    command: Sequence[str]
    folder: str
    environment: Mapping[str, str]
    log: Path


class StoppedError(Exception):
    """The jobs were stopped because this process received a signal.

    Attributes:
        signal: Its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


def run_all(
    jobs: Sequence[Job],
    slots: Sequence[Slot],
    display: Display,
    at_a_time: int,
    stagger: float = 0.0,
    fail_fast: bool = False,
) -> list[int | None]:
    """Run the jobs, each in a slot, and return their exit codes (minus the signal that ended one).

    Args:
        jobs: Started in this order.
        slots: Shared with all other sweeps of this machine.
        display: Its methods are called with what happens.
        at_a_time: How many may run at once, if there are slots for them.
        stagger: Seconds between two starts, at least.
        fail_fast: The first job that fails stops the others with SIGTERM; the exit code of those, and of jobs that
            were not started, is None.

    Raises:
        StoppedError: This process received one of `_SIGNALS`. It was passed on to all jobs, and all have ended.
        PermissionError: The folder of the slots belongs to another user.
    """
    return asyncio.run(_run_all(jobs, slots, display, at_a_time, stagger, fail_fast))


async def _run_all(
    jobs: Sequence[Job], slots: Sequence[Slot], display: Display, at_a_time: int, stagger: float, fail_fast: bool
) -> list[int | None]:
    room, turn, folder = asyncio.Semaphore(at_a_time), asyncio.Lock(), slots_folder()
    signals: list[int] = []
    fatal = False  # a job has failed that stops the others
    earliest = 0.0

    async def run(index: int) -> int:
        nonlocal earliest
        async with room:
            async with turn:  # one at a time looks for a slot: they start in order
                await asyncio.sleep(earliest - time.monotonic())
                held = await _free(slots, folder, display)
                start = time.monotonic()
                earliest = start + stagger
            try:
                code = await run_in(held, index, start)
            finally:
                held.release()
        if fatal:
            display.stopping("fail_fast", _GRACE)
            cancel_all_but(index)
        return code

    async def run_in(held: HeldSlot, index: int, start: float) -> int:
        nonlocal fatal
        with jobs[index].log.open("ab") as log:
            process = await _start(jobs[index], log.fileno(), held)
        try:
            display.started(index, held.slot.name)
            code = await process.wait()
        except asyncio.CancelledError:
            code = await _end(process, signals[0] if signals else signal.SIGTERM)
            display.stopped(index, code, time.monotonic() - start)
            raise
        fatal = fail_fast and code != 0
        display.exited(index, code, time.monotonic() - start, fatal)
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
            display.stopping(signal.Signals(number).name, _GRACE)
        if not ending or number == signal.SIGINT:  # `timeout` sends SIGTERM twice and means it once
            cancel_all_but(None)

    with _signals_to(stop):
        await asyncio.wait(tasks)
    if signals:
        raise StoppedError(signals[0])
    return [None if task.cancelled() else task.result() for task in tasks]


async def _free(slots: Sequence[Slot], folder: Path, display: Display) -> HeldSlot:
    """Wait for a slot. The sweep that has just freed one is no more likely to get it than a sweep that waits."""
    await asyncio.sleep(random.uniform(0, _POLL))
    since = time.monotonic()
    while (held := first_free(slots, folder)) is None:
        display.waiting(time.monotonic() - since)
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
    """Pass the signal on, wait, and return the exit code; kill the job after `_GRACE`, or if this is cancelled."""
    _signal_group(process.pid, number)
    try:
        await asyncio.wait_for(process.wait(), _GRACE)
    except (TimeoutError, asyncio.CancelledError):
        pass
    finally:
        _signal_group(process.pid, signal.SIGKILL)  # also what the job itself has started and left behind
        code = await process.wait()
    return code


def _signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


@contextmanager
def _signals_to(stop: Callable[[int], None]) -> Generator[None, None, None]:
    """Call `stop` for the signals that end a program; those that are ignored, as under nohup, stay so."""
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
