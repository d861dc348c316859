"""Signals that end a training: heeded at once, or at the end of the step where work would be lost."""

import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

#: Ctrl-C, the polite end, a closed terminal, and the two that cluster schedulers send before they take a machine.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Interrupted(BaseException):
    """A signal asked this process to end.

    Attributes:
        signal: Which.
        at_once: It was Ctrl-C for the second time, so that nothing more is to be saved.
    """

    def __init__(self, number: int, at_once: bool = False) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal, self.at_once = number, at_once


class Interruption:
    """What a signal does to the block of `interruptible`.

    Attributes:
        held: While true, the first signal is only remembered: whoever sets it looks at `signal` before long.
        signal: The first one that came; None as long as there was none.
    """

    def __init__(self) -> None:
        self.held = False
        self.signal: int | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raise `Interrupted`, or remember the signal while held. A second Ctrl-C always raises.

        Any other second signal is passed over: schedulers repeat themselves while the first is being heeded.
        """
        first, again = self.signal is None, self.signal == number == signal.SIGINT
        self.signal = self.signal or number
        if again or (first and not self.held):
            raise Interrupted(number, at_once=again)
        if first and number == signal.SIGINT:  # not through print, which may be what was interrupted
            os.write(2, b"\nsaving a checkpoint at the end of this step; Ctrl-C again leaves at once\n")


@contextmanager
def interruptible() -> Generator[Interruption]:
    """Takes the signals that end a program while the block runs, and hands on the one that ended it.

    Handed on to whoever handled it before: Python turns SIGINT into KeyboardInterrupt, `diffexp` SIGTERM into an exit
    code, a cluster's launcher puts the job into the queue again. Signals that are ignored, as under nohup, stay so.

    Raises:
        KeyboardInterrupt, SystemExit: A signal ended the block; 128 + its number where nobody handled it before.
    """
    interruption = Interruption()
    before = {int(number): signal.getsignal(number) for number in SIGNALS}
    taken = [n for n, handler in before.items() if handler is not None and handler != signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        taken = []
    for number in taken:
        signal.signal(number, interruption.handle)
    try:
        yield interruption
    except Interrupted as interrupted:
        number = interrupted.signal
    else:
        return
    finally:
        for each in taken:
            signal.signal(each, before[each])
    if callable(before[number]):
        signal.raise_signal(number)
    raise SystemExit(128 + number)
