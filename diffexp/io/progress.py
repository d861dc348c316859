"""How far long work is and when it will be done, on stderr: one line that is rewritten, or now and then a new one."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def progress(parts: Iterable[T], total: int, label: str, patience: float = 10.0) -> Iterator[T]:
    """The parts as they are, with the share done and the time left said between them.

    Args:
        parts: Of roughly equal cost.
        total: How many there are.
        label: What they are parts of.
        patience: Seconds before the first word, and between two lines where stderr is no terminal.
    """
    began = said = time.monotonic()
    rewriting = sys.stderr.isatty()
    spoken = False
    for done, part in enumerate(parts, 1):
        yield part
        now = time.monotonic()
        if now - (began if rewriting and not spoken else said) < (0.2 if rewriting and spoken else patience):
            continue
        spoken, said = True, now
        line = f"{label}  {100 * done / total:3.0f} %  ETA {clock((now - began) / done * (total - done))}"
        print(f"\r\033[K{line}" if rewriting else line, end="" if rewriting else "\n", file=sys.stderr, flush=True)
    if spoken and rewriting:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
