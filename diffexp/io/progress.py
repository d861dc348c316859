"""Progress of long work on stderr: the share done and the time left, on one rewritten line or a new one at times."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def progress(parts: Iterable[T], total: int, label: str, patience: float = 10.0) -> Iterator[T]:
    """Yield the parts unchanged, and print the share done and the time left between them.

    Args:
        parts: Of roughly equal cost.
        total: How many there are.
        label: What they are parts of.
        patience: Seconds before the first line, and between two lines if stderr is not a terminal.
    """
    began = last = time.monotonic()
    rewriting = sys.stderr.isatty()
    printed = False
    for done, part in enumerate(parts, 1):
        yield part
        now = time.monotonic()
        if now - (began if rewriting and not printed else last) < (0.2 if rewriting and printed else patience):
            continue
        printed, last = True, now
        line = f"{label}  {100 * done / total:3.0f} %  ETA {clock((now - began) / done * (total - done))}"
        print(f"\r\033[K{line}" if rewriting else line, end="" if rewriting else "\n", file=sys.stderr, flush=True)
    if printed and rewriting:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
