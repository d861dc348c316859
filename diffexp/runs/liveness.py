"""Signs of life of a process, in a file: for readers on other machines, where no lock and no process id reaches."""

import contextlib
import threading
import time
from collections.abc import Generator
from pathlib import Path

#: Seconds between two beats.
EVERY = 10.0


@contextlib.contextmanager
def beating(path: Path, every: float = EVERY) -> Generator[None]:
    """Touch `path` now and every `every` seconds until the block ends, through whatever the block is busy with.

    From a thread, so that a long compilation or evaluation does not look like death. The file's modification
    time is all of its content, and it remains after the run. A file that cannot be touched is not an error.
    """
    ended = threading.Event()

    def beat() -> None:
        with contextlib.suppress(OSError):
            path.touch()

    def beat_on() -> None:
        while not ended.wait(every):
            beat()

    beat()
    thread = threading.Thread(target=beat_on, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def is_beating(path: Path, patience: float = 2.5 * EVERY) -> bool:
    """Whether `path` is touched within `patience` seconds; compares no clocks, which differ across machines."""
    before = _touched(path)
    if before is None:
        return False
    end = time.monotonic() + patience
    while time.monotonic() < end:
        time.sleep(min(0.2, patience))
        if _touched(path) != before:
            return True
    return False


def _touched(path: Path) -> int | None:
    """When, in nanoseconds; None where there is no such file."""
    try:
        with path.open("rb"):  # a network file system looks anew when a file is opened
            return path.stat().st_mtime_ns
    except OSError:
        return None
