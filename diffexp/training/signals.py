"""Graceful shutdown: a signal ends a training at once, or at the end of the step where work would be lost."""

import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

#: Ctrl-C, SIGTERM, a closed terminal, and the two that cluster schedulers send before they take a machine.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Interrupted(BaseException):
    """A signal that ends this process was received.

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
        held: While true, the first signal is only recorded, and the code that sets this must check `signal`.
        signal: The first one received; None if there was none.
    """

    def __init__(self) -> None:
        self.held = False
        self.signal: int | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raise `Interrupted`, or record the signal while held. A second Ctrl-C always raises.

        Any other second signal is ignored: schedulers repeat a signal while the first is being handled.
        """
        first, again = self.signal is None, self.signal == number == signal.SIGINT
        self.signal = self.signal or number
        if again or (first and not self.held):
            raise Interrupted(number, at_once=again)
        if first and number == signal.SIGINT:  # not through print, which may be what was interrupted
            os.write(2, b"\nsaving a checkpoint at the end of this step; Ctrl-C again leaves at once\n")


@contextmanager
def interruptible() -> Generator[Interruption]:
    """Handles the signals that end a program while the block runs, and passes on the one that ended it.

    It is passed to the previous handler: Python turns SIGINT into KeyboardInterrupt, `diffexp` SIGTERM into an exit
    code, a cluster's launcher puts the job into the queue again. Signals that are ignored, as under nohup, stay so.

    Raises:
        KeyboardInterrupt, SystemExit: A signal ended the block; 128 + its number where there was no handler before.
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
